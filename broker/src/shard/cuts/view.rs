//! A shard's visible state, as plain values: the model predicts it, and a recovered shard is asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::BytesMut;
use escrowmq_common::message::MessageUnit;

use crate::index::{self, IndexReader, table};
use crate::shard::{Agreed, HalfQuery, Shard};
use crate::terms::{Decision, HalfId, ParkReason, Position, QueueId, QueueOffset, Stamp, When};

/// A queue: the number of its first message that is kept, and its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct QueueView {
    pub(in crate::shard) min: QueueOffset,
    pub(in crate::shard) entries: Vec<EntryView>,
}

/// A message in a queue; its number follows from its place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct EntryView {
    /// Empty if its bytes lie below what was trimmed: they may be gone.
    pub(in crate::shard) body: String,
    /// The unique key among the properties, or empty likewise.
    pub(in crate::shard) key: String,
    pub(in crate::shard) position: Position,
    pub(in crate::shard) store_time: Stamp,
    pub(in crate::shard) committed: bool,
    pub(in crate::shard) half: HalfId,
}

/// An undecided half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct HalfView {
    /// Where its bytes are.
    pub(in crate::shard) position: Position,
    pub(in crate::shard) counter: u64,
    pub(in crate::shard) queue: u32,
    pub(in crate::shard) body: String,
    pub(in crate::shard) unique_id: String,
    pub(in crate::shard) when: When,
    pub(in crate::shard) prepared_at: Stamp,
    pub(in crate::shard) next_due: Option<Stamp>,
    pub(in crate::shard) checks: u32,
    /// Whom the checks went to.
    pub(in crate::shard) asked: Vec<(Stamp, String)>,
    pub(in crate::shard) first_half: Option<HalfId>,
    pub(in crate::shard) members: Vec<HalfId>,
    /// The acts of operators: when, and whether it was to park it.
    pub(in crate::shard) acts: Vec<(Stamp, bool)>,
    pub(in crate::shard) parked: Option<(ParkReason, Stamp)>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct DecisionView {
    pub(in crate::shard) decision: Decision,
    pub(in crate::shard) queue: u32,
    pub(in crate::shard) offset: Option<QueueOffset>,
    pub(in crate::shard) counter: u64,
    pub(in crate::shard) at: Stamp,
    pub(in crate::shard) checks: u32,
    pub(in crate::shard) asked: Vec<(Stamp, String)>,
    pub(in crate::shard) acts: Vec<(Stamp, bool)>,
    pub(in crate::shard) first_half: Option<HalfId>,
    pub(in crate::shard) members: Vec<HalfId>,
}

/// A message that waits for its time, by due time and position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct TimerView {
    pub(in crate::shard) queue: u32,
    pub(in crate::shard) body: String,
    pub(in crate::shard) key: String,
    pub(in crate::shard) committed: bool,
    pub(in crate::shard) half: HalfId,
}

/// Counts that must add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Counts {
    pub(in crate::shard) open: u64,
    pub(in crate::shard) parked: u64,
    pub(in crate::shard) committed: u64,
    pub(in crate::shard) rolled_back: u64,
    pub(in crate::shard) next_half: u64,
    pub(in crate::shard) next_timer: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct View {
    pub(in crate::shard) topics: BTreeMap<String, Vec<u32>>,
    pub(in crate::shard) queues: BTreeMap<u32, QueueView>,
    pub(in crate::shard) halves: BTreeMap<HalfId, HalfView>,
    pub(in crate::shard) decisions: BTreeMap<HalfId, DecisionView>,
    pub(in crate::shard) timers: BTreeMap<(Stamp, Position), TimerView>,
    pub(in crate::shard) offsets: BTreeMap<(String, u32), QueueOffset>,
    pub(in crate::shard) groups: BTreeSet<String>,
    pub(in crate::shard) agreed: Agreed,
    /// Ends and messages of the ranges that were given up, by their beginnings.
    pub(in crate::shard) lost: BTreeMap<Position, (Position, u64)>,
    /// Client and end of the lock on a queue, by group and queue.
    pub(in crate::shard) locks: BTreeMap<(String, u32), (String, Stamp)>,
    /// Below this log position nothing is kept.
    pub(in crate::shard) trimmed: Position,
    /// Undecided halves with an id below have been moved.
    pub(in crate::shard) moved_halves: HalfId,
    pub(in crate::shard) counts: Counts,
}

