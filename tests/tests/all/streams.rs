//! Consumers whose messages are a stream, at a real broker.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use escrowmq_client::{Client, ConnectionEvent, ConsumeFrom, Deliveries, Delivery, Message, SeekTo, ServerKind};
use escrowmq_common::task::Tasks;
use escrowmq_tests::processes::binary;
use escrowmq_tests::{Cluster, Settings, until};

const TOPIC: &str = "Streamed";

async fn sent(client: &Client, bodies: impl IntoIterator<Item = u32>) {
    let producer = client.producer("streams-producer").start().await.expect("a producer starts");
    for body in bodies {
        producer.send(Message::new(TOPIC, body.to_string())).await.expect("sent");
    }
    producer.shutdown().await;
}

async fn opened(client: &Client, group: &str, credits: usize) -> Deliveries {
    let stream = client.stream(group).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    stream.credits(credits).open().await.expect("a stream")
}

async fn next(stream: &mut Deliveries) -> Delivery {
    let next = tokio::time::timeout(escrowmq_tests::DEADLINE, stream.next()).await;
    next.expect("a message in time").expect("the stream goes on")
}

fn body(delivery: &Delivery) -> u32 {
    String::from_utf8_lossy(delivery.body()).parse().expect("a number")
}

async fn offset(client: &Client, group: &str) -> Option<i64> {
    let queue = client.admin().queues(TOPIC).await.expect("queues").remove(0);
    client.admin().consumer_offset(group, &queue).await.expect("an offset")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_answered_by_itself() {
    let cluster = Cluster::start(Settings::default().with("messageDelayLevel", "1s 1s 1s 1s 1s")).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    sent(&client, 0..6).await;
    let mut stream = opened(&client, "each", 4).await;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(next(&mut stream).await);
    }
    first.sort_by_key(body);
    assert_eq!(first.iter().map(body).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let more = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(more.is_err(), "no more than the credits are out: {more:?}");
    let mut first = first.into_iter();
    let held = first.next().expect("the first one");
    first.next().expect("there").retry_after(Duration::from_secs(1)).expect("in time");
    first.next().expect("there").reject("not wanted").expect("in time");
    drop(first.next());
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let delivery = next(&mut stream).await;
        seen.insert((body(&delivery), delivery.reconsume_times()));
        delivery.ack().expect("in time");
    }
    assert_eq!(seen, BTreeSet::from([(1, 1), (3, 1), (4, 0), (5, 0)]), "what was not acknowledged came again");
    let dead = until("the dead letter", async || {
        let pulled = cluster.broker.wire().pull("reader", "%DLQ%each", 0, 0, 32).await;
        (!pulled.messages.is_empty()).then_some(pulled.messages)
    });
    let dead = dead.await.remove(0);
    assert_eq!((&dead.body[..], dead.property("DLQ_REASON")), (&b"2"[..], Some("not wanted")));
    let stats = client.stats().consumers.remove(0);
    assert_eq!((stats.running, stats.done, stats.again, stats.never), (1, 4, 2, 1));
    held.ack().expect("it was held, not lost");
    stream.shutdown().await;
    assert_eq!(offset(&client, "each").await, Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_at_the_end_may_be_answered_and_the_rest_comes_again() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    sent(&client, 0..5).await;
    let mut stream = opened(&client, "end", 256).await;
    let out = next(&mut stream).await;
    assert_eq!(body(&out), 0);
    let ending = Tasks::new().spawn("end of the stream", stream.shutdown());
    until("the end of the intake", async || {
        client.stats().consumers.iter().all(|stats| stats.waiting == 0).then_some(())
    })
    .await;
    out.ack().expect("the end waits for it");
    ending.await.expect("it ends");
    assert_eq!(offset(&client, "end").await, Some(1));

    let mut stream = opened(&client, "end", 256).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.reconsume_times(), 0, "it was not sent back");
        seen.push(body(&delivery));
        delivery.ack().expect("in time");
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4]);
    client.shutdown().await;
    assert!(stream.next().await.is_none(), "its client is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_steered() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, 2).await;
    let producer = client.producer("streams-producer").start().await.expect("a producer starts");
    let queues = client.admin().queues(TOPIC).await.expect("two queues");
    for (index, queue) in queues.iter().enumerate() {
        for number in 0..5 {
            let body = (index * 10 + number).to_string();
            producer.send_to(Message::new(TOPIC, body), queue).await.expect("sent");
        }
    }
    let stream = client.stream("steered").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let mut stream = stream.ordered().assign([queues[0].clone()]).open().await.expect("a stream");
    let take = async |stream: &mut Deliveries, count| {
        let mut taken = Vec::new();
        for _ in 0..count {
            let delivery = next(stream).await;
            taken.push(body(&delivery));
            delivery.ack().expect("in time");
        }
        taken
    };
    assert_eq!(take(&mut stream, 5).await, [0, 1, 2, 3, 4]);
    assert_eq!(stream.assignment(), [queues[0].clone()]);
    let lag = until("the end of the queue", async || {
        let lag = stream.lag().await.expect("numbers").remove(0);
        (lag.messages() == 0).then_some(lag)
    });
    assert_eq!(lag.await.end, 5);

    stream.seek(&queues[0], SeekTo::Offset(3)).await.expect("sought");
    assert_eq!(take(&mut stream, 2).await, [3, 4]);
    stream.seek(&queues[0], SeekTo::Beginning).await.expect("sought");
    let expired = next(&mut stream).await;
    assert_eq!(body(&expired), 0);
    expired.retry_after(Duration::from_millis(1)).expect("in time");
    assert_eq!(take(&mut stream, 5).await, [0, 1, 2, 3, 4], "an assigned queue tries again in place");

    assert!(stream.pause(&queues[0]) && !stream.pause(&queues[1]), "only what is read can be paused");
    producer.send_to(Message::new(TOPIC, "5"), &queues[0]).await.expect("sent");
    stream.assign(queues.clone());
    assert_eq!(take(&mut stream, 5).await, [10, 11, 12, 13, 14], "nothing of the paused queue");
    assert!(stream.resume(&queues[0]));
    assert_eq!(take(&mut stream, 1).await, [5]);

    let out = {
        producer.send_to(Message::new(TOPIC, "6"), &queues[0]).await.expect("sent");
        next(&mut stream).await
    };
    // The queue leaves once the answer is there or the lock is over, and not before.
    stream.assign([queues[1].clone()]);
    until("the queue to leave", async || (stream.assignment() == [queues[1].clone()]).then_some(())).await;
    out.ack().expect("it is waited for");
    stream.shutdown().await;
    assert_eq!(client.admin().consumer_offset("steered", &queues[0]).await.expect("an offset"), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_queue_expires_what_is_out() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    sent(&client, 0..2).await;
    let mut stream = opened(&client, "expires", 1).await;
    let out = next(&mut stream).await;
    let queue = out.queue().clone();
    stream.seek(&queue, SeekTo::Offset(1)).await.expect("sought");
    assert!(out.is_expired());
    out.ack().expect_err("the queue is read from another place");
    let other = next(&mut stream).await;
    assert_eq!(body(&other), 1);
    other.ack().expect("in time");
    stream.shutdown().await;
    assert_eq!(offset(&client, "expires").await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_an_operator_resets_expires_what_is_out() {
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic(TOPIC, 1).await;
    sent(&client, 0..5).await;
    let stream = client.stream("reset").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let stream = stream.credits(2).commit_interval(Duration::from_millis(100));
    let mut stream = stream.open().await.expect("a stream");
    for _ in 0..3 {
        next(&mut stream).await.ack().expect("in time");
    }
    until("a stored offset", async || (offset(&client, "reset").await == Some(3)).then_some(())).await;
    let out = [next(&mut stream).await, next(&mut stream).await];
    let mut reset = Command::new(binary("escrowmq"));
    reset.args(["admin", "--namesrv", &cluster.nameserver.address()]);
    let reset = reset.args(["offset", "reset", "reset", TOPIC, "--to", "earliest"]).output().expect("the tool runs");
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    until("the client to hear of it", async || out.iter().all(Delivery::is_expired).then_some(())).await;
    for old in out {
        old.ack().expect_err("the queue is read from another place");
    }
    let mut again = Vec::new();
    for _ in 0..5 {
        let delivery = next(&mut stream).await;
        assert_eq!(delivery.reconsume_times(), 0, "it was not sent back");
        // Nothing is acknowledged yet, so this is what was reset, and not what the old answers would have earned.
        if again.is_empty() {
            assert_eq!(offset(&client, "reset").await, Some(0));
        }
        again.push(body(&delivery));
        delivery.ack().expect("in time");
    }
    again.sort_unstable();
    assert_eq!(again, [0, 1, 2, 3, 4]);
    stream.shutdown().await;
    assert_eq!(offset(&client, "reset").await, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_tells_of_its_connections_and_numbers() {
    let mut cluster = Cluster::start(Settings::default()).await;
    cluster.broker.wire().create_topic(TOPIC, 1).await;
    let soon = Duration::from_millis(200);
    let client = cluster.client_builder().heartbeat_interval(soon).connect().await.expect("a client");
    let mut events = client.events();
    let mut next = async || tokio::time::timeout(escrowmq_tests::DEADLINE, events.next()).await.expect("in time");
    let producer = client.producer("numbers").topics([TOPIC]).start().await.expect("a producer");
    assert!(matches!(next().await, Some(ConnectionEvent::Connected { .. })));
    producer.send(Message::new(TOPIC, "1")).await.expect("sent");
    cluster.broker.process().kill();
    let error = producer.send(Message::new(TOPIC, "2")).await.expect_err("nobody is there");
    let stats = client.stats().producers.remove(0);
    let unknown = u64::from(error.outcome_unknown());
    assert_eq!((stats.sent, stats.failed, stats.unknown, stats.in_flight), (1, 1 - unknown, unknown, 0));
    assert!(stats.retries >= 1 && stats.latency.count == 2, "{stats:?}");
    assert!(matches!(next().await, Some(ConnectionEvent::Away { kind: ServerKind::Broker, .. })));
    assert!(client.stats().away.iter().any(|away| away.kind == ServerKind::Broker));
    cluster.broker.start_again().await;
    let mut back = false;
    while !back {
        back = matches!(next().await, Some(ConnectionEvent::Back { kind: ServerKind::Broker, .. }));
    }
    client.shutdown().await;
}
