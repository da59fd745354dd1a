//! The changes of the commands at hand, before they are written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::index::half::{Repeat, RepeatKey};
use crate::index::meta::{Applied, Sequences};
use crate::index::{self, DecisionRow, HalfRow, IndexBatch, IndexError, IndexReader, PageBuilder, QueueEntry};
use crate::latch::{Broken, Promise};
use crate::planted::{Bug, planted};
use crate::raft::CommittedEntry;
use crate::shard::batch::Batch;
use crate::shard::counters::Signals;
use crate::shard::producers::ProducerGroup;
use crate::shard::shared::Shared;
use crate::shard::topic::{Queue, Topic};
use crate::terms::{GroupSettings, HalfId, LostRange, Position, QueueId, QueueOffset, Stamp};

/// A change of what handlers read, made visible after the write.
pub(in crate::shard) enum RegistryChange {
    PutTopic(Topic),
    RemoveTopic(String),
    PutGroup(GroupSettings),
    RemoveGroup(String),
    GiveUp(LostRange),
    Settings(Vec<(String, String)>),
    Level(u32),
}

/// Rows, pages and overlays of one index write.
pub(in crate::shard) struct Staged {
    pub(in crate::shard) rows: IndexBatch,
    pub(in crate::shard) sequences: Sequences,
    pub(in crate::shard) registry: Vec<RegistryChange>,
    pub(in crate::shard) halves_changed: bool,
    pub(in crate::shard) timers_changed: bool,
    /// Queues that lost entries, with their new first offset and the log position of what is the oldest now.
    pub(in crate::shard) trimmed: Vec<(Arc<Queue>, QueueOffset, Position)>,
    /// Bytes below may go, as of this write.
    pub(in crate::shard) kept: Option<Position>,
    pages: HashMap<QueueId, (Arc<Queue>, PageBuilder)>,
    /// Queues whose pages were put into the rows, with their new ends and the bytes of the messages that entered.
    grown: Vec<(Arc<Queue>, QueueOffset, u64)>,
    /// Halves as changed by the commands at hand; `None` is decided.
    halves: HashMap<HalfId, Option<HalfRow>>,
    decisions: HashMap<HalfId, DecisionRow>,
    repeats: HashMap<RepeatKey, Repeat>,
    /// Producer groups whose counts changed.
    pub(in crate::shard) producers: HashMap<u32, Arc<ProducerGroup>>,
    applied: Option<Applied>,
    stamp: Stamp,
    payload_position: Position,
    /// The first promise that the commands at hand would break.
    broken: Option<Broken>,
}

impl Staged {
    /// Nothing is staged yet, after what was applied before.
    pub(in crate::shard) fn new(sequences: Sequences, applied: Option<Applied>) -> Self {
        Self {
            rows: IndexBatch::default(),
            sequences,
            registry: Vec::new(),
            halves_changed: false,
            timers_changed: false,
            trimmed: Vec::new(),
            kept: None,
            pages: HashMap::new(),
            grown: Vec::new(),
            halves: HashMap::new(),
            decisions: HashMap::new(),
            repeats: HashMap::new(),
            producers: HashMap::new(),
            applied,
            stamp: applied.map_or(Stamp::ZERO, |applied| applied.stamp),
            payload_position: Position::ZERO,
            broken: None,
        }
    }

    /// The commands that follow are of this batch and lie at this place. Time never goes back.
    pub(in crate::shard) fn begin_entry(&mut self, batch: &Batch<'_>, payload_position: Position) {
        self.stamp = self.stamp.max(batch.stamp);
        self.payload_position = payload_position;
    }

    /// The entry must follow the one before.
    pub(in crate::shard) fn check_follows(&mut self, entry: &CommittedEntry) {
        let Some(before) = self.applied else { return };
        self.payload_position = entry.payload_position;
        self.promise(entry.index == before.index.next(), Promise::AppliedByOne, || {
            format!("entry {} comes after entry {}", entry.index, before.index)
        });
        let follows = entry.payload_position >= before.end && entry.end >= entry.payload_position;
        self.promise(follows && entry.term >= before.term, Promise::PositionsRise, || {
            let (from, to) = (entry.payload_position, entry.end);
            format!("term {} at {from} to {to} comes after term {} up to {}", entry.term, before.term, before.end)
        });
    }

    /// All commands of the entry are staged.
    pub(in crate::shard) fn end_entry(&mut self, entry: &CommittedEntry) {
        let before = self.applied.map_or(Stamp::ZERO, |applied| applied.stamp);
        let stamp = self.stamp;
        self.promise(stamp >= before, Promise::StampsRise, || format!("{stamp} after {before}"));
        let (term, index, end) = (entry.term, entry.index, entry.end);
        self.applied = Some(Applied { term, index, end, stamp: self.stamp });
    }

    /// How far the write will have applied.
    pub(in crate::shard) fn applied(&self) -> Option<Applied> {
        self.applied
    }