impl View {
    /// The visible state of the shard now; an error says what could not be read.
    pub(in crate::shard) fn of(shard: &Shard) -> Result<View, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let kept = index::meta::kept(shard.index()).map_err(|error| told(&error))?;
        let mut view = View { trimmed: kept.trimmed, moved_halves: kept.moved_halves, ..View::default() };
        for range in shard.lost().ranges().iter() {
            view.lost.insert(range.positions.start, (range.positions.end, range.messages));
        }
        for topic in shard.topics().all() {
            view.topics.insert(topic.settings.name.clone(), topic.queues.iter().map(|queue| queue.id.0).collect());
            for queue in &topic.queues {
                let found = shard
                    .entries(queue, QueueOffset::ZERO, usize::MAX, usize::MAX, |_| true)
                    .map_err(|error| told(&error))?;
                let mut entries = Vec::with_capacity(found.wanted.len());
                for (expected, entry) in (queue.min_offset().0..).zip(&found.wanted) {
                    if entry.offset != QueueOffset(expected) {
                        return Err(format!("{}: offset {} where {expected} is due", queue.id, entry.offset));
                    }
                    let mut out = BytesMut::new();
                    let (mut text, mut key) = (String::new(), String::new());
                    match shard.unit(queue, entry, &mut out) {
                        Ok(()) if entry.position < kept.trimmed => {}
                        Ok(()) => (text, key) = body(&out)?,
                        Err(error) if error.is_gone() && entry.position < kept.trimmed => {}
                        Err(error) => return Err(format!("{}:{}: {error}", queue.id, entry.offset)),
                    }
                    entries.push(EntryView {
                        body: text,
                        key,
                        position: entry.position,
                        store_time: entry.store_time,
                        committed: entry.flags.is_committed(),
                        half: entry.half,
                    });
                }
                if queue.max_offset().since(queue.min_offset()) != entries.len() as u64 {
                    return Err(format!("{}: {} entries up to {}", queue.id, entries.len(), queue.max_offset()));
                }
                view.queues.insert(queue.id.0, QueueView { min: queue.min_offset(), entries });
            }
        }
        view.groups = shard.groups().all().iter().map(|group| group.name.clone()).collect();
        view.add_rows(shard, shard.index())?;
        let counters = shard.counters();
        view.counts = Counts {
            open: counters.open_halves(),
            parked: counters.parked_halves(),
            committed: counters.committed(),
            rolled_back: counters.rolled_back(),
            next_half: counters.next_half(),
            next_timer: counters.next_timer(),
        };
        if counters.timers() != view.timers.len() as u64 {
            return Err(format!("{} timers are counted, {} are there", counters.timers(), view.timers.len()));
        }
        let open = view.halves.values().filter(|half| half.parked.is_none()).count() as u64;
        if (open, view.halves.len() as u64 - open) != (view.counts.open, view.counts.parked) {
            return Err(format!("{:?} are counted, {open} of {} halves are open", view.counts, view.halves.len()));
        }
        view.check_listings(shard)?;
        Ok(view)
    }

    /// Listings show the same halves, and groups count them.
    fn check_listings(&self, shard: &Shard) -> Result<(), String> {
        for parked in [None, Some(false), Some(true)] {
            let wanted = |half: &HalfView| parked.is_none_or(|parked| parked == half.parked.is_some());
            let there: Vec<HalfId> =
                self.halves.iter().filter(|(_, half)| wanted(half)).map(|(half, _)| *half).collect();
            for group in [None, Some(super::act::PRODUCERS)] {
                let query = HalfQuery { group, parked, ..HalfQuery::default() };
                let listed = shard.halves(&query, usize::MAX).map_err(|error| error.to_string())?;
                let listed: Vec<HalfId> = listed.iter().map(|row| row.half).collect();
                if listed != there {
                    return Err(format!("{query:?} lists {listed:?} of {there:?}"));
                }
            }
        }
        let firsts = |parked: bool| {
            let is_one = |half: &&HalfView| half.first_half.is_none() && half.parked.is_some() == parked;
            self.halves.values().filter(is_one).count() as u64
        };
        let counted = shard.producers().get(super::act::PRODUCERS);
        let counted = counted.map_or((0, 0), |group| (group.transactions(false), group.transactions(true)));
        if counted != (firsts(false), firsts(true)) {
            return Err(format!("{counted:?} transactions are counted, {:?} are there", (firsts(false), firsts(true))));
        }
        let counted =
            shard.producers().get(super::act::PRODUCERS).map_or((0, 0), |group| (group.open(), group.parked()));
        if counted != (self.counts.open, self.counts.parked) {
            return Err(format!("the group counts {counted:?} halves, {:?} are there", self.counts));
        }
        Ok(())
    }

    fn add_rows(&mut self, shard: &Shard, index: &IndexReader) -> Result<(), String> {
        let told = |error: index::IndexError| error.to_string();
        let mut rows = Vec::new();
        index::half::scan(index, HalfId::ZERO, |row| {
            rows.push(row);
            true
        })
        .map_err(told)?;
        for row in rows {
            let mut out = BytesMut::new();
            shard.half_unit(&row, &mut out).map_err(|error| error.to_string())?;
            let half = HalfView {
                position: row.position,
                counter: row.counter,
                queue: row.queue.0,
                body: body(&out)?.0,
                unique_id: row.unique_id,
                when: row.when,
                prepared_at: row.prepared_at,
                next_due: row.next_due,
                checks: row.checks,
                asked: row.asked.into_iter().map(|asked| (asked.at, asked.client)).collect(),
                first_half: row.first_half,
                members: row.members,
                acts: row.acts.into_iter().map(|act| (act.at, act.parked)).collect(),
                parked: row.parked,
            };
            self.halves.insert(row.half, half);
        }
        let mut unfound = None;
        let shown = index::decision::for_all(index, |half, row| {
            if !index::decision::get(index, half).is_ok_and(|found| found.as_ref() == Some(&row)) {
                unfound = Some(half);
            }
            let decision = DecisionView {
                decision: row.decision,
                queue: row.queue.0,
                offset: row.offset,
                counter: row.counter,
                at: row.at,
                checks: row.checks,
                asked: row.asked.into_iter().map(|asked| (asked.at, asked.client)).collect(),
                acts: row.acts.into_iter().map(|act| (act.at, act.parked)).collect(),
                first_half: row.first_half,
                members: row.members,
            };
            self.decisions.insert(half, decision);
        });
        shown.map_err(told)?;
        if let Some(half) = unfound {
            return Err(format!("the decision on half {half} is listed and not found"));
        }
        for row in index::timer::due(index, Stamp::ZERO, Stamp(u64::MAX - 1), usize::MAX).map_err(told)? {
            let stored = shard.log().read(row.position.back(16).expect("its head"), row.length as usize + 16);
            let stored = stored.map_err(|error| error.to_string())?;
            // Nobody is served these bytes yet; whoever looks at them checks them.
            if crc32fast::hash(&stored[16..]).to_be_bytes() != stored[12..16] {
                return Err(format!("the message at {} does not match its checksum", row.position));
            }
            let (body, key) = body(&stored[16..])?;
            let timer =
                TimerView { queue: row.queue.0, body, key, committed: row.flags.is_committed(), half: row.half };
            self.timers.insert((row.due, row.position), timer);
        }
        for row in index.scan_prefix(&[table::OFFSET], &[table::OFFSET]) {
            let key = row.map_err(told)?.0;
            let (group, queue) = (&key[3..key.len() - 4], &key[key.len() - 4..]);
            let group = String::from_utf8_lossy(group).into_owned();
            let queue = QueueId(u32::from_be_bytes(queue.try_into().expect("four bytes")));
            let offset = index::offset::get(index, &group, queue).map_err(told)?.ok_or("an offset's row")?;
            self.offsets.insert((group, queue.0), offset);
        }
        for row in index.scan_prefix(&[table::LOCK], &[table::LOCK]) {
            let key = row.map_err(told)?.0;
            let (group, queue) = (&key[3..key.len() - 4], &key[key.len() - 4..]);
            let group = String::from_utf8_lossy(group).into_owned();
            let queue = QueueId(u32::from_be_bytes(queue.try_into().expect("four bytes")));
            let lock = index::offset::get_lock(index, &group, queue).map_err(told)?.ok_or("a lock's row")?;
            self.locks.insert((group, queue.0), (lock.client, lock.until));
        }
        let (level, settings) = (index::meta::level(index).map_err(told)?, index::meta::settings(index).map_err(told)?);
        self.agreed = Agreed { level, settings };
        if self.agreed != *shard.agreed() {
            return Err(format!("{:?} is shown, and the index has {:?}", shard.agreed(), self.agreed));
        }
        Ok(())
    }

    /// In which parts two views differ, in words; empty if they are equal.
    pub(in crate::shard) fn differences(&self, found: &View) -> String {
        let mut text = String::new();
        let mut part = |name: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug, same: bool| {
            if !same {
                let _ = writeln!(text, "{name}:\n  expected {expected:?}\n  found    {found:?}");
            }
        };
        part("topics", &self.topics, &found.topics, self.topics == found.topics);
        for queue in self.queues.keys().chain(found.queues.keys()).collect::<BTreeSet<_>>() {
            let (expected, found) = (self.queues.get(queue), found.queues.get(queue));
            part(&format!("queue {queue}"), &expected, &found, expected == found);
        }
        part("halves", &self.halves, &found.halves, self.halves == found.halves);
        part("decisions", &self.decisions, &found.decisions, self.decisions == found.decisions);
        part("timers", &self.timers, &found.timers, self.timers == found.timers);
        part("offsets", &self.offsets, &found.offsets, self.offsets == found.offsets);
        part("groups", &self.groups, &found.groups, self.groups == found.groups);
        part("agreed", &self.agreed, &found.agreed, self.agreed == found.agreed);
        part("lost", &self.lost, &found.lost, self.lost == found.lost);
        part("locks", &self.locks, &found.locks, self.locks == found.locks);
        part("trimmed", &self.trimmed, &found.trimmed, self.trimmed == found.trimmed);
        part("moved halves", &self.moved_halves, &found.moved_halves, self.moved_halves == found.moved_halves);
        part("counts", &self.counts, &found.counts, self.counts == found.counts);
        text
    }
}

/// Body and unique key of a unit. Its checksums are the shard's business: what it serves is compared with what it should be.
fn body(unit: &[u8]) -> Result<(String, String), String> {
    let unit = MessageUnit::decode(unit).map_err(|error| error.to_string())?;
    let key = unit.property("UNIQ_KEY").unwrap_or_default().to_owned();
    Ok((String::from_utf8_lossy(unit.body()).into_owned(), key))
}
