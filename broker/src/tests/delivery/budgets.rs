//! The bounds on what one client takes from the others: held pulls, searches, topics, queues and groups.

use std::time::Duration;

use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::body::{ConsumerData, HeartbeatData, ProducerData};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;
use futures_util::future::join_all;

use super::support::{Client, Node, PATIENCE, heartbeat, messages, number, pull, pull_request, until};
use crate::schedule::UnusedSince;
use crate::start::background::unused_groups;
use crate::tests::support::create_topic;

/// A pull that may wait for longer than any test.
fn held(queue: i32) -> PullMessageHeader<'static> {
    PullMessageHeader { sys_flag: 6, suspend_timeout_millis: 15_000, ..pull("G", "T", queue, 0) }
}

fn hold(client: &Client, queue: i32) -> tokio::task::JoinHandle<Frame> {
    let (remote, address) = client.remote();
    let request = pull_request(&held(queue));
    #[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
    tokio::spawn(async move { remote.call(&address, request, PATIENCE).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_beyond_a_connections_share_are_answered_at_once() {
    let node = Node::with(|config| config.max_held_pulls_per_connection = 2).await;
    let (greedy, other) = (node.client("greedy"), node.client("other"));
    greedy.send("T", 0, b"makes the topic", &[]).await;
    let holds = || node.running().broker().delivery.holds.len();
    let _waiting = (hold(&greedy, 1), hold(&greedy, 2));
    until("two are held", async || holds() == 2).await;
    let answer = greedy.call(pull_request(&held(3))).await;
    assert_eq!(answer.code, response::PULL_NOT_FOUND);
    let _others = hold(&other, 3);
    until("another connection has its own share", async || holds() == 3).await;
    assert_eq!(node.running().broker().metrics.holds_refused.get(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_beyond_all_shares_are_answered_at_once() {
    let node = Node::with(|config| config.max_held_pulls = 1).await;
    let (one, two) = (node.client("one"), node.client("two"));
    one.send("T", 0, b"makes the topic", &[]).await;
    let _waiting = hold(&one, 1);
    until("one is held", async || node.running().broker().delivery.holds.len() == 1).await;
    assert_eq!(two.call(pull_request(&held(2))).await.code, response::PULL_NOT_FOUND);
    node.stop().await;
}

fn search() -> Frame {
    Frame::request(request::SEARCH_OFFSET_BY_TIMESTAMP)
        .with_field("topic", "T")
        .with_field("queueId", 0)
        .with_field("timestamp", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_searches_starves_nobody() {
    const FLOOD: usize = 2_000;
    let node = Node::with(|config| {
        config.max_searches_waiting = 8 * FLOOD;
        config.transaction_time_out = Duration::from_millis(100);
    })
    .await;
    let mut producer = node.client("producer");
    let position = {
        let first = producer.try_send("T", 0, b"first", &[]).await;
        i64::from_str_radix(&first.fields.get("msgId").unwrap()[16..], 16).unwrap()
    };
    let data = HeartbeatData {
        client_id: "producer".to_owned(),
        producer_data_set: vec![ProducerData { group_name: "PG".to_owned() }],
        ..HeartbeatData::default()
    };
    assert_eq!(producer.heartbeat(&data).await.code, 0);
    // A search that waits for a place must not take anything from others.
    let occupied = node.running().broker().gate.occupy().await;
    let flooding = node.client("flood");
    let (remote, address) = flooding.remote();
    #[expect(clippy::disallowed_methods, reason = "a test waits for its own task")]
    let flood =
        tokio::spawn(async move { join_all((0..FLOOD).map(|_| remote.call(&address, search(), PATIENCE * 3))).await });
    until("the flood waits", async || node.running().broker().gate.waiting() == FLOOD).await;
    assert_eq!(flooding.call(search()).await.code, response::SYSTEM_BUSY, "it has its share");
    assert_eq!(node.running().broker().metrics.searches_refused.get(), 1);
    assert_eq!(node.running().broker().gate.waiting(), FLOOD, "and the others have room");
    // A half message is checked, a delayed one fires, one is sent back and comes again, and old messages are read.
    let half = [("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "U")];
    assert_eq!(producer.try_send("T", 0, b"half", &half).await.code, 0);
    producer.incoming(request::CHECK_TRANSACTION_STATE).await;
    producer.try_send("Later", 0, b"delayed", &[("DELAY", "1")]).await;
    until("the delayed message is there", async || {
        messages(&producer.call(pull_request(&pull("G", "Later", 0, 0))).await).len() == 1
    })
    .await;
    let back = Frame::request(request::CONSUMER_SEND_MSG_BACK)
        .with_field("offset", position)
        .with_field("group", "G")
        .with_field("delayLevel", 1)
        .with_field("maxReconsumeTimes", 16);
    let answer = producer.call(back).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    // The searches that waited are done in the end.
    drop(occupied);
    assert!(flood.await.unwrap().iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.code == 0)));
    flooding.close().await;
    producer.close().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_queues_and_groups_are_bounded_by_number() {
    let node = Node::with(|config| config.max_groups = 2).await;
    let broker = node.running().broker().clone();
    let client = node.client("c");
    let change = |change: &dyn Fn(&mut crate::config::BrokerConfig)| {
        let mut config = (**broker.config()).clone();
        change(&mut config);
        broker.config.replace(std::sync::Arc::new(config));
    };
    client.send("Known", 0, b"x", &[]).await;
    let topics = broker.shard.topics().len();
    change(&|config| config.max_topics = topics);
    let refused = client.try_send("OneMore", 0, b"x", &[]).await;
    assert_eq!(refused.code, response::SYSTEM_BUSY);
    assert!(refused.remark.as_deref().is_some_and(|remark| remark.contains("maxTopics")), "{refused:?}");
    client.send("Known", 0, b"what is there goes on", &[]).await;
    // Operators are told the same.
    let create = |queues| create_topic("Planned", queues);
    assert!(client.call(create(4)).await.remark.is_some_and(|remark| remark.contains("maxTopics")));
    change(&|config| {
        config.max_topics = topics + 100;
        config.max_queues = broker.shard.topics().queue_count() + 8;
    });
    assert!(client.call(create(9)).await.remark.is_some_and(|remark| remark.contains("maxQueues")));
    assert_eq!(client.call(create(8)).await.code, 0);
    assert!(client.call(create(9)).await.remark.is_some_and(|remark| remark.contains("maxQueues")), "growing counts");
    assert_eq!(client.call(create(4)).await.code, 0, "shrinking does not");
    change(&|config| config.max_queues = 1_000_000);
    // Groups: a heartbeat that names three gets two.
    let group = |name: &str| ConsumerData { group_name: name.to_owned(), ..ConsumerData::default() };
    let data = HeartbeatData {
        client_id: "c".to_owned(),
        consumer_data_set: ["G1", "G2", "G3"].map(group).to_vec(),
        ..HeartbeatData::default()
    };
    assert_eq!(client.heartbeat(&data).await.code, 0);
    assert_eq!(broker.shard.groups().len(), 2);
    change(&|config| config.max_groups = 100);
    client.heartbeat(&data).await;
    assert_eq!(broker.shard.groups().len(), 3, "the next heartbeat tries again");
    assert_eq!(broker.metrics.creations_refused.get(), 5);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_makes_so_many_in_a_minute_and_another_has_its_own() {
    let node = Node::with(|config| config.creations_per_minute = 3).await;
    let (greedy, other) = (node.client("greedy"), node.client("other"));
    let mut refused = 0;
    // A minute may end in between, once.
    for n in 0..8 {
        let answer = greedy.try_send(&format!("Made{n}"), 0, b"x", &[]).await;
        if answer.code != 0 {
            assert_eq!(answer.code, response::SYSTEM_BUSY);
            assert!(answer.remark.unwrap().contains("creationsPerMinutePerConnection"));
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
    other.send("Another", 0, b"x", &[]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_heartbeat_is_carried_out_in_order() {
    let node = Node::start().await;
    let client = node.client("c");
    client.send("T", 0, b"x", &[]).await;
    let mut data = heartbeat("c", "G", "T", "*");
    let long = "x".repeat(100);
    data.producer_data_set = (0..1_000).map(|n| ProducerData { group_name: format!("{long}{n}") }).collect();
    let body = to_bytes(&data, Form::Loose);
    assert!(body.len() > 64 * 1024);
    // The pull right after it finds the group's subscription.
    let (beat, pulled) = tokio::join!(
        client.call(Frame::request(request::HEART_BEAT).with_body(body)),
        client.call(pull_request(&PullMessageHeader { sys_flag: 0, subscription: None, ..pull("G", "T", 0, 0) })),
    );
    assert_eq!((beat.code, pulled.code), (0, 0), "{:?}", pulled.remark);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unused_group_that_a_client_made_goes_after_its_time_and_no_other() {
    const HOUR: u64 = 60 * 60 * 1000;
    let node = Node::with(|config| config.group_expire_hours = 1).await;
    let broker = node.running().broker().clone();
    let admin = node.client("admin");
    admin.send("T", 0, b"one", &[]).await;
    let gone = node.client("gone");
    for group in ["Unused", "HasRead", "HasRetries", "Changed"] {
        gone.join(group, "T", "*").await;
    }
    let staying = node.client("staying");
    staying.join("HasMember", "T", "*").await;
    let body = |group: &str| format!("{{\"groupName\":\"{group}\"}}");
    for group in ["Planned", "Changed"] {
        let put = Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body(group));
        assert_eq!(admin.call(put).await.code, 0);
    }
    // Tools do not see the mark, and what they write back is their own.
    let shown = admin.call(Frame::request(request::GET_SUBSCRIPTIONGROUP_CONFIG).with_field("group", "Unused")).await;
    assert!(!String::from_utf8_lossy(&shown.body).contains("made.by.use"));
    let commit = Frame::request(request::UPDATE_CONSUMER_OFFSET)
        .with_field("consumerGroup", "HasRead")
        .with_field("topic", "T")
        .with_field("queueId", 0)
        .with_field("commitOffset", 1);
    assert_eq!(gone.call(commit).await.code, 0);
    let back = Frame::request(request::CONSUMER_SEND_MSG_BACK)
        .with_field("group", "HasRetries")
        .with_field("delayLevel", 5)
        .with_field("maxReconsumeTimes", 16);
    let pulled = messages(&admin.call(pull_request(&pull("G", "T", 0, 0))).await);
    assert_eq!(admin.call(back.with_field("offset", pulled[0].position)).await.code, 0);
    gone.close().await;
    until("its members are gone", async || broker.clients.consumers("Unused").is_empty()).await;
    let groups = std::sync::Arc::new(unused_groups(&broker));
    let mut unused = UnusedSince::default();
    let now = broker.now();
    groups.look(&mut unused, now).await.unwrap();
    groups.look(&mut unused, now + (HOUR - 1)).await.unwrap();
    assert!(broker.shard.groups().get("Unused").is_some(), "not before its time");
    groups.look(&mut unused, now + HOUR).await.unwrap();
    assert!(broker.shard.groups().get("Unused").is_none());
    assert!(broker.shard.topics().get("%RETRY%Unused").is_none());
    for kept in ["HasRead", "HasRetries", "Changed", "Planned", "HasMember"] {
        assert!(broker.shard.groups().get(kept).is_some(), "{kept}");
        assert!(broker.shard.topics().get(&format!("%RETRY%{kept}")).is_some() || kept == "Planned", "{kept}");
    }
    assert!(broker.metrics.groups_expired.get() >= 1);
    // Nothing goes where that is not set.
    let mut config = (**broker.config()).clone();
    config.group_expire_hours = 0;
    broker.config.replace(std::sync::Arc::new(config));
    let gone = node.client("gone");
    gone.join("Again", "T", "*").await;
    gone.close().await;
    until("its members are gone", async || broker.clients.consumers("Again").is_empty()).await;
    groups.look(&mut unused, now).await.unwrap();
    groups.look(&mut unused, now + 1000 * HOUR).await.unwrap();
    assert!(broker.shard.groups().get("Again").is_some());
    assert_eq!(number(&admin.call(search()).await, "offset"), 0);
    node.stop().await;
}
