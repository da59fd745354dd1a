//! docs/protocol.md and the truth: its tables of requests have the codes of the code table, and say what brokers and
//! nameservers serve.

use std::collections::{BTreeMap, BTreeSet};

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_tests::{Cluster, Settings, Wire};

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// A line of the page's tables of requests.
#[derive(Debug)]
struct Row {
    name: &'static str,
    /// The processes that it is meant for.
    to: Vec<&'static str>,
    is_served: bool,
}

/// The rows by their codes. Other tables have fewer columns, or no name in code in the second one.
fn rows() -> BTreeMap<i32, Row> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [code, name, to, served, _] = cells[..] else { continue };
        let (Ok(code), Some(name)) = (code.parse(), name.strip_prefix('`')) else { continue };
        let is_served = match served {
            "yes" | "partly" => true,
            "no" => false,
            other => panic!("{code} is neither served nor not: {other:?}"),
        };
        let row = Row { name: name.trim_end_matches('`'), to: to.split(", ").collect(), is_served };
        assert!(rows.insert(code, row).is_none(), "{code} has two rows");
    }
    rows
}

#[test]
fn the_page_names_every_code() {
    let rows = rows();
    for (name, code) in request::ALL {
        let row = rows.get(code).unwrap_or_else(|| panic!("{name} {code} is missing in docs/protocol.md"));
        assert_eq!(row.name, *name, "{code}");
    }
    let unknown = rows.iter().filter(|(code, row)| request::name(**code).is_none() && row.is_served);
    assert_eq!(unknown.map(|(code, _)| code).collect::<Vec<_>>(), [&0; 0], "served codes without a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_what_is_served() {
    let cluster = Cluster::start(Settings::default()).await;
    let servers = [("broker", cluster.broker.wire()), ("nameserver", Wire::to(cluster.nameserver.address()))];
    let rows = rows();
    for (server, wire) in &servers {
        let told: BTreeSet<i32> =
            rows.iter().filter(|(_, row)| row.is_served && row.to.contains(server)).map(|(code, _)| *code).collect();
        let mut served = BTreeSet::new();
        for code in rows.keys() {
            // Without fields and body: refused, but by the handler of the request.
            let answer = wire.call(Frame::request(*code)).await.expect("an answer");
            if answer.code != response::REQUEST_CODE_NOT_SUPPORTED {
                served.insert(*code);
            }
        }
        assert_eq!(served, told, "{server}");
    }
}
