//! The producer process that the demo kills: it stores a half message, ends its local transaction, and never gets to tell.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use escrowmq_client::{Checker, Client, Decision, Message, MessageExt};
use escrowmq_common::task::Tasks;

use super::ledger::Ledger;
use super::orders::ORPHANED;

/// Arguments of the hidden `escrowmq demo-producer`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Nameserver
    #[arg(long)]
    namesrv: String,
    /// Topic to send to
    #[arg(long)]
    topic: String,
    /// Producer group
    #[arg(long)]
    group: String,
    /// File with the outcomes of local transactions
    #[arg(long)]
    ledger: PathBuf,
    /// Body of the message
    #[arg(long)]
    body: String,
}

/// Sends one half message, prints its transaction id when it is stored and the local transaction has ended, and waits to be
/// killed. Ends by itself when its standard input does.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let ended = tokio::runtime::Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(async {
            tokio::select! {
                sent = send(arguments) => sent,
                () = orphaned() => Ok(()),
            }
        });
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns when the process that started this one is gone.
async fn orphaned() {
    let reading = Tasks::new().spawn_blocking("standard input", || {
        // Nothing is ever written to it: the read ends with whoever holds the other side.
        let _ = std::io::stdin().read(&mut [0]);
    });
    let _ = reading.await;
}

async fn send(arguments: &Arguments) -> anyhow::Result<()> {
    let client = Client::builder(&arguments.namesrv).connect().await?;
    // Answers no check: it is as good as dead.
    let mute = Checker::new(|_: MessageExt| std::future::pending::<Decision>());
    let producer =
        client.transaction_producer(&arguments.group, mute).topics([arguments.topic.as_str()]).start().await?;
    let message = Message::new(arguments.topic.as_str(), arguments.body.clone()).tag(ORPHANED);
    let transaction = producer.prepare(message).await?;
    Ledger::at(&arguments.ledger).write(transaction.id(), Decision::Commit)?;
    println!("{}", transaction.id());
    std::future::pending().await
}
