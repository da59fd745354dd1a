//! The index's knowledge at a moment, shared by the builder that adds to it and the lookups that read it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use parking_lot::{Condvar, Mutex};

use super::entry::Entry;
use super::run::{Coverage, Run};
use crate::terms::LogIndex;

/// How many of the newest entries of one hash a lookup takes from memory; older ones among those not yet in a file are
/// left out.
const RECENT_MAX: usize = 8192;

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) known: Mutex<Known>,
    /// Wakes the builder: a lookup wants what it does not know yet.
    pub(super) wanted: Condvar,
    /// Wakes lookups: the builder knows more.
    pub(super) progress: Condvar,
}

/// Changed by the builder alone, except for `damaged`.
pub(super) struct Known {
    /// On disk, oldest first, without gaps.
    pub(super) runs: VecDeque<Arc<Run>>,
    /// Sorted, being written as the next run.
    pub(super) sealed: Option<Arc<Sealed>>,
    /// Behind those, in the order of the log.
    pub(super) fresh: Fresh,
    /// Index of the first record that is not known.
    pub(super) next_index: LogIndex,
    /// A lookup found the run that begins with this index damaged.
    pub(super) damaged: Option<LogIndex>,
    /// Index of a record that a lookup waits for, until the builder has seen that.
    pub(super) wanted: Option<LogIndex>,
    /// The builder has ended.
    pub(super) stopped: bool,
}

pub(super) struct Sealed {
    pub(super) entries: Vec<Entry>,
    pub(super) coverage: Coverage,
}

/// Entries that are in no file, and the records that they are from.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) entries: Vec<Entry>,
    /// `None` before the first record.
    pub(super) coverage: Option<Coverage>,
}

impl Known {
    /// Nothing counts as known yet but these runs.
    pub(super) fn new(runs: VecDeque<Arc<Run>>) -> Self {
        let (fresh, next_index) = (Fresh::default(), LogIndex::ZERO);
        Self { runs, sealed: None, fresh, next_index, damaged: None, wanted: None, stopped: false }
    }

    /// The newest record that is known.
    pub(super) fn newest(&self) -> Option<Coverage> {
        let sealed = self.sealed.as_ref().map(|sealed| sealed.coverage);
        self.fresh.coverage.or(sealed).or_else(|| self.runs.back().map(|run| run.coverage))
    }

    /// The entries of a hash that are in no file yet, newest first.
    pub(super) fn recent(&self, hash: u64) -> Vec<Entry> {
        let fresh = self.fresh.entries.iter().rev().filter(|entry| entry.hash == hash);
        let sealed = self.sealed.iter().flat_map(|sealed| {
            let entries = &sealed.entries;
            let end = entries.partition_point(|entry| entry.hash <= hash);
            entries[..end].iter().rev().take_while(move |entry| entry.hash == hash)
        });
        fresh.chain(sealed).take(RECENT_MAX).copied().collect()
    }
}

impl Shared {
    /// Waits until the record with this index is known; says whether it is.
    pub(super) fn catch_up(&self, index: LogIndex, patience: Duration) -> bool {
        let deadline = clock::monotonic() + patience;
        let mut known = self.known.lock();
        while known.next_index <= index && !known.stopped {
            known.wanted = known.wanted.max(Some(index));
            self.wanted.notify_one();
            let Some(left) = deadline.checked_sub(clock::monotonic()).filter(|left| !left.is_zero()) else {
                break;
            };
            self.progress.wait_for(&mut known, left);
        }
        known.next_index > index
    }
}
