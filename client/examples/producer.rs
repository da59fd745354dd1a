//! Sends messages, several at a time, and tells where each was stored.
//!
//! ```text
//! cargo run -p escrowmq-client --example producer -- --namesrv 127.0.0.1:9876 --topic Orders --count 10
//! ```

use clap::Parser;
use escrowmq_client::{Client, Message, SendError};
use futures_util::{StreamExt, stream};

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Where to send to.
    #[arg(long, default_value = "Orders")]
    topic: String,
    /// How many messages to send.
    #[arg(long, default_value_t = 10)]
    count: usize,
    /// Sends in flight at the same time.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let producer = client.producer("example_producer").start().await?;

    let sends = stream::iter(0..arguments.count).map(|number| {
        let message = Message::new(arguments.topic.as_str(), format!("order {number}"))
            .tag("created")
            .key(format!("order-{number}"));
        producer.send(message)
    });
    let mut sends = std::pin::pin!(sends.buffer_unordered(arguments.concurrency.max(1)));
    while let Some(sent) = sends.next().await {
        match sent {
            Ok(sent) => println!("{} stored in {} at {}", sent.message_id, sent.queue, sent.queue_offset),
            // Sending this one again may store it twice.
            Err(error @ SendError::OutcomeUnknown { .. }) => println!("perhaps stored: {error}"),
            Err(error) => println!("not stored: {error}"),
        }
    }

    client.shutdown().await;
    Ok(())
}
