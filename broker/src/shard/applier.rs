//! The state machine and its flushes: who may touch the index, and when it may become durable.
//!
//! The index must never be durable beyond the log: after a power cut it would have applied entries that the log has
//! lost, and the shard would not open. A flush has three steps, and only the first one holds up apply:
//!
//! ```text
//! flush                                                             apply
//! 1. locks the machine, sets its rows aside, notes `applied`        waits, but for a moment
//! 2. makes the log durable up to `applied`                          goes on, into new rows in memory
//! 3. gives RocksDB the rows that were set aside, and flushes it     goes on
//! ```
//!
//! Rows that apply adds during 2 and 3 are not among those set aside, so step 3 writes nothing that the log may still
//! lose. If 2 or 3 fails, the rows stay aside with their `applied`, and the next flush writes them before it sets
//! others aside. A copy of the index is one of its files after step 3. In a group others may commit what this member has not
//! flushed, so `applied` may be far beyond the durable log: step 2 waits, and holds no lock that apply takes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::apply::{ApplyError, StateMachine};
use super::awaiting::Waiting;
use super::base;
use super::batch::Batch;
use super::intake::Full;
use super::shared::Shared;
use crate::index::meta::Applied;
use crate::index::store::{FLUSH_BOUND_BYTES, FLUSH_BYTES};
use crate::index::{Index, IndexError};
use crate::latch::{Failure, FailureLatch, Promise};
use crate::planted::{Bug, planted};
use crate::raft::{self, CommittedEntry};
use crate::terms::{AtomicLogIndex, DiskUse, LogIndex, Position};

/// A dirty index is flushed at least this often, so that a restart has little to apply again.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// Pause before the next try while the disk has no room.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// The room that a flush may take beside the rows themselves.
const FLUSH_OVERHEAD_BYTES: u64 = 1 << 20;

/// Applies entries and flushes the index.
pub struct Applier {
    shared: Arc<Shared>,
    machine: Mutex<StateMachine>,
    /// Asks the flush thread to look.
    turn: Mutex<Turn>,
    changed: Condvar,
    /// A flush has ended.
    flushed: Notify,
    unflushed: AtomicU64,
    /// Raft index up to which the index is on disk.
    flushed_index: AtomicLogIndex,
    /// Raft index up to which the copy of the index has applied; none if none was made since start.
    base_upto: AtomicLogIndex,
    stopping: AtomicBool,
    /// How far what is set aside in the index has applied. Held by whoever flushes: one at a time.
    flushing: Mutex<Option<Applied>>,
}

#[derive(Default)]
struct Turn {
    /// Enough has gathered, or the applier waits for room.
    wanted: bool,
    /// A flush is tried again at this time, and not before.
    not_before: Duration,
    /// The next flush without being asked for.
    next: Duration,
}

impl Applier {
    pub(in crate::shard) fn new(shared: Arc<Shared>) -> Result<Self, IndexError> {
        let machine = StateMachine::load(Arc::clone(&shared))?;
        let flushed = machine.applied().map(|applied| applied.index);
        Ok(Self {
            shared,
            machine: Mutex::new(machine),
            turn: Mutex::new(Turn::default()),
            changed: Condvar::new(),
            flushed: Notify::new(),
            unflushed: AtomicU64::new(0),
            flushed_index: AtomicLogIndex::new(flushed),
            base_upto: AtomicLogIndex::default(),
            stopping: AtomicBool::new(false),
            flushing: Mutex::new(None),
        })
    }

    /// How far the state machine has applied the log; `None` while it has applied nothing.
    pub fn applied(&self) -> Option<Applied> {
        self.machine.lock().applied()
    }

    /// Raft index up to which the index is on disk: nothing above it may leave the log. `None` while nothing is on disk.
    pub fn flushed_index(&self) -> Option<LogIndex> {
        self.flushed_index.load()
    }

