//! Room and age: new messages are refused when the disk is full, old files go, and bytes that must stay are moved.
//!
//! ```text
//! each second:  disk and log have room? --> new messages are taken or refused
//!               files by age and size   --> Roll what is pinned below --> Trim --> base for the index --> files go
//! ```
//!
//! Messages go by a logged [`Trim`](crate::shard::Command::Trim) alone, the oldest files of the log first; the state
//! machine clips it to the lowest bytes that a half message or a waiting one needs. So that those hold nothing up for
//! long, their bytes are moved to the log's end (`Roll`) when they are older than half the retention; and a message that
//! becomes visible with bytes older than a quarter is moved too, so that it stays from then on.
//!
//! Promises: a full disk refuses new messages with an error that clients try again after, and nothing else; decisions,
//! offsets and trims have a reserve; as soon as there is room again messages are taken again, by itself. A file goes only
//! when the trim is durable, the index is on disk beyond it, and a copy of the index from which a lost one can be built
//! again is kept. Leaves to others: the effect of a trim on queues (`shard::apply`), deleting files (`log`).

mod age;
mod plan;
mod roll;
mod room;
mod trim;

#[cfg(test)]
pub(crate) use age::last_index_below;
#[cfg(test)]
pub(crate) use roll::{Load, gather};
pub(crate) use roll::{Rewritten, gather_due, rewritten};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::task::{Shutdown, Tasks};

use self::plan::Plan;
use self::trim::Trimmer;
use crate::config::CurrentConfig;
use crate::metrics::Count;
use crate::raft::Purger;
use crate::shard::{Applier, Shard};
use crate::steady_clock::SteadyClock;
use crate::terms::Position;

/// Between looks.
const EVERY: Duration = Duration::from_secs(1);

/// Between looks at how much came in.
const STEP: Duration = Duration::from_millis(100);
/// Once this many bytes came in, the next look comes before the second is over.
const SOON_BYTES: u64 = 64 << 20;

/// The findings about room and age, for metrics and for decisions on old halves.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Percent of the disk in use, as of the last look.
    pub disk_used_percent: Count,
    /// Trims that let something go, since start.
    pub trims: Count,
    /// Bytes of log files that went, since start.
    pub trimmed_bytes: Count,
    /// Bytes that were moved because they must be kept, since start.
    pub moved_bytes: Count,
    /// Bytes of log that would go if half messages and waiting ones did not need some of them.
    pub pinned_bytes: Count,
    rewrite_below: AtomicU64,
    /// Above every byte where nothing is pinned.
    lowest_pin: AtomicU64,
    above_soft_mark: AtomicBool,
}

impl Retention {
    /// Log position below which bytes are too old for a message that becomes visible now: the log's beginning if none are.
    pub(crate) fn rewrite_below(&self) -> Position {
        Position(self.rewrite_below.load(Ordering::Relaxed))
    }

    /// Whether some message that waits may have bytes too old to become visible with. A look at two numbers.
    pub(crate) fn has_old_pins(&self) -> bool {
        Position(self.lowest_pin.load(Ordering::Relaxed)) < self.rewrite_below()
    }

    /// Warns when the disk's use passes the soft mark; once, until it was below.
    fn warn(&self, percent: u32, mark: u32) {
        let above = percent > mark;
        let was_above = self.above_soft_mark.swap(above, Ordering::Relaxed);
        if above && !was_above {
            tracing::warn!(
                event = "disk_filling",
                percent,
                mark,
                "the disk fills up: see maxStoreSize and fileReservedTime"
            );
        }
    }

    fn note(&self, plan: &Plan, lowest_pin: Option<Position>) {
        let lowest = lowest_pin.unwrap_or(Position::MAX);
        self.rewrite_below.store(plan.rewrite.get(), Ordering::Relaxed);
        self.lowest_pin.store(lowest.get(), Ordering::Relaxed);
        self.pinned_bytes.set(plan.trim.since(lowest));
    }
}

/// Looks at room and age, moves bytes that must stay, and lets old files go.
pub(crate) struct Keeper {
    /// Where it notes what it found.
    pub retention: Arc<Retention>,
    /// The messages.
    pub shard: Shard,
    /// How long and how much is kept.
    pub config: CurrentConfig,
    /// Now.
    pub time: Arc<SteadyClock>,
    /// Where it looks at files.
    pub tasks: Tasks,
    /// Makes copies of the index.
    pub applier: Arc<Applier>,
    /// Deletes files of the log.
    pub purger: Purger,
}

impl Keeper {
    /// Looks every second until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let keeper = Arc::new(self);
        let mut trimmer = Some(Trimmer::new(Arc::clone(&keeper)));
        loop {
            let looker = Arc::clone(&keeper);
            // A panic is logged where the task was spawned; the next look is in a second.
            let _ = keeper.tasks.spawn_blocking("disk", move || room::look(&looker)).await;
            let round = trimmer.take().unwrap_or_else(|| Trimmer::new(Arc::clone(&keeper)));
            let runtime = tokio::runtime::Handle::current();
            // Reads files between commands, so it has a thread of its own.
            let done = keeper.tasks.spawn_blocking("retention", move || runtime.block_on(round.round())).await;
            if let Ok(Some((next, result))) = done {
                trimmer = Some(next);
                if let Err(error) = result {
                    tracing::warn!(%error, "retention: trying again");
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = keeper.pause() => {}
            }
        }
    }

    /// Waits until the next look: a second, or less if enough came in to pass a limit of size.
    async fn pause(&self) {
        let end = self.shard.log().end();
        for _ in 0..EVERY.as_millis() / STEP.as_millis() {
            tokio::time::sleep(STEP).await;
            let limit = self.config.load().max_store_bytes;
            let came = self.shard.log().end().since(end);
            if limit > 0 && came >= (limit / 8).min(SOON_BYTES) {
                return;
            }
        }
    }
}
