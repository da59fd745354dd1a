//! An application that is there before its cluster, or sends before it knows its brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_client::{ConnectionEvent, ConsumeFrom, Message, ServerKind};
use escrowmq_tests::{Cluster, DEADLINE, Settings, until};
use futures_util::future::join;

const TOPIC: &str = "Orders";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_start_before_its_nameserver() {
    let mut cluster = Cluster::start(Settings::default()).await;
    cluster.broker.wire().create_topic(TOPIC, 2).await;
    cluster.nameserver.process().kill();
    let soon = Duration::from_millis(200);
    let builder = || cluster.client_builder().route_interval(soon).heartbeat_interval(soon);
    let refused = builder().connect().await.expect_err("nobody answers");
    assert!(refused.is_retryable(), "{refused}");

    let client = builder().connect_lazy().expect("good settings");
    let producer = client.producer("shop").topics([TOPIC]).deadline(soon).start().await.expect("a producer");
    let handled = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&handled);
    let consumer = client.push_consumer("billing").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |_| {
        told.fetch_add(1, Ordering::Relaxed);
        async { Ok::<(), std::io::Error>(()) }
    });
    let consumer = consumer.await.expect("a consumer");
    let error = producer.send(Message::new(TOPIC, "early")).await.expect_err("there is no route");
    assert!(error.is_retryable() && !error.outcome_unknown(), "{error}");

    cluster.nameserver.start_again().await;
    until("a send", async || producer.send(Message::new(TOPIC, "late")).await.ok()).await;
    until("its message", async || (handled.load(Ordering::Relaxed) >= 1).then_some(())).await;
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_recognised_by_a_broker_that_has_answered_nothing_yet() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let window = "+duplicate.window.seconds=600";
    cluster.broker.wire().create_topic_with(TOPIC, 1, window).await;
    // Longer than the attempt, so that this is what fails first.
    let client = cluster.client_builder().request_timeout(DEADLINE).connect().await.expect("a client");
    let mut events = client.events();
    let producer = client.producer("first").attempt_timeout(Duration::from_secs(3)).deadline(DEADLINE);
    let producer = producer.start().await.expect("a producer");
    cluster.broker.process().pause();
    let resume = async {
        while !matches!(events.next().await, Some(ConnectionEvent::Away { kind: ServerKind::Broker, .. })) {}
        cluster.broker.process().resume();
    };
    let (sent, ()) = join(producer.send(Message::new(TOPIC, "once")), resume).await;
    let sent = sent.expect("stored");
    assert!(sent.attempts > 1 && !sent.possible_duplicate, "{sent:?}");
    assert_eq!(cluster.broker.wire().read_queue(TOPIC, 0).await.len(), 1);
    client.shutdown().await;
}