    /// Applies committed entries and answers those who wait for them.
    pub(crate) fn apply(&self, entries: Vec<CommittedEntry>) -> Result<(), ApplyError> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        let mut loads = Vec::with_capacity(entries.len());
        let mut ready = Vec::with_capacity(entries.len());
        let durations = &self.shared.durations;
        for entry in entries {
            let waiting = self.shared.awaiting.take(entry.index);
            let completions = waiting.map(|Waiting { mut completions, load, proposed, .. }| {
                loads.push(load);
                let now = durations.now();
                durations.flush.record_many(now.saturating_sub(proposed), completions.len() as u64);
                completions.mark_committed(durations, now);
                completions
            });
            ready.push((entry, completions));
        }
        self.machine.lock().apply(ready.into_iter())?;
        self.shared.log.release_upto(last);
        drop(loads);
        self.note_unflushed();
        Ok(())
    }

    fn note_unflushed(&self) {
        let unflushed = self.shared.index.unflushed_bytes();
        self.unflushed.store(unflushed, Ordering::Relaxed);
        if unflushed >= FLUSH_BYTES {
            self.want_flush();
        }
    }

    fn want_flush(&self) {
        let mut turn = self.turn.lock();
        if !turn.wanted {
            turn.wanted = true;
            self.changed.notify_all();
        }
    }

    /// The flush thread: flushes when enough has gathered, now and then, and once more at the end.
    pub fn run_flushes(&self) {
        loop {
            let mut turn = self.turn.lock();
            while let Some(rest) = self.rest(&turn) {
                self.changed.wait_for(&mut turn, rest);
            }
            drop(turn);
            if !self.take_turn() {
                return;
            }
        }
    }

    /// Does what the flush thread would do next, without waiting. Says whether there was something to do.
    pub fn step(&self) -> bool {
        let is_due = !self.latch().is_closed() && self.rest(&self.turn.lock()).is_none();
        if is_due {
            self.take_turn();
        }
        is_due
    }

    /// How long there is nothing to flush; `None` if a flush is due.
    fn rest(&self, turn: &Turn) -> Option<Duration> {
        let next = if turn.wanted { turn.not_before } else { turn.next.max(turn.not_before) };
        let now = self.shared.log.clock().monotonic();
        let is_due = now >= next || self.stopping.load(Ordering::Acquire);
        (!is_due).then(|| next.saturating_sub(now))
    }

    /// One flush of the flush thread. Says whether there will be another.
    fn take_turn(&self) -> bool {
        let now = self.shared.log.clock().monotonic();
        let stopping = self.stopping.load(Ordering::Acquire);
        *self.turn.lock() = Turn { wanted: false, not_before: now, next: now + FLUSH_EVERY };
        match self.flush() {
            Ok(()) => {
                if self.shared.intake.set_full(Full::Index, false) {
                    tracing::info!("the index has room again");
                }
            }
            // Nothing is lost: the rows stay in memory, and the log has them.
            Err(error) if error.is_no_space() => {
                if self.shared.intake.set_full(Full::Index, true) {
                    tracing::error!(%error, "disk full: the index stays in memory; new messages are refused");
                }
                let mut turn = self.turn.lock();
                (turn.wanted, turn.not_before) = (true, now + FULL_PAUSE);
            }
            Err(error) => {
                self.latch().close(Failure::storage("flushing the index", io::Error::other(error)));
                self.flushed.notify_waiters();
                return false;
            }
        }
        self.flushed.notify_waiters();
        !stopping
    }

    fn latch(&self) -> &FailureLatch {
        self.shared.intake.latch()
    }

    /// Makes the index durable up to what was applied when this was called.
    pub fn flush(&self) -> Result<(), FlushError> {
        self.flush_set_aside(&mut self.flushing.lock()).map(drop)
    }

    /// Sets the rows of the index aside and makes them durable. Says what the index on disk has applied then.
    fn flush_set_aside(&self, flushing: &mut Option<Applied>) -> Result<Option<Applied>, FlushError> {
        // First the rows that an earlier flush set aside and could not write.
        self.spill(flushing)?;
        let applied = {
            let machine = self.machine.lock();
            let applied = machine.applied();
            if applied.map(|applied| applied.index) > self.flushed_index() {
                self.shared.index.freeze();
                *flushing = applied;
            }
            applied
        };
        self.spill(flushing)?;
        Ok(applied)
    }

    /// Makes durable what is set aside. If that fails it stays so.
    fn spill(&self, flushing: &mut Option<Applied>) -> Result<(), FlushError> {
        let Some(applied) = *flushing else { return Ok(()) };
        self.wait_durable(applied.end)?;
        self.check_room()?;
        let latch = self.latch();
        let durable = self.shared.log.durable_end();
        if durable < applied.end && !planted(Bug::IndexAhead) {
            let found = format!("the log is durable up to {durable}, and the index would be up to {}", applied.end);
            let at = (Some(applied.index), Some(applied.end));
            return Err(FlushError::Failed(latch.broken(Promise::IndexBehindLog, at.0, at.1, found)));
        }
        if let Some(failure) = latch.failure() {
            return Err(FlushError::Failed(failure.clone()));
        }
        let (durations, since) = (&self.shared.durations, self.shared.durations.now());
        self.shared.index.spill()?;
        durations.index_flush.record(durations.now().saturating_sub(since));
        *flushing = None;
        self.flushed_index.raise(applied.index);
        Ok(())
    }

    /// Before records up to `index` leave the log: makes the index durable beyond them, and keeps a copy of it from which
    /// a lost one can be built again. Does nothing if the last copy will do.
    pub fn keep_base(&self, index: LogIndex) -> Result<(), FlushError> {
        if self.base_upto.load() >= Some(index) {
            return Ok(());
        }
        let dir = self.shared.index.path().parent().expect("the index lies in the shard's folder");
        let new = base::begin(dir).map_err(FlushError::Base)?;
        let applied = self.copy(|index| index.copy_to(&new))?;
        base::finish(dir).map_err(FlushError::Base)?;
        applied.inspect(|applied| self.base_upto.raise(applied.index));
        Ok(())
    }

    /// Looks for room before a flush: RocksDB stops taking writes when one fails.
    fn check_room(&self) -> Result<(), FlushError> {
        let needed = self.shared.index.unflushed_bytes() + FLUSH_OVERHEAD_BYTES;
        // A disk that cannot be asked for its room is not refused.
        match DiskUse::of(self.shared.index.path()) {
            Ok(disk) if disk.free < needed => Err(FlushError::NoRoom { needed, free: disk.free }),
            _ => Ok(()),
        }
    }

    /// Makes a folder `target` that holds the index as it is at some applied entry, the log being durable that far. Says
    /// which entry; `None` if nothing is applied yet.
    pub fn checkpoint(&self, target: &Path) -> Result<Option<Applied>, FlushError> {
        self.copy(|index| index.copy_to(target))
    }

    /// Copies the files of the index as they are at some applied entry, which flushes it, the log being durable that far.
    /// Others are applied meanwhile; their rows are in memory.
    pub(in crate::shard) fn copy(
        &self,
        copy: impl FnOnce(&Index) -> Result<(), IndexError>,
    ) -> Result<Option<Applied>, FlushError> {
        let mut flushing = self.flushing.lock();
        let applied = self.flush_set_aside(&mut flushing)?;
        copy(&self.shared.index)?;
        Ok(applied)
    }

    fn wait_durable(&self, position: Position) -> Result<(), FlushError> {
        if self.shared.log.durable_end() >= position || planted(Bug::IndexAhead) {
            return Ok(());
        }
        self.shared.log.sync_wait().map_err(FlushError::Log)
    }

    /// Ends the flush thread after one last flush.
    pub fn stop_flushes(&self) {
        self.stopping.store(true, Ordering::Release);
        // Under the lock: the flush thread looks at both before it waits.
        let _turn = self.turn.lock();
        self.changed.notify_all();
    }
}

