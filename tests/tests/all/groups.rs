//! Two consumers share a group; when one leaves, the other takes over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Message, Producer, PushConsumer};
use escrowmq_tests::{Cluster, Settings, until, until_within};
use parking_lot::Mutex;

const TOPIC: &str = "Shared";
const QUEUES: u32 = 8;
const GROUP: &str = "sharing";

/// How long others may take to notice who came or went.
const REBALANCE: Duration = Duration::from_secs(10);

/// How often each message arrived, and where.
type Arrivals = Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>;

async fn member(cluster: &Cluster, name: &'static str, arrivals: &Arrivals) -> (Client, PushConsumer) {
    let client = cluster.client().await;
    let arrivals = Arc::clone(arrivals);
    let consumer = client.push_consumer(GROUP).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message| {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        arrivals.lock().entry(body).or_default().push(name);
        async { Ok::<(), Infallible>(()) }
    });
    (client, consumer.await.expect("a member starts"))
}

async fn until_holding(consumer: &PushConsumer, queues: usize) {
    until_within(REBALANCE, &format!("a share of {queues} queues"), async || {
        let held = consumer.assignment();
        (held.iter().filter(|queue| queue.topic() == TOPIC).count() == queues).then_some(())
    })
    .await;
}

async fn send(producer: &Producer, numbers: std::ops::Range<u32>) {
    for number in numbers {
        producer.send(Message::new(TOPIC, number.to_string())).await.expect("sent");
    }
}

async fn until_arrived(arrivals: &Arrivals, count: usize) {
    until(&format!("{count} messages"), async || (arrivals.lock().len() >= count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_queues_and_take_over_from_one_that_leaves() {
    let cluster = Cluster::start(Settings::default()).await;
    let sender = cluster.client_with_topic(TOPIC, QUEUES).await;
    let producer = sender.producer("sharing-producer").start().await.unwrap();
    let arrivals = Arrivals::default();
    let (first_client, first) = member(&cluster, "first", &arrivals).await;
    until_holding(&first, QUEUES as usize).await;
    let (second_client, second) = member(&cluster, "second", &arrivals).await;
    until_holding(&first, QUEUES as usize / 2).await;
    until_holding(&second, QUEUES as usize / 2).await;
    send(&producer, 0..200).await;
    until_arrived(&arrivals, 200).await;
    let by_second = arrivals.lock().values().filter(|names| names.contains(&"second")).count();
    assert!((50..=150).contains(&by_second), "{by_second} of 200 went to one of two members");
    assert!(arrivals.lock().values().all(|names| names.len() == 1), "with both members up nothing arrives twice");

    // One leaves in good order, while messages come in.
    send(&producer, 200..250).await;
    second.shutdown().await;
    second_client.shutdown().await;
    send(&producer, 250..300).await;
    until_holding(&first, QUEUES as usize).await;
    until_arrived(&arrivals, 300).await;
    drop((first, first_client));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_take_over_from_one_that_vanishes() {
    let cluster = Cluster::start(Settings::default()).await;
    let sender = cluster.client_with_topic(TOPIC, QUEUES).await;
    let producer = sender.producer("sharing-producer").start().await.unwrap();
    let arrivals = Arrivals::default();
    let (_first_client, first) = member(&cluster, "first", &arrivals).await;
    let wire = cluster.broker.wire();
    {
        // Greets as a member, is given a share, and goes without a word.
        wire.greet("ghost@1", GROUP, &[(TOPIC, "*")]).await;
        until_holding(&first, QUEUES as usize / 2).await;
        send(&producer, 0..100).await;
        wire.close().await;
    }
    until_holding(&first, QUEUES as usize).await;
    until_arrived(&arrivals, 100).await;
}
