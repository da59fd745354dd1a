//! The counts of apply, and its signals to those who wait for work.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::index::meta::{Applied, Sequences};
use crate::terms::{AtomicLogIndex, HalfId, LogIndex, Position, Stamp};

/// Counts of the state machine, for metrics and listings. Apply writes, everybody reads.
#[derive(Debug, Default)]
pub struct Counters {
    open_halves: AtomicU64,
    parked_halves: AtomicU64,
    committed: AtomicU64,
    rolled_back: AtomicU64,
    timers: AtomicU64,
    next_timer: AtomicU64,
    next_half: AtomicU64,
    first_checked: AtomicU64,
    applied_index: AtomicLogIndex,
    applied_end: AtomicU64,
    stamp: AtomicU64,
    /// No message waits for an earlier time. Only saves work: a start begins with the earliest time there is.
    timers_from: AtomicU64,
    trimmed: AtomicU64,
    /// No half with a lower id is undecided. Only saves work: a start begins with the lowest id there is.
    halves_from: AtomicU64,
    decided_at: AtomicU64,
    /// Decisions that were refused because the opposite came first, since start.
    pub refused_opposites: AtomicU64,
    /// Repeated half sends that got the first one's identity, since start.
    pub repeated_halves: AtomicU64,
    /// Repeated sends of plain messages that got the first one's place, since start.
    pub repeated_messages: AtomicU64,
    /// Commands that could not be carried out, since start.
    pub refused_commands: AtomicU64,
    /// Entries of the log that were passed because they are in quarantine, since start.
    pub quarantined: AtomicU64,
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident $(as $term:ident)?),* $(,)?) => {
        $($(#[$doc])* pub fn $name(&self) -> readers!(@type $($term)?) {
            readers!(@value self.$name.load(Ordering::Relaxed) $(, $term)?)
        })*
    };
    (@type) => { u64 };
    (@type $term:ident) => { $term };
    (@value $value:expr) => { $value };
    (@value $value:expr, $term:ident) => { $term($value) };
}

impl Counters {
    readers! {
        /// Undecided halves that are not parked.
        open_halves,
        /// Parked halves.
        parked_halves,
        /// Commits, ever.
        committed,
        /// Rollbacks, ever.
        rolled_back,
        /// Messages that wait for their time.
        timers,
        /// Number that the next message that waits for its time gets.
        next_timer,
        /// Counter that the next half gets.
        next_half,
        /// Every half up to this id has had its first check scheduled; [`HalfId::ZERO`] is below all of them.
        first_checked as HalfId,
        /// Log position after the last applied entry; the log's beginning before the first one.
        applied_end as Position,
        /// The newest stamp applied; [`Stamp::ZERO`] before the first one.
        stamp as Stamp,
        /// No message waits for an earlier time than this: where to look from.
        timers_from as Stamp,
        /// Log position below which retention has let everything go.
        trimmed as Position,
        /// No half with a lower id is undecided: where to look from.
        halves_from as HalfId,
    }

    /// Raft index of the last applied entry; `None` before the first one.
    pub fn applied_index(&self) -> Option<LogIndex> {
        self.applied_index.load()
    }

    /// When the newest decision was made; `None` if there never was one.
    pub fn decided_at(&self) -> Option<Stamp> {
        Stamp::from_stored(self.decided_at.load(Ordering::Relaxed))
    }

    pub(in crate::shard) fn timers_fired(&self, from: Stamp) {
        self.timers_from.fetch_max(from.get(), Ordering::Relaxed);
    }

    pub(in crate::shard) fn halves_decided(&self, from: HalfId) {
        self.halves_from.fetch_max(from.get(), Ordering::Relaxed);
    }

    pub(in crate::shard) fn set_trimmed(&self, upto: Position) {
        self.trimmed.store(upto.get(), Ordering::Release);
    }

    pub(in crate::shard) fn set(&self, sequences: &Sequences, applied: Option<Applied>) {
        for (counter, value) in [
            (&self.open_halves, sequences.open_halves),
            (&self.parked_halves, sequences.parked_halves),
            (&self.committed, sequences.committed),
            (&self.rolled_back, sequences.rolled_back),
            (&self.timers, sequences.timers),
            (&self.decided_at, Stamp::to_stored(sequences.decided_at)),
            (&self.next_timer, sequences.next_timer),
            (&self.next_half, sequences.next_half),
            (&self.first_checked, sequences.first_checked.get()),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        if let Some(applied) = applied {
            self.applied_end.store(applied.end.get(), Ordering::Relaxed);
            self.stamp.store(applied.stamp.get(), Ordering::Relaxed);
            self.applied_index.raise(applied.index);
        }
    }
}

/// The signals of apply to the runners. Each is a hint to look again, never the truth.
#[derive(Debug, Default)]
pub struct Signals {
    /// Halves were prepared, resumed or got a new due time.
    pub halves: Notify,
    /// Messages that wait for their time were stored.
    pub timers: Notify,
    /// Topics changed.
    pub topics: Notify,
}
