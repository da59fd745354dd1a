//! One trace over producer, broker and consumer, exported by OpenTelemetry.
//!
//! ```text
//! cargo run -p escrowmq-client --features opentelemetry --example opentelemetry -- --namesrv 127.0.0.1:9876
//! ```
//!
//! Prints the spans `order`, `send Orders`, `process Orders` and `ship`, all of one trace. For a collector put an OTLP exporter
//! in the place of the one that prints; nothing else changes.

use clap::Parser;
use escrowmq_client::{Client, ConsumeFrom, Message, MessageExt};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::mpsc;
use tracing::Instrument as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Where the message goes.
    #[arg(long, default_value = "Orders")]
    topic: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("escrowmq-example").build())
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    // `escrowmq_client::span` holds the spans of messages, and no others.
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("example"))
        .with_location(false)
        .with_threads(false)
        .with_filter(EnvFilter::new("off,opentelemetry=info,escrowmq_client::span=info"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans))?;

    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let (done, mut shipped) = mpsc::channel(16);
    let consumer = client.push_consumer("example_traced").subscribe(&arguments.topic, "traced");
    let consumer = consumer.consume_from(ConsumeFrom::First).start(move |message: MessageExt| {
        let done = done.clone();
        async move { done.send(message.message_id()).await }.instrument(tracing::info_span!("ship"))
    });
    let _consumer = consumer.await?;

    let producer = client.producer("example_traced").start().await?;
    let order = Message::new(arguments.topic.as_str(), "order 17").tag("traced").key("order-17");
    let sent = producer.send(order).instrument(tracing::info_span!("order")).await?;
    while shipped.recv().await.is_some_and(|message_id| message_id != sent.message_id) {}

    client.shutdown().await;
    provider.shutdown()?;
    Ok(())
}
