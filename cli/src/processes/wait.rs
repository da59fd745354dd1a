//! Waiting for conditions, and for a signal to end.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// The longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks at something that does not tell when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks again and again until there is a result; an error of `look` ends the wait.
pub(crate) async fn until<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(deadline, looking).await.with_context(|| format!("no {what} within {deadline:?}"))?
}

/// The name of the first signal that asks the command to end.
pub(crate) async fn interrupted() -> anyhow::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}
