//! Transactions whose local part is a closure: it writes an order into a table, and the order and its invoice become visible
//! together, or neither does.
//!
//! Every third order finds no money: the closure says no, and nobody ever sees its messages. Both topics must be on one
//! broker group, and several messages in one transaction need EscrowMQ.
//!
//! ```text
//! cargo run -p escrowmq-client --example transaction_closure -- --namesrv 127.0.0.1:9876 --count 6
//! ```

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use anyhow::bail;
use clap::Parser;
use escrowmq_client::{Checker, Client, Decision, Message, MessageExt, TransactionError};

#[derive(Debug, Parser)]
struct Arguments {
    /// Name servers, `host:port`, several joined by `;`.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Where orders go to.
    #[arg(long, default_value = "Orders")]
    orders: String,
    /// Where their invoices go to.
    #[arg(long, default_value = "Invoices")]
    invoices: String,
    /// How many transactions to run.
    #[arg(long, default_value_t = 6)]
    count: usize,
}

/// Stands for the database: the transactions whose orders are written. A real one outlives the process.
type Table = Arc<Mutex<HashSet<String>>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let client = Client::builder(&arguments.namesrv).connect().await?;
    let table = Table::default();
    let rows = Arc::clone(&table);
    // Asked once for a whole transaction, and only after it has ended here: what is not written then never will be.
    let checker = Checker::new(move |message: MessageExt| {
        let is_written =
            message.transaction_id().is_some_and(|id| rows.lock().expect("no panic holds the lock").contains(id));
        std::future::ready(if is_written { Decision::Commit } else { Decision::Rollback })
    });
    let producer = client
        .transaction_producer("example_closures", checker)
        .topics([&arguments.orders, &arguments.invoices])
        .start()
        .await?;

    for number in 0..arguments.count {
        let order = Message::new(arguments.orders.as_str(), format!("order {number}"));
        let invoice = Message::new(arguments.invoices.as_str(), format!("invoice of order {number}"));
        let table = Arc::clone(&table);
        let ran = producer.run(order, |transaction| async move {
            transaction.prepare(invoice).await?;
            if number % 3 == 2 {
                bail!("no money for order {number}");
            }
            // The last step: from here on the answer to a check is commit.
            table.lock().expect("no panic holds the lock").insert(transaction.id().to_owned());
            Ok(())
        });
        match ran.await {
            Ok(committed) => println!("{}: {:?}", committed.half.message_id, committed.outcome),
            Err(TransactionError::Aborted { error, .. }) => println!("rolled back: {error:#}"),
            Err(error @ TransactionError::Unresolved { .. }) => println!("written; the check will decide: {error}"),
            Err(error) => println!("not written: {error}"),
        }
    }

    client.shutdown().await;
    Ok(())
}
