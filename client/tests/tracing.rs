//! Spans of sends and handlers, and their contexts on the way through messages.

#[path = "all/fake/mod.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Message, MessageExt};
use escrowmq_common::code::request;
use fake::{Cluster, Kind, until};
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;
use tracing::Instrument as _;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Keeps the spans that have ended.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

impl Ended {
    /// Watches the spans of this thread, on which a test's tasks run.
    fn watch() -> (Ended, DefaultGuard) {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        (ended, guard)
    }

    fn named(&self, name: &str) -> Vec<SpanData> {
        self.0.lock().iter().filter(|span| span.name == name).cloned().collect()
    }

    async fn one(&self, name: &str) -> SpanData {
        until(&format!("a span {name}"), || !self.named(name).is_empty()).await;
        self.named(name).remove(0)
    }
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string())
}

fn assert_attributes(span: &SpanData, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(attribute(span, name).as_deref(), Some(*value), "{name} of {span:?}");
    }
}

async fn client(cluster: &Cluster) -> Client {
    Client::builder(&cluster.namesrv).connect().await.expect("a name server")
}

#[tokio::test]
async fn a_handler_goes_on_with_the_trace_of_the_sender() {
    let (ended, _watch) = Ended::watch();
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let seen: Arc<Mutex<Vec<MessageExt>>> = Arc::default();
    let taking = Arc::clone(&seen);
    let consumer = client.push_consumer("CG").subscribe("T", "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message| {
        taking.lock().push(message);
        async { Ok::<(), String>(()) }.instrument(tracing::info_span!("work"))
    });
    let consumer = consumer.await.expect("started");
    let producer = client.producer("PG").start().await.expect("started");
    let message = Message::new("T", "hello").tag("created").sharding_key("k");
    let sent = producer.send(message).instrument(tracing::info_span!("order")).await.expect("stored");

    let (process, work) = (ended.one("process T").await, ended.one("work").await);
    let (order, send) = (ended.one("order").await, ended.one("send T").await);
    assert_eq!(send.parent_span_id, order.span_context.span_id());
    assert_eq!(process.parent_span_id, send.span_context.span_id());
    assert!(process.parent_span_is_remote);
    assert_eq!(work.parent_span_id, process.span_context.span_id(), "the handler runs inside");
    for span in [&send, &process, &work] {
        assert_eq!(span.span_context.trace_id(), order.span_context.trace_id());
    }
    assert_eq!((&send.span_kind, &process.span_kind), (&SpanKind::Producer, &SpanKind::Consumer));
    let broker = cluster.brokers[0].addr;
    let common = [
        ("messaging.system", "rocketmq"),
        ("messaging.destination.name", "T"),
        ("messaging.destination.partition.id", "0"),
        ("messaging.message.id", &sent.message_id),
        ("messaging.message.body.size", "5"),
        ("messaging.client.id", client.id()),
        ("messaging.rocketmq.message.tag", "created"),
        ("server.address", "127.0.0.1"),
        ("server.port", &broker.port().to_string()),
    ];
    for (span, operation) in [(&send, "send"), (&process, "process")] {
        assert_attributes(span, &common);
        assert_attributes(span, &[("messaging.operation.name", operation), ("messaging.operation.type", operation)]);
        assert_eq!(span.status, Status::Unset);
        assert_eq!(attribute(span, "error.type"), None);
        assert_eq!(attribute(span, "messaging.batch.message_count"), None);
    }
    assert_attributes(&send, &[("messaging.rocketmq.message.type", "fifo"), ("messaging.rocketmq.message.group", "k")]);
    assert_attributes(
        &process,
        &[("messaging.consumer.group.name", "CG"), ("messaging.rocketmq.consumption_model", "clustering")],
    );
    let parent = format!("00-{}-{}-01", send.span_context.trace_id(), send.span_context.span_id());
    assert_eq!(seen.lock()[0].trace_parent(), Some(parent.as_str()));
    consumer.shutdown().await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_poll_points_to_the_traces_of_its_messages() {
    let (ended, _watch) = Ended::watch();
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    client.producer("PG").start().await.expect("started").send(Message::new("T", "hello")).await.expect("stored");
    let reader = client.pull_consumer("CG").start().await.expect("started");
    reader.assign(reader.queues("T").await.expect("a queue")).await.expect("assigned");
    assert_eq!(reader.poll(Duration::from_secs(10)).await.expect("read").len(), 1);
    assert!(reader.poll(Duration::ZERO).await.expect("read").is_empty());
    let (send, receive) = (ended.one("send T").await, ended.one("receive T").await);
    assert_eq!(receive.span_kind, SpanKind::Client);
    let links: Vec<_> = receive.links.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [send.span_context.span_id()]);
    assert_attributes(
        &receive,
        &[
            ("messaging.operation.type", "receive"),
            ("messaging.destination.name", "T"),
            ("messaging.consumer.group.name", "CG"),
            ("messaging.batch.message_count", "1"),
            ("messaging.message.body.size", "5"),
        ],
    );
    assert_eq!(ended.named("receive T").len(), 1, "a poll that brings nothing is none");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_context_that_a_message_has_stays_and_is_linked_to() {
    let (ended, _watch) = Ended::watch();
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("PG").start().await.expect("started");
    let message = Message::new("T", "made earlier").property("traceparent", PARENT).property("tracestate", "a=1");
    producer.send(message).await.expect("stored");
    let stored = cluster.seen(request::SEND_MESSAGE_V2).remove(0);
    assert_eq!(stored.property("traceparent").as_deref(), Some(PARENT));
    assert_eq!(stored.property("tracestate").as_deref(), Some("a=1"));
    let send = ended.one("send T").await;
    let [link] = &send.links.links[..] else { panic!("one link: {send:?}") };
    assert_eq!(link.span_context.span_id().to_string(), "00f067aa0ba902b7");
    assert_eq!(link.span_context.trace_state().header(), "a=1");
    assert_eq!(send.span_kind, SpanKind::Client, "another span is the producer");
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn failures_are_told() {
    let (ended, _watch) = Ended::watch();
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let consumer = client.push_consumer("CG").subscribe("T", "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(|_| async { Err::<(), _>("the disk is full") }).await.expect("started");
    let producer = client.producer("PG").deadline(Duration::from_millis(300)).start().await.expect("started");
    producer.send(Message::new("T", "x")).await.expect("stored");
    let process = ended.one("process T").await;
    assert_eq!(process.status, Status::error("the disk is full"));
    assert_attributes(&process, &[("error.type", "handler_failed")]);

    consumer.shutdown().await;
    cluster.broker("a").kill();
    let error = producer.send(Message::new("T", "y")).await.expect_err("no broker");
    let send = ended.named("send T").pop().expect("the last send");
    let Status::Error { description } = &send.status else { panic!("{send:?}") };
    assert_eq!(*description, error.to_string());
    assert_attributes(&send, &[("error.type", if error.outcome_unknown() { "outcome_unknown" } else { "not_stored" })]);
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_batch_is_one_span_and_its_handler_points_to_each_message() {
    let (ended, _watch) = Ended::watch();
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("PG").start().await.expect("started");
    // The second one has an id of its own: it may be sent again, so its bytes do not depend on the span.
    let batch = vec![Message::new("T", "a"), Message::new("T", "b").unique_id("given"), Message::new("T", "c")];
    producer.send_batch(batch).await.expect("stored");
    let send = ended.one("send T").await;
    assert_attributes(&send, &[("messaging.batch.message_count", "3"), ("messaging.message.body.size", "3")]);

    let contexts: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let taking = Arc::clone(&contexts);
    let consumer = client.push_consumer("CG").subscribe("T", "*").consume_from(ConsumeFrom::First).batch_max(10);
    let consumer = consumer.start_batch(move |messages: Vec<MessageExt>| {
        taking.lock().extend(messages.iter().map(|message| message.trace_parent().map(str::to_owned)));
        async { Ok::<(), String>(()) }
    });
    let consumer = consumer.await.expect("started");
    let process = ended.one("process T").await;
    let parent = Some(format!("00-{}-{}-01", send.span_context.trace_id(), send.span_context.span_id()));
    assert_eq!(*contexts.lock(), [parent.clone(), None, parent]);
    assert_attributes(&process, &[("messaging.batch.message_count", "3")]);
    let links: Vec<_> = process.links.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [send.span_context.span_id(); 2]);
    consumer.shutdown().await;
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn spans_of_the_client_that_are_switched_off_leave_the_users_own() {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let filter = EnvFilter::new("info,escrowmq_client::span=off");
    let _watch = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer.with_filter(filter)));
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("PG").start().await.expect("started");
    producer.send(Message::new("T", "x")).instrument(tracing::info_span!("order")).await.expect("stored");
    let order = ended.one("order").await;
    let parent = format!("00-{}-{}-01", order.span_context.trace_id(), order.span_context.span_id());
    assert_eq!(cluster.seen(request::SEND_MESSAGE_V2).remove(0).property("traceparent"), Some(parent));
    assert!(ended.named("send T").is_empty());
    client.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn without_a_subscriber_messages_are_as_they_were() {
    let cluster = Cluster::start(1, Kind::Apache, &[("T", 1)]).await;
    let client = client(&cluster).await;
    let producer = client.producer("PG").start().await.expect("started");
    producer.send(Message::new("T", "x")).await.expect("stored");
    assert_eq!(cluster.seen(request::SEND_MESSAGE_V2).remove(0).property("traceparent"), None);
    client.shutdown().await;
    cluster.stop().await;
}