    /// Looks at a promise. If it does not hold, nothing of what is staged is written.
    pub(in crate::shard) fn promise(&mut self, holds: bool, promise: Promise, found: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            let position = Some(self.payload_position);
            self.broken = Some(Broken { promise, entry: None, position, found: found() });
        }
    }

    /// The first promise that does not hold.
    pub(in crate::shard) fn broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }

    /// Changes a counter of the state.
    pub(in crate::shard) fn count(&mut self, counter: fn(&mut Sequences) -> &mut u64, by: i64) {
        let counter = counter(&mut self.sequences);
        let before = *counter;
        match before.checked_add_signed(by) {
            Some(after) => *counter = after,
            None => self.promise(false, Promise::CountersHold, || format!("a counter of {before} changes by {by}")),
        }
    }

    /// The time that apply takes for now.
    pub(in crate::shard) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The log position of a byte of the payload at hand.
    pub(in crate::shard) fn position(&self, at: usize) -> Position {
        self.payload_position.advance(at as u64)
    }

    /// Adds an entry to a queue and says its offset.
    pub(in crate::shard) fn push(&mut self, queue: &Arc<Queue>, entry: &QueueEntry) -> QueueOffset {
        let visible_at = self.payload_position;
        let (_, page) = self
            .pages
            .entry(queue.id)
            .or_insert_with(|| (Arc::clone(queue), PageBuilder::new(queue.max_offset(), visible_at)));
        page.push(entry)
    }

    /// Puts what entered queues into the rows of the write.
    pub(in crate::shard) fn put_pages(&mut self, rows: &mut IndexBatch) {
        let mut fallen = Vec::new();
        for (id, (queue, page)) in self.pages.drain() {
            let (end, next) = (queue.max_offset(), page.next_offset());
            if next < end {
                fallen.push(format!("{id} ends at {end} and would end at {next}"));
            }
            self.grown.push((queue, next, page.message_bytes()));
            page.put(id, rows);
        }
        for (queue, min, _) in &self.trimmed {
            if *min < queue.min_offset() {
                fallen.push(format!("{} begins at {} and would begin at {min}", queue.id, queue.min_offset()));
            }
        }
        self.promise(fallen.is_empty(), Promise::QueueEndsRise, || fallen.join(", "));
    }

    /// An undecided half, as the commands so far left it.
    pub(in crate::shard) fn half(&self, index: &IndexReader, half: HalfId) -> Result<Option<HalfRow>, IndexError> {
        match self.halves.get(&half) {
            Some(row) => Ok(row.clone()),
            None => index::half::get(index, half),
        }
    }

    /// Moves a half from one state to another; see [`index::half::replace`].
    pub(in crate::shard) fn replace_half(&mut self, old: Option<&HalfRow>, new: Option<HalfRow>) {
        index::half::replace(&mut self.rows, old, new.as_ref());
        self.halves_changed |= new.is_some();
        if let Some(half) = old.or(new.as_ref()).map(|row| row.half) {
            let decided = new.is_some() && self.decisions.contains_key(&half);
            self.promise(!decided, Promise::HalfOrDecision, || format!("half {half} is decided and gets a row"));
            self.halves.insert(half, new);
        }
    }

    pub(in crate::shard) fn decision(
        &self,
        index: &IndexReader,
        half: HalfId,
    ) -> Result<Option<DecisionRow>, IndexError> {
        match self.decisions.get(&half) {
            Some(row) => Ok(Some(row.clone())),
            None => index::decision::get(index, half),
        }
    }

    pub(in crate::shard) fn put_decision(&mut self, half: HalfId, row: DecisionRow) {
        if !planted(Bug::DecisionLost) {
            row.put(half, self.sequences.decisions, &mut self.rows);
        }
        let undecided = self.halves.get(&half).is_some_and(Option::is_some);
        self.promise(!undecided, Promise::HalfOrDecision, || format!("half {half} has a row and is decided"));
        self.count(|sequences| &mut sequences.decisions, 1);
        self.decisions.insert(half, row);
    }

    /// The send that a half with this key would repeat.
    pub(in crate::shard) fn repeat(&self, index: &IndexReader, key: RepeatKey) -> Result<Option<Repeat>, IndexError> {
        let repeat = match self.repeats.get(&key) {
            Some(repeat) => Some(*repeat),
            None => index::half::get_repeat(index, key)?,
        };
        Ok(repeat.filter(|repeat| !repeat.has_ended(self.stamp)))
    }

    pub(in crate::shard) fn put_repeat(&mut self, key: RepeatKey, repeat: Repeat) {
        repeat.put(key, &mut self.rows);
        self.repeats.insert(key, repeat);
    }

    /// After the write: lets readers see it, and empties this for the next write. Returns the queues that grew.
    pub(in crate::shard) fn publish(&mut self, shared: &Shared) -> Vec<Arc<Queue>> {
        for change in self.registry.drain(..) {
            match change {
                RegistryChange::PutTopic(topic) => shared.topics.put(topic),
                RegistryChange::RemoveTopic(name) => shared.topics.remove(&name),
                RegistryChange::PutGroup(group) => shared.groups.put(group),
                RegistryChange::RemoveGroup(name) => shared.groups.remove(&name),
                RegistryChange::GiveUp(range) => shared.lost.add(range),
                RegistryChange::Settings(values) => shared.agreement.change(|agreed| agreed.settings.extend(values)),
                RegistryChange::Level(level) => shared.agreement.change(|agreed| agreed.level = level),
            }
            shared.signals.topics.notify_one();
        }
        for (queue, min, oldest) in self.trimmed.drain(..) {
            queue.trim(min, oldest);
        }
        if let Some(upto) = self.kept.take() {
            shared.counters.set_trimmed(upto);
        }
        self.halves.clear();
        self.decisions.clear();
        self.repeats.clear();
        let grown = self.grown.drain(..);
        grown
            .map(|(queue, end, bytes)| {
                queue.note_entered(bytes);
                queue.publish(queue.min_offset(), end);
                queue
            })
            .collect()
    }

    pub(in crate::shard) fn signal(&mut self, signals: &Signals) {
        if std::mem::take(&mut self.halves_changed) {
            signals.halves.notify_one();
        }
        if std::mem::take(&mut self.timers_changed) {
            signals.timers.notify_one();
        }
    }

    /// Forgets a queue's page, because its topic is being deleted.
    pub(in crate::shard) fn drop_page(&mut self, queue: QueueId) {
        if let Entry::Occupied(page) = self.pages.entry(queue) {
            page.remove();
        }
    }
}
