//! Forgetting what need not be remembered any longer: old decisions.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use crate::broker::Broker;
use crate::index::{IndexError, meta};
use crate::shard::{Admission, Command};

/// Between looks.
const EVERY: Duration = Duration::from_secs(10);
/// Decisions are remembered longer than asked by up to this time, in milliseconds: an entry of the log for each step.
const STEP_MS: u64 = 60_000;

/// Forgets until shutdown.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match step(&broker).await {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "expiry: cannot read what is old; trying again"),
        }
    }
}

async fn step(broker: &Broker) -> Result<(), IndexError> {
    let kept = u64::from(broker.config().transaction_record_hours) * 60 * 60 * 1000;
    let decided_before = broker.now().saturating_sub(kept);
    let forgotten = meta::forgotten(broker.shard.index())?;
    // An idle broker writes nothing: without a decision since then there is nothing to forget.
    let has_decided = broker.shard.counters().decided_at().is_some_and(|at| at >= forgotten);
    if decided_before < forgotten.saturating_add(STEP_MS) || !has_decided {
        return Ok(());
    }
    if let Err(error) = broker.shard.propose(&Command::Expire { decided_before }, Admission::Reserved).await {
        tracing::warn!(%error, "expiry: could not forget; trying again");
    }
    Ok(())
}
