//! Callers that wait for entries which this member proposed.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::completion::Completions;
use super::intake::Load;
use crate::planted::{Bug, planted};
use crate::terms::LogIndex;

/// The callers of one entry.
pub(in crate::shard) struct Waiting {
    /// One for each command.
    pub(in crate::shard) completions: Completions,
    /// The entry's share of what is on its way. Held until the entry is applied or given up.
    pub(in crate::shard) load: Load,
    /// When the first of its commands came, by the monotonic clock.
    pub(in crate::shard) since: Duration,
    /// When it was proposed, by the same clock.
    pub(in crate::shard) proposed: Duration,
}

/// The callers of all entries that were appended here and are not applied yet, in the order of their indexes.
#[derive(Default)]
pub(in crate::shard) struct Awaiting {
    entries: Mutex<VecDeque<(LogIndex, Waiting)>>,
    /// Told when there are callers again.
    came: Notify,
}

impl Awaiting {
    /// The entry is about to be appended: from now on it may be stored.
    pub(in crate::shard) fn push(&self, index: LogIndex, mut waiting: Waiting) {
        waiting.completions.mark_appended();
        let mut entries = self.entries.lock();
        let is_first = entries.is_empty();
        entries.push_back((index, waiting));
        drop(entries);
        if is_first {
            self.came.notify_one();
        }
    }

    /// Waits until somebody waits.
    pub(in crate::shard) async fn some(&self) {
        while self.entries.lock().is_empty() {
            self.came.notified().await;
        }
    }

    /// Takes the callers of one entry, which is committed. Older ones belong to entries that were never applied here; they
    /// are told that the outcome is unknown.
    pub(in crate::shard) fn take(&self, index: LogIndex) -> Option<Waiting> {
        let mut entries = self.entries.lock();
        let older = entries.partition_point(|(each, _)| *each < index);
        let dropped: Vec<_> = entries.drain(..older).collect();
        let is_next = entries.front().is_some_and(|(first, _)| *first == index);
        let found = if is_next { entries.pop_front() } else { None };
        // Answers are given without the lock.
        drop(entries);
        drop(dropped);
        found.map(|(_, waiting)| waiting)
    }

    /// Entries after `last` were cut off; all of them if there is none. Their callers are told that the outcome is unknown.
    pub(in crate::shard) fn truncated(&self, last: Option<LogIndex>) {
        if planted(Bug::AnsweredAfterTruncation) {
            return;
        }
        let mut entries = self.entries.lock();
        let kept = entries.partition_point(|(each, _)| Some(*each) <= last);
        let cut = entries.split_off(kept);
        drop(entries);
        for (_, waiting) in cut {
            if planted(Bug::LoadLeaked) {
                std::mem::forget(waiting.load);
            }
        }
    }

    /// Tells the callers of entries whose first command came before `since` that the outcome is unknown. Answers how many entries
    /// those were.
    pub(in crate::shard) fn give_up_before(&self, since: Duration) -> usize {
        let mut entries = self.entries.lock();
        let late = entries.partition_point(|(_, waiting)| waiting.since < since);
        let late: Vec<_> = entries.drain(..late).collect();
        drop(entries);
        late.len()
    }

    /// Nothing is applied any more: tells everybody that the outcome is unknown.
    pub(in crate::shard) fn clear(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        drop(entries);
    }
}
