//! Tags, order, delays, retries, dead letters, offsets: what consumers rely on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Message, MessageExt, PushConsumer};
use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_tests::{Cluster, Settings, until};
use parking_lot::Mutex;

/// Every delay is a second, so that retries come at once.
const LEVELS: &str = "1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s";

type Seen = Arc<Mutex<Vec<MessageExt>>>;

fn body(message: &MessageExt) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

fn bodies(seen: &Seen) -> Vec<String> {
    seen.lock().iter().map(body).collect()
}

async fn until_seen(seen: &Seen, wanted: &str) {
    until(&format!("delivery of {wanted}"), async || bodies(seen).iter().any(|body| body == wanted).then_some(()))
        .await;
}

/// A consumer from the first message on, and what it sees.
async fn consuming(client: &Client, group: &str, topic: &str, tags: &str) -> (PushConsumer, Seen) {
    let seen = Seen::default();
    let taking = Arc::clone(&seen);
    let consumer = client.push_consumer(group).subscribe(topic, tags).consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message| {
        taking.lock().push(message);
        async { Ok::<(), Infallible>(()) }
    });
    (consumer.await.expect("a consumer starts"), seen)
}

async fn sent(client: &Client, group: &str, messages: impl IntoIterator<Item = Message>) {
    let producer = client.producer(group).start().await.expect("a producer starts");
    for message in messages {
        producer.send(message).await.expect("sent");
    }
    producer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_get_the_tags_they_asked_for() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Tags", 1).await;
    let (_consumer, seen) = consuming(&client, "tags", "Tags", "a || b").await;
    // "Aa" and "BB" have the same hash in Java: the broker cannot tell them apart, the client can.
    let tags = ["a", "c", "b", "Aa", "BB", "a"];
    let messages = tags.iter().enumerate().map(|(n, tag)| Message::new("Tags", format!("{n}{tag}")).tag(*tag));
    sent(&client, "tags-producer", messages).await;
    sent(&client, "tags-producer", [Message::new("Tags", "untagged"), Message::new("Tags", "end").tag("b")]).await;
    // One queue: whatever comes before the last one has come.
    until_seen(&seen, "end").await;
    let mut found = bodies(&seen);
    found.sort();
    assert_eq!(found, ["0a", "2b", "5a", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_key_arrive_in_order_even_if_one_fails() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Ordered", 4).await;
    let seen: Arc<Mutex<BTreeMap<String, Vec<u32>>>> = Arc::default();
    let (taking, failed) = (Arc::clone(&seen), Arc::new(Mutex::new(false)));
    let consumer = client.push_consumer("ordered").subscribe("Ordered", "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer
        .start_ordered(move |messages| {
            let mut result = Ok(());
            for message in messages {
                let (key, number) = (message.sharding_key().unwrap_or_default().to_owned(), body(&message));
                if key == "k1" && number == "10" && !std::mem::replace(&mut failed.lock(), true) {
                    result = Err("once");
                    break;
                }
                taking.lock().entry(key).or_default().push(number.parse().expect("a number"));
            }
            async move { result }
        })
        .await
        .unwrap();
    let producer = client.producer("ordered-producer").start().await.unwrap();
    for number in 0..25 {
        for key in ["k1", "k2", "k3"] {
            producer.send(Message::new("Ordered", number.to_string()).sharding_key(key)).await.unwrap();
        }
    }
    let all: Vec<u32> = (0..25).collect();
    until("everything", async || (seen.lock().values().map(Vec::len).sum::<usize>() >= 75).then_some(())).await;
    for (key, numbers) in seen.lock().iter() {
        assert_eq!(*numbers, all, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_are_kept_and_not_exceeded() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Delayed", 1).await;
    let arrivals: Arc<Mutex<BTreeMap<String, Duration>>> = Arc::default();
    let taking = Arc::clone(&arrivals);
    let consumer = client.push_consumer("delayed").subscribe("Delayed", "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer
        .start(move |message| {
            taking.lock().entry(body(&message)).or_insert_with(clock::monotonic);
            async { Ok::<(), Infallible>(()) }
        })
        .await
        .unwrap();
    let started = clock::monotonic();
    let messages = [
        Message::new("Delayed", "level 1").delay_level(1),
        Message::new("Delayed", "timer 2s").deliver_after(Duration::from_secs(2)),
        Message::new("Delayed", "level 2").delay_level(2),
        Message::new("Delayed", "now"),
    ];
    sent(&client, "delayed-producer", messages).await;
    // A restart in the middle: the waiting messages are kept, and due times do not start again.
    cluster.broker.crash().await;
    until("all four", async || (arrivals.lock().len() == 4).then_some(())).await;
    let after = |name: &str| arrivals.lock()[name].saturating_sub(started);
    for (name, delay) in [("level 1", 1.0), ("timer 2s", 2.0), ("level 2", 5.0)] {
        let took = after(name).as_secs_f64();
        // Timers have a precision of a second, downwards too.
        let earliest = if name.starts_with("timer") { delay - 1.0 } else { delay };
        assert!((earliest..delay + 8.0).contains(&took), "{name} took {took} s");
    }
    assert!(after("now") < after("level 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_retried_and_ends_as_one_dead_letter() {
    let cluster = Cluster::start(Settings::default().with("messageDelayLevel", LEVELS)).await;
    let client = cluster.client_with_topic("Retried", 2).await;
    let attempts: Arc<Mutex<BTreeMap<String, Vec<u32>>>> = Arc::default();
    let taking = Arc::clone(&attempts);
    let consumer = client.push_consumer("retried").subscribe("Retried", "*").consume_from(ConsumeFrom::First);
    let consumer = consumer
        .attempts_max(2)
        .start(move |message| {
            let (name, times) = (body(&message), message.reconsume_times());
            assert_eq!(message.topic(), "Retried", "a retried message names its own topic");
            taking.lock().entry(name.clone()).or_default().push(times);
            async move {
                match name.as_str() {
                    "poison" => Err("never"),
                    "shy" if times == 0 => Err("not yet"),
                    _ => Ok(()),
                }
            }
        })
        .await
        .unwrap();
    let messages = ["poison", "shy", "good"].map(|name| Message::new("Retried", name).key(name));
    sent(&client, "retried-producer", messages).await;
    let wire = cluster.broker.wire();
    let dead = until("the dead letter", async || {
        let pulled = wire.pull("dead-letter-reader", "%DLQ%retried", 0, 0, 32).await;
        (!pulled.messages.is_empty()).then_some(pulled.messages)
    })
    .await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].body, "poison");
    assert_eq!(dead[0].keys().collect::<Vec<_>>(), ["poison"], "it can be found by its key");
    until("the second attempt", async || (attempts.lock()["shy"].len() == 2).then_some(())).await;
    let attempts = attempts.lock().clone();
    assert_eq!(attempts["poison"], [0, 1, 2]);
    assert_eq!(attempts["shy"], [0, 1]);
    assert_eq!(attempts["good"], [0]);
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_retry_survives_a_crash() {
    let mut cluster = Cluster::start(Settings::default().with("messageDelayLevel", LEVELS)).await;
    let client = cluster.client_with_topic("Again", 1).await;
    let attempts: Arc<Mutex<Vec<u32>>> = Arc::default();
    let taking = Arc::clone(&attempts);
    let consumer = client.push_consumer("again").subscribe("Again", "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer
        .start(move |message| {
            let times = message.reconsume_times();
            taking.lock().push(times);
            async move { if times == 0 { Err("not yet") } else { Ok(()) } }
        })
        .await
        .unwrap();
    sent(&client, "again-producer", [Message::new("Again", "body")]).await;
    until("the first attempt", async || (!attempts.lock().is_empty()).then_some(())).await;
    // Sent back or about to be: either way it must come again.
    cluster.broker.crash().await;
    until("the second attempt", async || attempts.lock().iter().any(|times| *times > 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_survive_a_crash() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Offsets", 2).await;
    sent(&client, "offsets-producer", (0..20).map(|n| Message::new("Offsets", format!("old {n}")))).await;
    let (consumer, seen) = consuming(&client, "offsets", "Offsets", "*").await;
    until("the old ones", async || (seen.lock().len() == 20).then_some(())).await;
    consumer.shutdown().await;
    client.shutdown().await;
    let stored = async |client: &Client| {
        let mut offsets = Vec::new();
        for queue in client.admin().queues("Offsets").await.unwrap() {
            offsets.push(client.admin().consumer_offset("offsets", &queue).await.unwrap());
        }
        offsets
    };
    let client = cluster.client().await;
    let before = stored(&client).await;
    assert_eq!(before.iter().flatten().sum::<i64>(), 20, "{before:?}");
    client.shutdown().await;

    cluster.broker.crash().await;
    cluster.until_registered().await;
    let client = cluster.client().await;
    assert_eq!(stored(&client).await, before);
    let (_consumer, seen) = consuming(&client, "offsets", "Offsets", "*").await;
    sent(&client, "offsets-producer", (0..10).map(|n| Message::new("Offsets", format!("new {n}")))).await;
    until("the new ones", async || (seen.lock().len() == 10).then_some(())).await;
    assert!(bodies(&seen).iter().all(|body| body.starts_with("new")), "{:?}", bodies(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_arrive_unchanged() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Sizes", 1).await;
    let mut state = 0x5eed_u64;
    let mut noise = |size: usize| -> Vec<u8> {
        let mut roll = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..size).map(|_| roll()).collect()
    };
    let mut bodies = vec![vec![0], vec![7; 1 << 20]];
    bodies.extend([1, 4_095, 4_096, 65_536, 300_000, 4 << 20].map(&mut noise));
    let (_consumer, seen) = consuming(&client, "sizes", "Sizes", "*").await;
    sent(&client, "sizes-producer", bodies.iter().map(|body| Message::new("Sizes", body.clone()))).await;
    until("all of them", async || (seen.lock().len() == bodies.len()).then_some(())).await;
    let mut arrived = seen.lock().clone();
    arrived.sort_by_key(MessageExt::queue_offset);
    for (message, body) in arrived.iter().zip(&bodies) {
        assert!(message.body() == body, "a body of {} bytes came with {}", body.len(), message.body().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start(Settings::default().with("maxMessageSize", 1000)).await;
    let wire = cluster.broker.wire();
    wire.create_topic("Limits", 1).await;
    let refused = wire.send("Limits", 0, vec![1; 1001], &[]).await.expect("an answer");
    assert_eq!(refused.code, response::MESSAGE_ILLEGAL);
    assert!(refused.remark.is_some_and(|remark| remark.contains("1000")), "it names the limit");
    assert_eq!(wire.send("Limits", 0, vec![1; 1000], &[]).await.expect("an answer").code, response::SUCCESS);
    assert_eq!(wire.read_queue("Limits", 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_lies_in_one_queue_in_a_row() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Batches", 4).await;
    let producer = client.producer("batches-producer").start().await.unwrap();
    let batch = (0..50).map(|number| Message::new("Batches", format!("{number}")).tag("t").key(format!("k{number}")));
    let result = producer.send_batch(batch.collect()).await.expect("sent");
    let found = cluster.broker.wire().read_queue("Batches", result.queue.id()).await;
    let bodies: Vec<_> = found.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect();
    assert_eq!(bodies, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(
        found.iter().enumerate().all(|(n, message)| message.queue_offset == n as i64 && message.tag() == Some("t"))
    );
}
