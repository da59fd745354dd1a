//! What a handler may answer, and what then becomes of the message at a real broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Json, Message, MessageExt, Text, Verdict, typed};
use escrowmq_common::body::{Form, LockBatchBody, LockBatchResponse, MessageQueue, json};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_tests::{Cluster, Settings, until};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const TOPIC: &str = "Answers";
/// The first delay is the shortest: what is asked for with a time comes before what is not.
const LEVELS: &str =
    "1s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s 3600s";

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
}

async fn sent(client: &Client, messages: impl IntoIterator<Item = Message>) {
    let producer = client.producer("answers-producer").start().await.expect("a producer starts");
    for message in messages {
        producer.send(message).await.expect("sent");
    }
    producer.shutdown().await;
}

/// Whether somebody else could lock the only queue for a group.
async fn can_lock(cluster: &Cluster, group: &str, queue: &escrowmq_client::MessageQueue) -> bool {
    let queue = MessageQueue::new(queue.topic(), queue.broker(), queue.id());
    let body = LockBatchBody {
        consumer_group: group.to_owned(),
        client_id: "probe".to_owned(),
        mq_set: [queue].into(),
        ..LockBatchBody::default()
    };
    let ask = Frame::request(request::LOCK_BATCH_MQ).with_body(json::to_bytes(&body, Form::Strict));
    let answer = cluster.broker.wire().ask(ask).await;
    let locked: LockBatchResponse = json::from_slice(&answer.body).expect("a set of queues");
    !locked.lock_ok_mq_set.is_empty()
}

