//! The pages of a running broker and a running nameserver: docs/metrics.md describes them, `promtool` takes them, and what is to
//! outlive a restart does.

#![allow(clippy::float_cmp, reason = "figures are compared that count things")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_tests::metrics::Page;
use escrowmq_tests::processes::free_port;
use escrowmq_tests::wire::{End, Wire};
use escrowmq_tests::{Broker, Nameserver, Settings, until};

/// A family: its type, and the names of its labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// The families of a page. Their labels are those that samples have.
fn of_page(page: &str) -> Families {
    let mut families = Families::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(page.contains(&format!("# HELP {name} ")), "{name} says nothing");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new())).is_none(), "{name} twice");
        } else if !line.starts_with('#') {
            let (sample, _) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = base.filter(|base| families.contains_key(*base)).unwrap_or(name);
            let (_, known) = families.get_mut(base).unwrap_or_else(|| panic!("{base} has no type"));
            known.extend(labels.split("=\"").filter_map(|part| {
                let name = part.rsplit([',', '"']).next()?.trim_end_matches('}');
                (!name.is_empty() && name != "le").then(|| name.to_owned())
            }));
        }
    }
    families
}

/// The tables of docs/metrics.md whose headings `wanted` takes.
fn of_document(wanted: impl Fn(&str) -> bool) -> Families {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let mut families = Families::new();
    for section in text.split("\n## ").skip(1).filter(|section| wanted(section.lines().next().unwrap_or_default())) {
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, labels, meaning] = cells[..] else { panic!("{row}") };
            assert!(!meaning.is_empty(), "{name}");
            let labels =
                labels.split(", ").map(|label| label.trim_matches(['`', '|', ' '])).filter(|label| !label.is_empty());
            let family = (kind.to_owned(), labels.map(str::to_owned).collect());
            assert!(families.insert(name.trim_matches('`').to_owned(), family).is_none(), "{name} twice");
        }
    }
    families
}

#[track_caller]
fn assert_same(page: &Families, document: &Families) {
    let names = |of: &Families| of.keys().cloned().collect::<BTreeSet<_>>();
    let (there, described) = (names(page), names(document));
    let silent: Vec<_> = there.difference(&described).collect();
    let gone: Vec<_> = described.difference(&there).collect();
    assert!(silent.is_empty() && gone.is_empty(), "not in the document: {silent:?}; not on the page: {gone:?}");
    for (name, (kind, labels)) in page {
        let (said, known) = &document[name];
        assert_eq!(kind, said, "{name}");
        // What never happened has no sample, and so no labels.
        assert!(labels.is_subset(known) && (labels.is_empty() || labels == known), "{name}: {labels:?}, {known:?}");
    }
}

/// Gives a page to Prometheus's own check, where it is installed.
fn promtool(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut check) = command.spawn() else {
        eprintln!(
            "SKIPPED: promtool is not installed (`deploy/setup.sh tests` does, where apt is): the page was not checked"
        );
        return;
    };
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_figure_is_described_and_passes_the_check_of_prometheus() {
    let [of_broker, of_nameserver] = [free_port(), free_port()];
    let nameserver = Nameserver::start_with(&[("metricsPort", of_nameserver.to_string())]).await;
    let settings = Settings::default().with("metricsPort", of_broker).with("namesrvAddr", nameserver.address());
    let broker = Broker::start(settings.without_checks()).await;
    let wire = broker.wire();
    wire.greet("client", "G", &[("T", "*")]).await;
    wire.create_topic("T", 1).await;
    let half = wire.half("PG", "T", "key", "body").await;
    wire.end(&half, End::Commit).await.unwrap();
    assert_eq!(wire.pull("G", "T", 0, 0, 32).await.messages.len(), 1);
    let names = Wire::to(nameserver.address());
    until("the registration is counted", async || {
        names.ask(Frame::request(request::GET_BROKER_CLUSTER_INFO)).await;
        let page = Page::of(of_nameserver).await?;
        (page.value("nameserver_brokers") == Some(1) && page.value("nameserver_topics")? > 0).then_some(())
    })
    .await;
    let is_both = |heading: &str| heading == "Both programs";
    let page = Page::of(of_broker).await.expect("a page");
    assert_same(&of_page(page.body()), &of_document(|heading| is_both(heading) || heading.starts_with("Broker: ")));
    promtool(page.body());
    assert_eq!(page.value("ready"), Some(1));
    let page = Page::of(of_nameserver).await.expect("a page");
    assert_same(&of_page(page.body()), &of_document(|heading| is_both(heading) || heading == "Nameserver"));
    promtool(page.body());
    let asked =
        page.by_label("nameserver_requests_total", "request").find(|(name, _)| *name == "GET_BROKER_CLUSTER_INFO");
    assert!(asked.is_some_and(|(_, count)| count > 0), "{asked:?}");
    assert_eq!(page.value("ready"), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_named_so_outlives_a_restart() {
    let port = free_port();
    let mut broker = Broker::start(Settings::default().with("metricsPort", port).without_checks()).await;
    broker.wire().create_topic("T", 1).await;
    for (key, end) in [("a", End::Commit), ("b", End::Commit), ("c", End::Rollback)] {
        let half = broker.wire().half("PG", "T", key, "body").await;
        broker.wire().end(&half, end).await.unwrap();
    }
    let counters = async || {
        let page = Page::of(port).await?;
        let is_counter = |name: &&str| name.ends_with("_total");
        let named = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lines = page.body().lines().filter(|line| !line.starts_with('#')).filter_map(named);
        let counters = lines.filter(|(name, _)| is_counter(&name.split('{').next().unwrap_or_default()));
        Some(counters.map(|(name, value)| (name, value.parse::<f64>().unwrap())).collect::<BTreeMap<_, _>>())
    };
    let before = until("a page", async || counters().await).await;
    assert_eq!(before["escrowmq_transactions_committed_ever_total"], 2.0);
    assert_eq!(before["escrowmq_transactions_rolled_back_ever_total"], 1.0);
    assert_eq!(before["escrowmq_messages_in_total"], 3.0);
    assert_eq!(before["escrowmq_topic_messages_in_total{topic=\"T\"}"], 2.0);
    broker.crash().await;
    let after = until("a page", async || counters().await).await;
    for (name, value) in &before {
        let kept = after.get(name).copied().unwrap_or_default();
        if name.contains("_ever_") {
            assert_eq!(kept, *value, "{name}");
        } else if !name.contains("process_") && !name.contains("connections_opened") {
            assert_eq!(kept, 0.0, "{name} was {value}");
        }
    }
}
