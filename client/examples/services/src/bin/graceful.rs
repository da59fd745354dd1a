//! See [`escrowmq_examples::graceful`].

use std::time::Duration;

use clap::Parser;
use escrowmq_client::Client;

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// How long the work for a message takes, in milliseconds.
    #[arg(long, default_value_t = 500)]
    working: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    escrowmq_examples::graceful::run(client, Duration::from_millis(arguments.working)).await
}