/// The state machine as its group sees it.
impl raft::StateMachine for Applier {
    /// Waits while so much is unflushed that RocksDB could soon flush by itself.
    async fn room(&self) {
        if self.unflushed.load(Ordering::Relaxed) < FLUSH_BOUND_BYTES {
            return;
        }
        loop {
            let flushed = self.flushed.notified();
            // After a failed flush nothing more is flushed, and nothing more is taken in either.
            if self.latch().is_closed() || self.shared.index.unflushed_bytes() < FLUSH_BOUND_BYTES {
                return;
            }
            self.want_flush();
            flushed.await;
        }
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> io::Result<()> {
        self.apply(entries).map_err(io::Error::other)
    }

    fn applied(&self) -> Option<(u64, LogIndex)> {
        self.applied().map(|applied| (applied.term, applied.index))
    }

    fn membership(&self) -> io::Result<Option<Vec<u8>>> {
        self.machine.lock().membership().map_err(io::Error::other)
    }

    fn is_vital(payload: &[u8]) -> bool {
        Batch::decode(payload).is_ok_and(|batch| !batch.brings_messages())
    }

    fn truncated(&self, last: Option<LogIndex>) {
        self.shared.awaiting.truncated(last);
    }
}

/// Why the index could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The log could not be flushed first.
    #[error("the log: {0}")]
    Log(std::io::Error),
    /// The copy of the index.
    #[error("the copy of the index: {0}")]
    Base(std::io::Error),
    /// The disk has no room for it.
    #[error("the index needs {needed} bytes and the disk has {free}")]
    NoRoom {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// RocksDB failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store has failed; the index stays as it is on disk, and a restart applies the log again.
    #[error(transparent)]
    Failed(Failure),
}

impl FlushError {
    /// Whether it works again when the disk has room.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Index(error) => error.is_no_space(),
            Self::Log(_) | Self::Base(_) | Self::Failed(_) => false,
        }
    }
}
