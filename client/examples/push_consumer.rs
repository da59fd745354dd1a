//! Consumes a topic until Ctrl-C, then ends in order: handlers finish, offsets are stored, the group is left.
//!
//! ```text
//! cargo run -p escrowmq-client --example push_consumer -- --namesrv 127.0.0.1:9876 --topic Orders
//! ```

use clap::Parser;
use escrowmq_client::{Client, ConsumeFrom};

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// The topic to consume.
    #[arg(long, default_value = "Orders")]
    topic: String,
    /// Tags wanted: `*`, `A`, `A || B`.
    #[arg(long, default_value = "*")]
    tags: String,
    /// Consumer group. Start several processes with one group to share the queues.
    #[arg(long, default_value = "example_consumer")]
    group: String,
    /// Handlers at the same time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Fail the first attempt of each message, to see the broker's retry.
    #[arg(long)]
    fail_first: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let fail_first = arguments.fail_first;
    let consumer = client
        .push_consumer(&arguments.group)
        .subscribe(&arguments.topic, &arguments.tags)
        .consume_from(ConsumeFrom::First)
        .concurrency(arguments.concurrency)
        .start(move |message| async move {
            let attempt = message.reconsume_times() + 1;
            println!(
                "{} {}:{} attempt {attempt}: {}",
                message.message_id(),
                message.queue(),
                message.queue_offset(),
                String::from_utf8_lossy(message.body()),
            );
            if fail_first && attempt == 1 { Err("failed on request") } else { Ok(()) }
        })
        .await?;

    tokio::signal::ctrl_c().await?;
    println!("leaving {:?}", consumer.assignment());
    client.shutdown().await;
    Ok(())
}
