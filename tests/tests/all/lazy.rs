//! An application that is there before its cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_client::{ConsumeFrom, Message};
use escrowmq_tests::{Cluster, Settings, until};

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
