//! The end of a process. On SIGTERM, which orchestrators send, or Ctrl-C, consumers stop pulling, handlers that run come to their end, their
//! offsets are committed, and sends in flight end; then the process does. What no handler has begun goes to other members at once.

use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Message, Text, Verdict, typed};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the signal to end.
///
/// # Errors
///
/// The system refuses a handler.
pub async fn ended() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// Consumes `Work` and answers each message with one in `Results`, until the signal.
///
/// # Errors
///
/// The cluster refuses the start.
pub async fn run(client: Client, working: Duration) -> anyhow::Result<()> {
    let results = client.producer("graceful").start().await?;
    let handler = typed(move |Text(work), _| {
        let results = results.clone();
        async move {
            println!("begins {work}");
            tokio::time::sleep(working).await; // stands for the work
            results.send(Message::new("Results", work)).await?;
            Ok::<Verdict, escrowmq_client::SendError>(Verdict::Done)
        }
    });
    let consumer = client.push_consumer("graceful").subscribe("Work", "*").consume_from(ConsumeFrom::First);
    let _consumer = consumer.start(handler).await?;
    client.shutdown_on(ended()).await;
    println!("ended");
    Ok(())
}
