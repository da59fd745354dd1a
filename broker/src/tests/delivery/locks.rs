//! Locks of ordered consumers.

use std::time::Duration;

use escrowmq_common::body::json::{Form, from_slice, to_bytes};
use escrowmq_common::body::{LockBatchBody, LockBatchResponse, MessageQueue};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::support::{Client, Node, until};
use crate::shard::{Admission, Command, Lock};

async fn ask(client: &Client, code: i32, queues: &[i32]) -> Frame {
    let body = LockBatchBody {
        client_id: client.id.clone(),
        consumer_group: "G".to_owned(),
        mq_set: queues.iter().map(|queue| MessageQueue::new("T", "broker-a", *queue)).collect(),
        only_this_broker: false,
    };
    client.call(Frame::request(code).with_body(to_bytes(&body, Form::Loose))).await
}

async fn lock(client: &Client, queues: &[i32]) -> Vec<i32> {
    let answer = ask(client, request::LOCK_BATCH_MQ, queues).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    let held: LockBatchResponse = from_slice(&answer.body).unwrap();
    let mut queues: Vec<i32> = held.lock_ok_mq_set.iter().map(|queue| queue.queue_id).collect();
    queues.sort_unstable();
    queues
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_has_one_owner() {
    let mut node = Node::start().await;
    let (a, b) = (node.client("a"), node.client("b"));
    a.send("T", 0, b"x", &[]).await;
    assert_eq!(lock(&a, &[0, 1, 77]).await, [0, 1]);
    assert_eq!(lock(&b, &[0, 1, 2]).await, [2]);
    assert_eq!(lock(&a, &[0, 2]).await, [0]);
    // Another's lock is not given up by asking.
    assert_eq!(ask(&b, request::UNLOCK_BATCH_MQ, &[0]).await.code, 0);
    assert!(lock(&b, &[0]).await.is_empty());
    assert_eq!(ask(&a, request::UNLOCK_BATCH_MQ, &[0]).await.code, 0);
    assert_eq!(lock(&b, &[0]).await, [0]);
    a.close().await;
    b.close().await;
    // Locks outlive a restart.
    node.restart().await;
    let a = node.client("a");
    assert_eq!(lock(&a, &[0, 1]).await, [1]);
    assert_eq!(a.call(Frame::request(request::LOCK_BATCH_MQ).with_body("{bad")).await.code, 1);
    node.stop().await;
}

/// Its time may be a minute ahead of what the one before has stamped.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_lives_one_life_more_when_another_member_leads() {
    let node = Node::start().await;
    let (a, b) = (node.client("a"), node.client("b"));
    a.send("T", 0, b"x", &[]).await;
    let broker = node.running().broker();
    let queue = broker.shard.topics().get("T").and_then(|topic| Some(topic.queue(0)?.id)).unwrap();
    let brief = |client: &'static str| {
        let lock = Command::Lock(Lock { group: "G", client, life: 1, queues: vec![queue] });
        broker.shard.propose(&lock, Admission::Reserved)
    };
    brief("a").await.unwrap();
    let last = broker.shard.counters().stamp();
    until("the lock ends", async || !broker.shard.holds_lock("G", broker.now()).unwrap()).await;
    broker.time.lead(last);
    assert!(lock(&b, &[0]).await.is_empty());
    assert_eq!(lock(&b, &[1]).await, [1]);
    assert_eq!(lock(&a, &[0, 1]).await, [0]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_not_renewed_ends() {
    let node = Node::with(|config| config.lock_life = Duration::from_millis(300)).await;
    let (a, b) = (node.client("a"), node.client("b"));
    a.send("T", 0, b"x", &[]).await;
    assert_eq!(lock(&a, &[0]).await, [0]);
    until("the lock ends", async || lock(&b, &[0]).await == [0]).await;
    assert!(lock(&a, &[0]).await.is_empty());
    node.stop().await;
}
