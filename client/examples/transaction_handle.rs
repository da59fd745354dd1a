//! A transaction that is held open for a while and then decided, or left.
//!
//! As long as it is held, the broker's checks are answered with "in progress", however long that takes. With `--end leave`
//! nothing is decided, and the check asks the listener; stay with `--linger` to see it.
//!
//! ```text
//! cargo run -p escrowmq-client --example transaction_handle -- --namesrv 127.0.0.1:9876 --hold 30 --end commit
//! ```

use std::time::Duration;

use clap::{Parser, ValueEnum};
use escrowmq_client::{Checker, Client, Decision, Message, MessageExt, TransactionError};

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Where to send to.
    #[arg(long, default_value = "Orders")]
    topic: String,
    /// Seconds to hold the transaction open.
    #[arg(long, default_value_t = 10)]
    hold: u64,
    /// The decision to make then.
    #[arg(long, value_enum, default_value = "commit")]
    end: End,
    /// Seconds to stay for the broker's checks.
    #[arg(long, default_value_t = 0)]
    linger: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum End {
    Commit,
    Rollback,
    Leave,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let checker = Checker::new(|message: MessageExt| async move {
        println!("check of {}: nobody said commit", message.message_id());
        Decision::Rollback
    });
    let producer = client.transaction_producer("example_handles", checker).topics([&arguments.topic]).start().await?;

    let transaction = producer.prepare(Message::new(arguments.topic.as_str(), "order 17")).await?;
    println!("{} is prepared, and nobody can see it", transaction.id());
    // Not needed while checks reach this process; it saves the broker the question.
    match transaction.keep_alive(Duration::from_secs(arguments.hold)).await {
        // Other brokers ask, and are answered.
        Ok(()) | Err(TransactionError::Unsupported { .. }) => {}
        Err(error) => println!("no more time: {error}"),
    }
    tokio::time::sleep(Duration::from_secs(arguments.hold)).await;
    match arguments.end {
        End::Commit => println!("{:?}", transaction.commit().await?),
        End::Rollback => println!("{:?}", transaction.rollback().await?),
        End::Leave => drop(transaction),
    }

    tokio::time::sleep(Duration::from_secs(arguments.linger)).await;
    client.shutdown().await;
    Ok(())
}
