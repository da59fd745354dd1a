//! Forgetting what need not be remembered any longer: old decisions, and duplicate windows that have ended.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use crate::broker::Broker;
use crate::index::{self, IndexError};
use crate::shard::{Admission, Command, Outcome};

/// Between looks.
const EVERY: Duration = Duration::from_secs(10);
/// Most rows that one command forgets.
const LIMIT: u32 = 5000;

/// Forgets until shutdown.
pub async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
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
    loop {
        let now = broker.now();
        let decided_before = now.saturating_sub(kept);
        let index = broker.shard.index();
        let old = index::decision::oldest(index)?.is_some_and(|at| at < decided_before)
            || index::half::first_open_end(index)?.is_some_and(|end| end < now);
        // An idle broker writes nothing.
        if !old {
            return Ok(());
        }
        let command = Command::Expire { decided_before, limit: LIMIT };
        match broker.shard.propose(&command, Admission::Reserved).await {
            Ok(Outcome::Handled(handled)) if handled > 0 => {}
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "expiry: could not forget; trying again");
                return Ok(());
            }
        }
    }
}
