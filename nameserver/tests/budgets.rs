//! The share that all connections may take together is a setting, and a connection within it is served.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, MAX_FRAME_LEN};
use escrowmq_nameserver::Config;
use support::{PATIENCE, Stage, registration};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Whether a new connection is closed at once, and not kept.
async fn is_refused(stage: &Stage) -> bool {
    let mut stream = TcpStream::connect(stage.nameserver.local_addr()).await.unwrap();
    let mut input = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut input)).await;
    // A reset is as good as an end.
    read.is_ok_and(|read| !matches!(read, Ok(1..)))
}

#[tokio::test]
async fn connections_beyond_the_limits_are_closed_and_the_others_stay() {
    let limits: [fn(&mut Config); 2] =
        [|config| config.max_connections = 2, |config| config.max_connections_per_address = 2];
    for limit in limits {
        let stage = Stage::start_with(limit).await;
        stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
        let second = stage.connect().await;
        assert_eq!(second.call(registration("h:2", 1, 1, &["T", "U"])).await.code, response::SUCCESS);
        assert!(is_refused(&stage).await);
        assert!(stage.route("T").await.is_some_and(|route| route.contains("h:1") && route.contains("h:2")));
        drop(second);
        let readmitted = async {
            let asked = || Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", "T");
            let remote = support::remote();
            while remote.call(&stage.address(), asked(), PATIENCE).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, readmitted).await.expect("a place that was given back is taken again");
    }
}

#[tokio::test]
async fn the_least_budget_takes_the_largest_requests_of_brokers_that_do_nothing_wrong() {
    let stage = Stage::start_with(|config| config.connection_bytes_max = 64 << 20).await;
    let (one, two) = (stage.connect().await, stage.connect().await);
    // Such a body is read to its end, and then refused for what it is.
    let large = |address: &str| registration(address, 0, 1, &["T"]).with_body(vec![b'x'; MAX_FRAME_LEN - 64 * 1024]);
    for _ in 0..3 {
        for answer in <[Frame; 2]>::from(tokio::join!(one.call(large("h:1")), two.call(large("h:2")))) {
            assert_eq!(answer.code, response::SYSTEM_ERROR, "{:?}", answer.remark);
        }
    }
}
