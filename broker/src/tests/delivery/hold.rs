//! Pulls that wait.

use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;

use super::support::{Client, Node, PATIENCE, heartbeat, messages, number, pull, pull_request, until};
use crate::terms::QueueOffset;

/// A pull that may wait for a quarter of a minute.
fn held(topic: &str, queue: i32, offset: i64) -> PullMessageHeader<'_> {
    PullMessageHeader { sys_flag: 6, suspend_timeout_millis: 15_000, ..pull("G", topic, queue, offset) }
}

fn start_pull(client: &Client, header: &PullMessageHeader<'_>) -> tokio::task::JoinHandle<Frame> {
    let (remote, address) = client.remote();
    let request = pull_request(header);
    #[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
    tokio::spawn(async move { remote.call(&address, request, PATIENCE).await.unwrap() })
}

async fn until_held(node: &Node, count: usize) {
    until("pulls are held", async || node.running().broker().delivery.holds.len() == count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_wakes_it_at_once() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"first", &[]).await;
    let waiting = start_pull(&client, &held("T", 0, 1));
    until_held(&node, 1).await;
    // Another queue's message is not for it.
    client.send("T", 1, b"elsewhere", &[]).await;
    let before = clock::monotonic();
    client.send("T", 0, b"second", &[]).await;
    let answer = waiting.await.unwrap();
    assert!(clock::monotonic().saturating_sub(before) < Duration::from_secs(5));
    assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (0, 2));
    assert_eq!(&messages(&answer)[0].body[..], b"second");
    until_held(&node, 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_leads_no_more_holds_none() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"first", &[]).await;
    let waiting = start_pull(&client, &held("T", 0, 1));
    until_held(&node, 1).await;
    let delivery = &node.running().broker().delivery;
    delivery.holds.release(delivery);
    let before = clock::monotonic();
    assert_eq!(waiting.await.unwrap().code, 19);
    // One whose look came before, and that is entered after.
    assert_eq!(client.call(pull_request(&held("T", 0, 1))).await.code, 19);
    assert!(clock::monotonic().saturating_sub(before) < Duration::from_secs(5));
    until_held(&node, 0).await;
    delivery.holds.open();
    let waiting = start_pull(&client, &held("T", 0, 1));
    until_held(&node, 1).await;
    client.send("T", 0, b"second", &[]).await;
    assert_eq!(waiting.await.unwrap().code, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_ends_it() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"first", &[]).await;
    let header = PullMessageHeader { suspend_timeout_millis: 300, ..held("T", 0, 1) };
    let before = clock::monotonic();
    let answer = client.call(pull_request(&header)).await;
    let waited = clock::monotonic().saturating_sub(before);
    assert!(waited >= Duration::from_millis(290) && waited < Duration::from_secs(10), "{waited:?}");
    assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (19, 1));
    // Without the right to wait there is no wait.
    let header = PullMessageHeader { sys_flag: 4, ..held("T", 0, 1) };
    assert_eq!(client.call(pull_request(&header)).await.code, 19);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_polling_takes_the_place_of_long_polling() {
    let node = Node::with(|config| {
        config.long_polling_enable = false;
        config.short_polling = Duration::from_millis(200);
    })
    .await;
    let client = node.client("c");
    client.send("T", 0, b"first", &[]).await;
    let before = clock::monotonic();
    assert_eq!(client.call(pull_request(&held("T", 0, 1))).await.code, 19);
    assert!(clock::monotonic().saturating_sub(before) < Duration::from_secs(10));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_others_do_not_end_it() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"x", &[("TAGS", "A")]).await;
    let waiting = start_pull(&client, &PullMessageHeader { subscription: Some("B"), ..held("T", 0, 1) });
    until_held(&node, 1).await;
    for _ in 0..20 {
        client.send("T", 0, b"x", &[("TAGS", "A")]).await;
    }
    until_held(&node, 1).await;
    assert!(!waiting.is_finished());
    client.send("T", 0, b"x", &[("TAGS", "B")]).await;
    let answer = waiting.await.unwrap();
    assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (0, 22));
    assert_eq!(messages(&answer)[0].queue_offset, 21);
    // One whose time ends meanwhile tells how far it came.
    let header = PullMessageHeader { subscription: Some("B"), suspend_timeout_millis: 500, ..held("T", 0, 22) };
    let waiting = start_pull(&client, &header);
    until_held(&node, 1).await;
    client.send("T", 0, b"x", &[("TAGS", "A")]).await;
    let answer = waiting.await.unwrap();
    assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (20, 23));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_drops_it() {
    let node = Node::start().await;
    let (client, other) = (node.client("c"), node.client("d"));
    other.send("T", 0, b"x", &[]).await;
    let waiting: Vec<_> = (0..50).map(|_| start_pull(&client, &held("T", 0, 1))).collect();
    let stays = start_pull(&other, &held("T", 0, 1));
    until_held(&node, 51).await;
    for task in &waiting {
        task.abort();
    }
    client.close().await;
    until_held(&node, 1).await;
    other.send("T", 0, b"y", &[]).await;
    assert_eq!(stays.await.unwrap().code, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_ends_it() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"x", &[]).await;
    let waiting = start_pull(&client, &held("T", 0, 1));
    until_held(&node, 1).await;
    let delete = Frame::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "T");
    assert_eq!(client.call(delete).await.code, 0);
    assert_eq!(waiting.await.unwrap().code, 17);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_missed_between_look_and_wait() {
    let node = Node::start().await;
    let (producer, consumer) = (node.client("p"), node.client("c"));
    producer.send("T", 0, b"x", &[]).await;
    let sends = async {
        for _ in 0..500 {
            producer.send("T", 0, b"x", &[]).await;
        }
    };
    let pulls = async {
        let mut next = 1;
        while next < 501 {
            let answer = consumer.call(pull_request(&held("T", 0, next))).await;
            assert_eq!(answer.code, 0, "nothing came although something was sent");
            let offsets: Vec<i64> = messages(&answer).iter().map(|message| message.queue_offset).collect();
            assert_eq!(offsets, (next..next + offsets.len() as i64).collect::<Vec<_>>());
            next = number(&answer, "nextBeginOffset");
        }
    };
    tokio::join!(sends, pulls);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_moves_the_consumer() {
    let node = Node::start().await;
    let client = node.client("c");
    for _ in 0..5 {
        client.send("T", 0, b"x", &[]).await;
    }
    // Only a group with members is told by its pull.
    assert_eq!(client.heartbeat(&heartbeat("c", "G", "T", "*")).await.code, 0);
    let waiting = start_pull(&client, &held("T", 0, 5));
    until_held(&node, 1).await;
    let broker = node.running().broker();
    let queue = broker.shard.topics().get("T").unwrap().queues[0].clone();
    let reset = Frame::request(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with_field("topic", "T")
        .with_field("group", "G")
        .with_field("isForce", true)
        .with_field("queueId", 0)
        .with_field("offset", 2);
    assert_eq!(client.call(reset).await.code, 0);
    let answer = waiting.await.unwrap();
    assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (21, 2));
    assert_eq!(answer.remark.as_deref(), Some("OFFSET_RESET"));
    assert_eq!(broker.shard.offset("G", queue.id).unwrap(), Some(QueueOffset(2)));
    // Told once; from there on it goes its way.
    assert_eq!(client.call(pull_request(&pull("G", "T", 0, 2))).await.code, 0);
    node.stop().await;
}
