//! Half messages on the index: the steps of `life` become rows.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::life::{self, Extent, Noted, Rows, TopicRef};
use super::publish::{Place, due, extent};
use super::staged::Staged;
use crate::index::half::{Repeat, RepeatKey};
use crate::index::{self, DecisionRow, EntryFlags, HalfRow, IndexError, ProducerRow};
use crate::latch::Promise;
use crate::planted::{Bug, planted};
use crate::shard::command::{Checked, Extend, Park, Prepare, Resume, Settle};
use crate::shard::outcome::Outcome;
use crate::shard::shared::Shared;
use crate::terms::{Decision, HalfId, QueueId, QueueOffset, Stamp};

/// The rows of a step: those on disk, and above them what the commands at hand have changed.
pub(super) struct Step<'a> {
    pub(super) shared: &'a Shared,
    pub(super) staged: &'a mut Staged,
}

impl Rows for Step<'_> {
    type Error = IndexError;

    fn now(&self) -> Stamp {
        self.staged.stamp()
    }

    fn half(&self, half: HalfId) -> Result<Option<HalfRow>, IndexError> {
        self.staged.half(&self.shared.index, half)
    }

    fn replace(&mut self, old: Option<&HalfRow>, new: Option<HalfRow>) {
        let state = |row: Option<&HalfRow>| row.map(|row| row.parked.is_some());
        let (was, is) = (state(old), state(new.as_ref()));
        for (state, by) in [(is, 1), (was, -1)] {
            match state {
                Some(true) => self.staged.count(|sequences| &mut sequences.parked_halves, by),
                Some(false) => self.staged.count(|sequences| &mut sequences.open_halves, by),
                None => {}
            }
        }
        if was != is
            && let Some(row) = old.or(new.as_ref())
            && let Some(group) = self.shared.producers.by_id(row.group_id)
        {
            let counted = group.count(was, is, row.first_half.is_some(), self.staged.stamp());
            self.staged.promise(counted, Promise::CountersHold, || format!("halves of group {}", group.name));
            self.staged.producers.insert(group.id, group);
        }
        self.staged.replace_half(old, new);
    }

    fn decision(&self, half: HalfId) -> Result<Option<DecisionRow>, IndexError> {
        self.staged.decision(&self.shared.index, half)
    }

    fn put_decision(&mut self, half: HalfId, row: DecisionRow) {
        match row.decision {
            Decision::Commit => self.staged.count(|sequences| &mut sequences.committed, 1),
            Decision::Rollback => self.staged.count(|sequences| &mut sequences.rolled_back, 1),
        }
        self.staged.sequences.decided_at = Some(row.at);
        self.staged.put_decision(half, row);
    }

    fn repeat(&self, key: RepeatKey) -> Result<Option<Repeat>, IndexError> {
        self.staged.repeat(&self.shared.index, key)
    }

    fn put_repeat(&mut self, key: RepeatKey, repeat: Repeat) {
        self.staged.put_repeat(key, repeat);
    }

    fn next_counter(&mut self) -> u64 {
        let counter = self.staged.sequences.next_half;
        self.staged.count(|sequences| &mut sequences.next_half, 1);
        counter
    }

    fn group_id(&mut self, group: &str) -> u32 {
        if let Some(known) = self.shared.producers.get(group) {
            return known.id;
        }
        let id = self.staged.sequences.next_producer;
        let next = id.checked_add(1);
        self.staged.sequences.next_producer = next.unwrap_or(id);
        self.staged
            .promise(next.is_some(), Promise::CountersHold, || "no number is left for a producer group".to_owned());
        let row = ProducerRow {
            id,
            open: 0,
            parked: 0,
            further: [0, 0],
            used_at: self.staged.stamp(),
            name: group.to_owned(),
        };
        self.staged.producers.insert(id, self.shared.producers.put(&row));
        id
    }

    fn with_topic<T>(&self, queue: QueueId, with: impl FnOnce(TopicRef<'_>) -> T) -> Option<T> {
        let queue = self.shared.topics.queue(queue)?;
        Some(with(TopicRef { name: &queue.topic, id: queue.topic_id }))
    }

    /// A half that was moved has a pin of its own.
    fn release(&mut self, row: &HalfRow) {
        if row.position != row.half.position() {
            index::pin::delete(&mut self.staged.rows, row.position);
        }
    }

    fn is_gone(&self, row: &HalfRow) -> bool {
        // Set by a command that is an entry of its own, so every replica sees the same here.
        row.position < self.shared.counters.trimmed()
    }

    fn deliver(&mut self, row: &HalfRow, (position, length): Extent) -> Option<(QueueId, QueueOffset)> {
        let queue = self.shared.topics.queue(row.queue)?;
        let (tag_hash, flags, half) = (row.tag_hash, EntryFlags::COMMITTED, row.half);
        let place = Place { queue: &queue, position, length, tag_hash, flags, half };
        if let Some(due) = due(self.staged, row.when) {
            place.wait(self.staged, due);
            return None;
        }
        let (entered, offset) = place.enter_seen(self.shared, self.staged);
        Some((entered.id, offset))
    }

    fn note(&mut self, noted: Noted) {
        let counter = match noted {
            Noted::RepeatedHalf => &self.shared.counters.repeated_halves,
            Noted::RefusedOpposite => &self.shared.counters.refused_opposites,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Step<'_> {
    pub(super) fn prepare(&mut self, prepare: &Prepare<'_>) -> Result<Outcome, IndexError> {
        let (position, length) = extent(self.staged, &prepare.message);
        if planted(Bug::HalfInQueue)
            && let Some(queue) = self.shared.topics.queue(prepare.queue)
        {
            let (tag_hash, flags) = (prepare.message.tag_hash, EntryFlags::COMMITTED);
            Place { queue: &queue, position, length, tag_hash, flags, half: HalfId::at(position) }
                .enter_now(self.staged);
        }
        life::prepare(self, prepare, (position, length))
    }

    pub(super) fn settle(&mut self, settle: &Settle<'_>) -> Result<Outcome, IndexError> {
        let rewritten = settle.rewritten.iter().map(|(half, message)| (*half, extent(self.staged, message)));
        let rewritten: Vec<_> = rewritten.collect();
        life::settle(self, settle, &rewritten)
    }

    pub(super) fn checked(&mut self, checked: &Checked<'_>) -> Result<Outcome, IndexError> {
        let outcome = life::checked(self, checked)?;
        let first_checked = &mut self.staged.sequences.first_checked;
        *first_checked = (*first_checked).max(checked.first_checked_upto.unwrap_or(HalfId::ZERO));
        Ok(outcome)
    }

    pub(super) fn extend(&mut self, extend: &Extend<'_>) -> Result<Outcome, IndexError> {
        life::extend(self, extend)
    }

    pub(super) fn park(&mut self, park: &Park<'_>) -> Result<Outcome, IndexError> {
        life::park(self, park)
    }

    pub(super) fn resume(&mut self, resume: &Resume<'_>) -> Result<Outcome, IndexError> {
        life::resume(self, resume)
    }
}

/// Groups without halves whose last decisions are forgotten, too.
pub(super) fn forget_producers(shared: &Shared, staged: &mut Staged, unused_since: Stamp) {
    for group in shared.producers.all() {
        if group.open() == 0 && group.parked() == 0 && group.used_at() < unused_since {
            index::producer::delete(&mut staged.rows, group.id);
            if let Entry::Occupied(changed) = staged.producers.entry(group.id) {
                changed.remove();
            }
            shared.producers.remove(&group);
        }
    }
}

/// Rows of the groups whose halves changed.
pub(super) fn put_producers(staged: &mut Staged) {
    let changed: Vec<Arc<_>> = staged.producers.drain().map(|(_, group)| group).collect();
    for group in changed {
        group.row().put(&mut staged.rows);
    }
}