/// The dead letters of a group, once there are as many.
async fn dead_letters(client: &Client, group: &str, count: usize) -> Vec<MessageExt> {
    let reader = client.pull_consumer(format!("{group}-reader")).start().await.expect("a reader");
    let topic = format!("%DLQ%{group}");
    let queues = until("the dead letter topic", async || client.admin().queues(&topic).await.ok()).await;
    reader.assign(queues).await.expect("assigned");
    let mut dead = Vec::new();
    until("the dead letters", async || {
        dead.extend(reader.poll(Duration::from_millis(100)).await.unwrap_or_default());
        (dead.len() >= count).then_some(())
    })
    .await;
    reader.shutdown().await;
    dead
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_says_when_a_message_comes_again_and_that_it_never_does() {
    let cluster = Cluster::start(Settings::default().with("messageDelayLevel", LEVELS)).await;
    let client = cluster.client_with_topic(TOPIC, 2).await;
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let taking = Arc::clone(&seen);
    let consumer = client.push_consumer("answers").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let handler = typed(move |Text(body), message: MessageExt| {
        *taking.lock().entry(body.clone()).or_default() += 1;
        async move {
            match body.as_str() {
                "soon" if message.reconsume_times() == 0 => Verdict::again_after(Duration::from_millis(10), "busy"),
                "never" => Verdict::never("no such\u{1}customer"),
                _ => Verdict::Done,
            }
        }
    });
    let consumer = consumer.start(handler).await.expect("a consumer");
    let mut messages: Vec<_> = ["never", "soon", "good"].map(|body| Message::new(TOPIC, body).key(body)).into();
    messages.push(Message::new(TOPIC, vec![0xff]).key("torn"));
    sent(&client, messages).await;

    let dead = dead_letters(&client, "answers", 2).await;
    let reason = |key: &str| {
        let letter = dead.iter().find(|letter| letter.keys().any(|other| other == key)).expect("it is there");
        assert_eq!(letter.property("RETRY_TOPIC"), Some(TOPIC), "it names where it comes from");
        letter.dead_letter_reason().map(str::to_owned)
    };
    assert_eq!(reason("never").as_deref(), Some("no such customer"));
    assert!(reason("torn").is_some_and(|reason| reason.contains("utf-8")));
    until("the end of the second attempt", async || (client.stats().consumers[0].done == 2).then_some(())).await;
    assert_eq!(*seen.lock(), BTreeMap::from([("good".into(), 1), ("never".into(), 1), ("soon".into(), 2)]));
    let stats = client.stats().consumers.remove(0);
    assert_eq!((stats.group.as_str(), stats.done, stats.again, stats.never), ("answers", 2, 1, 2));
    assert!(stats.latency.count == 5 && stats.queues >= 2, "{stats:?}");
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_cannot_be_read_may_be_tried_again() {
    let cluster = Cluster::start(Settings::default().with("messageDelayLevel", "1s 1s 1s 1s 1s")).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    let orders: Arc<Mutex<Vec<u32>>> = Arc::default();
    let taking = Arc::clone(&orders);
    let consumer = client.push_consumer("patient").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.retry_unreadable(true).attempts_max(1).start(typed(move |Json(order): Json<Order>, _| {
        taking.lock().push(order.number);
        async { Ok::<(), String>(()) }
    }));
    let consumer = consumer.await.expect("a consumer");
    let order = Message::of(TOPIC, &Json(Order { number: 17 })).expect("an order");
    sent(&client, [Message::new(TOPIC, "{"), order]).await;
    let dead = dead_letters(&client, "patient", 1).await;
    assert_eq!((dead[0].body().as_ref(), dead[0].dead_letter_reason()), (&b"{"[..], None), "its attempts were used up");
    assert_eq!(*orders.lock(), [17]);
    assert_eq!(client.stats().consumers[0].again, 2);
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_their_order_and_do_not_wait_for_each_other() {
    let cluster = Cluster::start(Settings::default()).await;
    // One queue: by queue, everything would wait behind the first message.
    let client = cluster.client_with_topic(TOPIC, 1).await;
    let seen: Arc<Mutex<HashMap<String, Vec<String>>>> = Arc::default();
    let (taking, others_done) = (Arc::clone(&seen), Arc::new(Notify::new()));
    let (opens, at_work, failed) = (Arc::clone(&others_done), Arc::new(Mutex::new(Vec::new())), AtomicUsize::new(0));
    let consumer = client.push_consumer("by-key").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.ordered_by_key().start(typed(move |Text(body), message: MessageExt| {
        let key = message.sharding_key().unwrap_or_default().to_owned();
        let (seen, at_work, others_done) = (Arc::clone(&taking), Arc::clone(&at_work), Arc::clone(&others_done));
        let fails = key == "b" && body == "5" && failed.fetch_add(1, Ordering::Relaxed) < 2;
        async move {
            if !key.is_empty() {
                assert!(!at_work.lock().contains(&key), "two handlers of {key}");
                at_work.lock().push(key.clone());
            }
            if key == "slow" && body == "0" {
                others_done.notified().await;
            }
            tokio::task::yield_now().await;
            at_work.lock().retain(|other| *other != key);
            if fails {
                return Verdict::again_after(Duration::from_millis(10), "once more");
            }
            seen.lock().entry(key).or_default().push(body);
            Verdict::Done
        }
    }));
    let consumer = consumer.await.expect("a consumer");
    let numbers = 0..20;
    let messages = numbers.clone().flat_map(|number| {
        let keyed = ["slow", "a", "b"].map(|key| Message::new(TOPIC, number.to_string()).sharding_key(key));
        keyed.into_iter().chain([Message::new(TOPIC, number.to_string())])
    });
    sent(&client, messages).await;
    until("the other keys", async || {
        let seen = seen.lock();
        ["a", "b", ""].iter().all(|key| seen.get(*key).is_some_and(|numbers| numbers.len() == 20)).then_some(())
    })
    .await;
    assert_eq!(seen.lock().get("slow"), None, "it waits for its first message");
    opens.notify_one();
    until("the slow key", async || (seen.lock().get("slow")?.len() == 20).then_some(())).await;
    let all: Vec<String> = numbers.map(|number| number.to_string()).collect();
    for key in ["slow", "a", "b"] {
        assert_eq!(seen.lock()[key], all, "{key}");
    }
    consumer.shutdown().await;
    let queue = client.admin().queues(TOPIC).await.expect("a queue").remove(0);
    assert_eq!(client.admin().consumer_offset("by-key", &queue).await.expect("an offset"), Some(80));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_queue_is_given_away_after_its_handler_has_ended() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    sent(&client, (0..2).map(|number| Message::new(TOPIC, number.to_string()))).await;
    let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let start = async |client: &Client, name: &'static str, holds: bool| {
        let (began, go_on, order) = (Arc::clone(&began), Arc::clone(&go_on), Arc::clone(&order));
        let consumer = client.push_consumer("handed-over").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
        let consumer = consumer.rebalance_interval(Duration::from_millis(100)).ordered();
        let consumer = consumer.start(typed(move |Text(body), _| {
            let (began, go_on, order) = (Arc::clone(&began), Arc::clone(&go_on), Arc::clone(&order));
            async move {
                order.lock().push(format!("{name} begins {body}"));
                if holds {
                    began.notify_one();
                    go_on.notified().await;
                }
                order.lock().push(format!("{name} ends {body}"));
                Verdict::Done
            }
        }));
        consumer.await.expect("a consumer")
    };
    // Members are sorted by their ids, and the first one gets the only queue.
    let second = cluster.client_builder().instance_name("b").connect().await.expect("a client");
    let holder = start(&second, "b", true).await;
    began.notified().await;
    let first = cluster.client_builder().instance_name("a").connect().await.expect("a client");
    let taker = start(&first, "a", false).await;
    let queue = client.admin().queues(TOPIC).await.expect("a queue").remove(0);
    until("the queue to leave", async || holder.assignment().is_empty().then_some(())).await;
    assert!(!can_lock(&cluster, "handed-over", &queue).await, "its handler is at work");
    assert_eq!(*order.lock(), ["b begins 0"]);
    go_on.notify_one();
    until("the other member's message", async || (order.lock().len() == 4).then_some(())).await;
    assert_eq!(*order.lock(), ["b begins 0", "b ends 0", "a begins 1", "a ends 1"]);
    holder.shutdown().await;
    taker.shutdown().await;
}
