//! Pulls that a leader holds when it cannot lead any more.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};

use super::support::{Three, send};
use crate::tests::support::{PATIENCE, create_topic};

/// Longer than any step of the test takes.
const SUSPENDED: Duration = Duration::from_secs(60);

/// Starts a pull at the end of the topic's queue, which the leader holds.
async fn hold(three: &Three, leader: usize) -> tokio::task::JoinHandle<Frame> {
    let header = PullMessageHeader {
        expression_type: None,
        sys_flag: 6,
        suspend_timeout_millis: SUSPENDED.as_millis() as i64,
        ..PullMessageHeader::new("G", "T", 0, 1, 32)
    };
    let pull = Frame::request(request::PULL_MESSAGE).with_header(&header);
    let address = three.address(leader);
    #[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
    let held = tokio::spawn(async move {
        let remote = Remote::new(RemoteOptions::default(), Arc::new(NoRequests));
        remote.call(&address, pull, SUSPENDED + PATIENCE).await.unwrap()
    });
    three.until(leader, "held_pulls", |held| held > 0.5).await;
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_answers_them_when_its_lease_ends_and_when_it_is_deposed() {
    let mut three = Three::new();
    three.start(&[0, 1, 2]).await;
    let leader = three.leader().await;
    three.done(leader, create_topic("T", 1)).await;
    three.done(leader, send("T")).await;
    let began = clock::monotonic();

    let held = hold(&three, leader).await;
    three.done(leader, Frame::request(request::TRANSFER_LEADER)).await;
    assert_eq!(held.await.unwrap().code, response::PULL_NOT_FOUND);

    let leader = three.leader().await;
    let held = hold(&three, leader).await;
    three.stop((leader + 1) % 3).await;
    three.stop((leader + 2) % 3).await;
    assert_eq!(held.await.unwrap().code, response::PULL_NOT_FOUND);
    assert!(clock::monotonic().saturating_sub(began) < SUSPENDED, "their time did not end them");
    three.end().await;
}
