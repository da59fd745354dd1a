//! Messages that wait for their time: delay levels, timers, delayed retries.
//!
//! They lie in the log like any other and in the index's timer table by due time. The runner here only says when:
//! `Command::Fire` moves those that are due into the queues, on every replica alike. The cost grows with the messages that are due,
//! never with those that are stored.

mod expiry;
mod unused_groups;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use crate::executor::Blocking;
use crate::index;
use crate::retention::{Retention, gather_due};
use crate::shard::{Admission, Command, Outcome, ReadError, Shard};
use crate::steady_clock::SteadyClock;
use crate::terms::Stamp;

pub(crate) use expiry::Expiry;
pub(crate) use unused_groups::UnusedGroups;
#[cfg(test)]
pub(crate) use unused_groups::UnusedSince;

/// Most messages that one command makes visible.
const FIRE_LIMIT: u32 = 1000;
/// Pause after something went wrong.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
/// A look at least this often, even if nothing is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Makes messages visible when their time has come.
pub(crate) struct Timers {
    /// The messages, and where commands go.
    pub shard: Shard,
    /// Which bytes are too old to become visible with.
    pub retention: Arc<Retention>,
    /// The time that due times are measured with.
    pub time: Arc<SteadyClock>,
    /// Where old bytes are read.
    pub blocking: Blocking,
}

impl Timers {
    /// Looks until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        loop {
            // Registered before the look, so that a timer stored during it is seen.
            let stored = self.shard.signals().timers.notified();
            let wait = match self.step().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "timers: cannot read what is due; trying again");
                    PAUSE_FAILED
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = stored => {}
                () = self.shard.executor().sleep(wait) => {}
            }
        }
    }

    /// Moves the old bytes of messages that are due. Says whether that is done.
    async fn refresh(&self, now: Stamp) -> Result<bool, ReadError> {
        loop {
            let (shard, retention) = (self.shard.clone(), Arc::clone(&self.retention));
            let gather = move || Ok(gather_due(&shard, now, retention.rewrite_below(), FIRE_LIMIT as usize));
            let Ok(load) = self.blocking.run("old timers", gather).await else { return Ok(false) };
            let load = load?;
            if load.is_empty() {
                return Ok(true);
            }
            if let Err(error) = load.command(|command| self.shard.propose(command, Admission::Reserved)).await {
                tracing::warn!(%error, "timers: could not write old bytes anew; trying again");
                return Ok(false);
            }
        }
    }

    /// Fires what is due, and says how long until the next.
    async fn step(&self) -> Result<Duration, ReadError> {
        loop {
            let now = self.time.now();
            let Some(due) = index::timer::next_due(self.shard.index(), self.shard.counters().timers_from())? else {
                return Ok(LOOK_EVERY);
            };
            if due > now {
                // Due times count whole milliseconds: one more, so that the look comes after, not on the edge.
                return Ok((self.time.until(due) + Duration::from_millis(1)).min(LOOK_EVERY));
            }
            // A message that becomes visible now is kept from now on, so bytes that would go soon are moved first.
            if self.retention.has_old_pins() && !self.refresh(now).await? {
                return Ok(PAUSE_FAILED);
            }
            let fire = Command::Fire { upto: now, limit: FIRE_LIMIT };
            match self.shard.propose(&fire, Admission::Reserved).await {
                Ok(Outcome::Handled(_)) => {}
                Ok(other) => {
                    tracing::error!(?other, "timers: an outcome that firing never has");
                    return Ok(PAUSE_FAILED);
                }
                Err(error) => {
                    tracing::warn!(%error, "timers: could not fire; trying again");
                    return Ok(PAUSE_FAILED);
                }
            }
        }
    }
}
