//! Sends transactional messages whose local transaction is a line in a table, and answers the broker's checks from it.
//!
//! Every third order is left undecided at first, so that the broker has to ask; stay with `--linger` to see it.
//!
//! ```text
//! cargo run -p escrowmq-client --example transaction_producer -- --namesrv 127.0.0.1:9876 --count 6 --linger 60
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use escrowmq_client::{Client, Decision, Half, Message, MessageExt, TransactionListener};

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Where to send to.
    #[arg(long, default_value = "Orders")]
    topic: String,
    /// How many transactions to run.
    #[arg(long, default_value_t = 6)]
    count: usize,
    /// Seconds to stay for the broker's checks.
    #[arg(long, default_value_t = 0)]
    linger: u64,
}

/// Stands for the database: what became of each transaction. A real one outlives the process.
#[derive(Clone, Default)]
struct Ledger {
    orders: Arc<Mutex<HashMap<String, Decision>>>,
}

impl TransactionListener for Ledger {
    async fn execute_local_transaction(&self, message: &Message, half: &Half) -> Decision {
        let number: usize = message.get("number").and_then(|number| number.parse().ok()).unwrap_or(0);
        let (written, answered) = match number % 3 {
            0 => (Decision::Commit, Decision::Commit),
            1 => (Decision::Rollback, Decision::Rollback),
            // Committed in the database, but the answer is lost: the check will find it.
            _ => (Decision::Commit, Decision::Unknown),
        };
        self.orders.lock().expect("no panic holds the lock").insert(half.transaction_id.clone(), written);
        answered
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        let orders = self.orders.lock().expect("no panic holds the lock");
        let found = message.transaction_id().and_then(|id| orders.get(id)).copied();
        let decision = found.unwrap_or(Decision::Unknown);
        println!("check of {}: {decision:?}", message.message_id());
        decision
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    // Naming the topic lets the broker ask about transactions of an earlier process before this one has sent anything.
    let producer = client
        .transaction_producer("example_transactions", Ledger::default())
        .topics([&arguments.topic])
        .start()
        .await?;

    for number in 0..arguments.count {
        let message = Message::new(arguments.topic.as_str(), format!("order {number}"))
            .tag("created")
            .property("number", number.to_string());
        match producer.send(message).await {
            Ok(result) => println!("{}: {:?}, {:?}", result.half.message_id, result.decision, result.outcome),
            Err(error) if error.outcome_unknown() => println!("the check will decide: {error}"),
            Err(error) => println!("failed: {error}"),
        }
    }

    tokio::time::sleep(Duration::from_secs(arguments.linger)).await;
    client.shutdown().await;
    Ok(())
}
