//! Messages that wait for their time: delay levels, timers, delayed retries.
//!
//! They lie in the log like any other and in the index's timer table by due time. The runner here only says when:
//! `Command::Fire` moves what is due into the queues, on every replica alike. Cost is what is due, never what is stored.

pub(crate) mod expiry;
pub(crate) mod unused_groups;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use crate::broker::Broker;
use crate::index;
use crate::retention;
use crate::shard::{Admission, Command, Outcome, ReadError};
use crate::terms::Stamp;

/// Most messages that one command makes visible.
const FIRE_LIMIT: u32 = 1000;
/// Pause after something went wrong.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
/// A look at least this often, whatever the due times say.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Makes messages visible when their time has come, until shutdown.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: Shutdown) {
    loop {
        // Registered before the look, so that a timer stored during it is seen.
        let stored = broker.shard.signals().timers.notified();
        let wait = match step(&broker).await {
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
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Writes old bytes of what is due anew. Says whether that is done.
async fn refresh(broker: &Arc<Broker>, now: Stamp) -> Result<bool, ReadError> {
    loop {
        let reader = Arc::clone(broker);
        let gather = move || {
            let below = reader.retention.rewrite_below();
            retention::gather_due(&reader.shard, now, below, FIRE_LIMIT as usize)
        };
        let Ok(Some(load)) = broker.tasks.spawn_blocking("old timers", gather).await else { return Ok(false) };
        let load = load?;
        if load.is_empty() {
            return Ok(true);
        }
        if let Err(error) = load.command(|command| broker.shard.propose(command, Admission::Reserved)).await {
            tracing::warn!(%error, "timers: could not write old bytes anew; trying again");
            return Ok(false);
        }
    }
}

/// Fires what is due, and says how long until the next.
async fn step(broker: &Arc<Broker>) -> Result<Duration, ReadError> {
    loop {
        let now = broker.now();
        let Some(due) = index::timer::next_due(broker.shard.index(), broker.shard.counters().timers_from())? else {
            return Ok(LOOK_EVERY);
        };
        if due > now {
            // Due times count whole milliseconds: one more, so that the look comes after, not on the edge.
            return Ok((broker.time.until(due) + Duration::from_millis(1)).min(LOOK_EVERY));
        }
        // What becomes visible now stays from now on: bytes that would go soon are written anew first.
        if broker.retention.has_old_pins() && !refresh(broker, now).await? {
            return Ok(PAUSE_FAILED);
        }
        let fire = Command::Fire { upto: now, limit: FIRE_LIMIT };
        match broker.shard.propose(&fire, Admission::Reserved).await {
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
