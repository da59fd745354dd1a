//! Old decisions are forgotten after their time.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use crate::config::CurrentConfig;
use crate::index::{IndexError, meta};
use crate::shard::{Admission, Command, Shard};
use crate::steady_clock::SteadyClock;
use crate::terms::Stamp;

/// Between looks.
const EVERY: Duration = Duration::from_secs(10);
/// Decisions are remembered longer than asked by up to this time, in milliseconds: an entry of the log for each step.
const STEP_MS: u64 = 60_000;

/// Forgets old decisions.
pub(crate) struct Expiry {
    /// The decisions, and where commands go.
    pub shard: Shard,
    /// How long decisions are remembered.
    pub config: CurrentConfig,
    /// Now.
    pub time: Arc<SteadyClock>,
}

impl Expiry {
    /// Forgets until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            match self.step().await {
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "expiry: cannot read what is old; trying again"),
            }
        }
    }

    async fn step(&self) -> Result<(), IndexError> {
        let kept = u64::from(self.config.load().transaction_record_hours) * 60 * 60 * 1000;
        let decided_before = self.time.now().saturating_sub(kept);
        let forgotten = meta::forgotten(self.shard.index())?;
        // An idle broker writes nothing: without a decision since then there is nothing to forget.
        let has_decided = self.shard.counters().decided_at().is_some_and(|at| Some(at) >= forgotten);
        let next = forgotten.unwrap_or(Stamp::ZERO).saturating_add(STEP_MS);
        if decided_before < next || !has_decided {
            return Ok(());
        }
        if let Err(error) = self.shard.propose(&Command::Expire { decided_before }, Admission::Reserved).await {
            tracing::warn!(%error, "expiry: could not forget; trying again");
        }
        Ok(())
    }
}
