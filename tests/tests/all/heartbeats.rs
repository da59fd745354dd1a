//! A flood of heartbeats as large as a frame may be, to the leader of a group of three and to a member that follows: it deposes
//! nobody, and a client beside it goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::body::{ConsumerData, HeartbeatData, SubscriptionData};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_tests::group::{Group, Plan};
use escrowmq_tests::{Settings, Wire, since};
use futures_util::future::{join, join_all};

const TOPIC: &str = "Beside";
/// Connections that flood, half of them at the leader.
const CONNECTIONS: usize = 4;
/// Heartbeats of each. All of them together are a gigabyte.
const HEARTBEATS: usize = 16;
/// Bytes of a heartbeat: the frame's header still fits.
const BYTES: usize = 16 * 1024 * 1024 - 4096;
/// Topics in it, as many as a heartbeat may name.
const SUBSCRIPTIONS: usize = 10_000;
/// Longest time of a send beside the flood. Without a leader it would take an election more, and fail.
const SEND_MAX: Duration = Duration::from_secs(5);

/// A heartbeat that is good in all but its size.
fn heartbeat(client: usize) -> Bytes {
    let encode = |expression: &str| {
        let subscriptions = (0..SUBSCRIPTIONS).map(|number| SubscriptionData {
            topic: format!("topic-{number}"),
            sub_string: expression.to_owned(),
            ..SubscriptionData::default()
        });
        let group = ConsumerData {
            group_name: format!("flooding-{client}"),
            subscription_data_set: subscriptions.collect(),
            ..ConsumerData::default()
        };
        let data = HeartbeatData {
            client_id: format!("client-{client}"),
            consumer_data_set: vec![group],
            ..HeartbeatData::default()
        };
        to_bytes(&data, Form::Strict)
    };
    let room = (BYTES - encode("").len()) / SUBSCRIPTIONS;
    let body = encode(&"t".repeat(room));
    assert!((BYTES - SUBSCRIPTIONS..=BYTES).contains(&body.len()), "{} bytes", body.len());
    body
}

/// Sends until the flood is over; how many were acknowledged, and the longest time of one.
async fn send_beside(wire: &Wire, is_over: &AtomicBool) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let began = clock::monotonic();
        let answer = wire.send(TOPIC, 0, count.to_string(), &[]).await.expect("answered");
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        longest = longest.max(since(began));
        count += 1;
    }
    (count, longest)
}

/// The newest terms that the members know, and how many leaders they have seen.
async fn terms(group: &Group) -> Vec<(u64, u64)> {
    let pages = join_all((0..3).map(|member| group.page(member))).await;
    let term =
        |page: &escrowmq_tests::metrics::Page| page.value("group_term").zip(page.value("group_leader_changes_total"));
    pages.iter().map(|page| page.as_ref().and_then(term).expect("each member has a page")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_large_heartbeats_deposes_nobody() {
    let group = Group::start(Plan::new(Settings::default())).await;
    let leader = group.until_leader().await;
    let [follower, _] = group.followers(leader);
    let wire = group.wire(leader);
    wire.create_topic(TOPIC, 1).await;
    wire.send(TOPIC, 0, "before", &[]).await.expect("answered");
    group.until_equal().await;
    let before = terms(&group).await;

    let (is_over, accepted, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let began = clock::monotonic();
    let flood = async {
        join_all((0..CONNECTIONS).map(async |client| {
            let wire = group.wire(if client % 2 == 0 { leader } else { follower });
            let body = heartbeat(client);
            for _ in 0..HEARTBEATS {
                let answer = wire.call(Frame::request(request::HEART_BEAT).with_body(body.clone())).await;
                let code = answer.expect("each heartbeat is answered").code;
                let counter = if code == response::SUCCESS { &accepted } else { &refused };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }))
        .await;
        is_over.store(true, Ordering::Relaxed);
    };
    let ((), (sent, longest)) = join(flood, send_beside(&wire, &is_over)).await;
    let took = since(began);
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    println!(
        "{accepted} heartbeats of 16 MiB accepted and {refused} refused in {took:?}; {sent} sends beside them, the slowest took {longest:?}"
    );
    assert!(accepted > 0 && accepted + refused == CONNECTIONS * HEARTBEATS);
    assert!(sent > 10 && longest < SEND_MAX, "{sent} sends, the slowest took {longest:?}");
    let after = wire.send(TOPIC, 0, "after", &[]).await.expect("answered");
    assert_eq!(after.code, response::SUCCESS, "{:?}", after.remark);
    assert_eq!(terms(&group).await, before, "no election");
    assert_eq!(group.leader().await, Some(leader));
}
