//! What a shard must be after some commands: the promises once more, in plain maps, by nobody who wrote apply.
//!
//! The model predicts each outcome. Two things it takes from the outcome itself, as no promise says what they are: the
//! position of a message in the log, and the time. Of commands whose outcome names no position the log itself tells it.

use std::collections::{BTreeMap, BTreeSet};

use super::act::{Act, PRODUCERS, Place, WINDOW_MS};
use super::view::{DecisionView, EntryView, HalfView, QueueView, TimerView, View};
use crate::index::pin::PinOwner;
use crate::shard::{Decision, Outcome, ParkReason, Prepared, Published, QueueId, Refusal, Settled, When};

/// The state after some commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) view: View,
    /// Topic of each queue that exists, and its number there.
    pub(super) places: BTreeMap<u32, Place>,
    /// Repeated sends: (topic, unique id) to the half, the checksum of its body, and until when if it is decided.
    repeats: BTreeMap<(String, String), (u64, u32, Option<u64>)>,
    /// Decisions made before are forgotten.
    forgotten: u64,
    next_queue: u32,
}

impl Model {
    /// What the command must answer at this time; `got` says where messages lie, and `places` where those
    /// do that were written anew.
    pub(super) fn apply(&mut self, act: &Act, now: u64, got: &Outcome, places: &[u64]) -> Outcome {
        match act {
            Act::PutTopic { name, queues } => {
                let had = self.view.topics.entry(name.clone()).or_default();
                while had.len() < *queues as usize {
                    had.push(self.next_queue);
                    self.places.insert(self.next_queue, (name.clone(), had.len() as i32 - 1));
                    self.view.queues.insert(self.next_queue, QueueView::default());
                    self.next_queue += 1;
                }
                Outcome::Done
            }
            Act::DeleteTopic { name } => self.delete_topic(name, now),
            Act::PutGroup { name } => {
                self.view.groups.insert(name.clone());
                Outcome::Done
            }
            Act::DeleteGroup { name, offsets } => {
                if *offsets {
                    self.view.offsets.retain(|(group, _), _| group != name);
                }
                if self.view.groups.remove(name) {
                    Outcome::Done
                } else {
                    Outcome::Refused(Refusal::NoSuchGroup(name.clone()))
                }
            }
            Act::Publish { queue, when, bodies, .. } => self.publish(*queue, *when, bodies, now, got),
            Act::Prepare { queue, when, unique_id, body, .. } => self.prepare(*queue, *when, unique_id, body, now, got),
            Act::Settle { half, counter, group, decision, rewritten } => {
                let place = rewritten.as_ref().map(|_| places[0]);
                self.settle(*half, *counter, group, *decision, place, now)
            }
            Act::Checked { halves } => {
                let mut handled = 0;
                for each in halves {
                    if let Some(half) = self.view.halves.get_mut(&each.half).filter(|half| half.parked.is_none()) {
                        half.next_due = each.next_due;
                        half.checks += u32::from(each.counts);
                        handled += 1;
                    }
                }
                Outcome::Handled(handled)
            }
            Act::Park { half } => match self.view.halves.get_mut(half) {
                None => Outcome::Refused(Refusal::NoSuchHalf(*half)),
                Some(row) => {
                    if row.parked.is_none() {
                        row.parked = Some((ParkReason::Operator, now));
                        self.view.counts.open -= 1;
                        self.view.counts.parked += 1;
                    }
                    Outcome::Done
                }
            },
            Act::Resume { half, only_if } => {
                let Some(row) = self.view.halves.get_mut(half) else {
                    return Outcome::Refused(Refusal::NoSuchHalf(*half));
                };
                let reason = row.parked.map(|(reason, _)| reason);
                if reason.is_none() || only_if.is_some_and(|only| Some(only) != reason) {
                    return Outcome::Refused(Refusal::NotParked(reason));
                }
                row.parked = None;
                row.checks = 0;
                row.next_due = now;
                self.view.counts.parked -= 1;
                self.view.counts.open += 1;
                Outcome::Done
            }
            Act::Offsets(commits) => {
                for (group, queue, offset) in commits {
                    if self.places.contains_key(queue) {
                        self.view.offsets.insert((group.clone(), *queue), *offset);
                    }
                }
                Outcome::Done
            }
            Act::Fire { upto, limit } => self.fire(*upto, *limit, now),
            Act::Cancel { due, position } => {
                let waits = self.view.timers.get(&(*due, *position)).is_some_and(|timer| !timer.committed);
                if waits {
                    self.view.timers.remove(&(*due, *position));
                }
                Outcome::Handled(u32::from(waits))
            }
            Act::Expire { decided_before } => self.expire(*decided_before),
            Act::Setting { key, value } => {
                self.view.settings.insert(key.clone(), value.clone());
                Outcome::Done
            }
            Act::Lock { group, client, life, queues } => {
                let mut held = Vec::new();
                for queue in queues {
                    let key = (group.clone(), *queue);
                    let other = self.view.locks.get(&key).filter(|(owner, until)| owner != client && *until > now);
                    if other.is_none() {
                        self.view.locks.insert(key, (client.clone(), now + life));
                        held.push(QueueId(*queue));
                    }
                }
                Outcome::Locked(held)
            }
            Act::Unlock { group, client, queues } => {
                for queue in queues {
                    let key = (group.clone(), *queue);
                    if self.view.locks.get(&key).is_some_and(|(owner, _)| owner == client) {
                        self.view.locks.remove(&key);
                    }
                }
                Outcome::Done
            }
            Act::Trim { upto } => {
                self.trim(*upto);
                Outcome::Done
            }
            Act::Roll { halves_upto, moved } => {
                let moved = moved.iter().zip(places).filter(|((owner, from, ..), to)| self.roll(*owner, *from, **to));
                let moved = moved.count() as u32;
                self.view.moved_halves = self.view.moved_halves.max(*halves_upto);
                Outcome::Handled(moved)
            }
        }
    }

    /// The oldest messages go whose bytes lie below the cut, unless somebody needs bytes below it.
    fn trim(&mut self, upto: u64) {
        let halves = self.view.halves.values().map(|half| half.position);
        let needed = halves.chain(self.view.timers.keys().map(|(_, position)| *position)).min();
        let upto = upto.min(needed.unwrap_or(u64::MAX));
        if upto <= self.view.trimmed {
            return;
        }
        self.view.trimmed = upto;
        for queue in self.view.queues.values_mut() {
            let goes = queue.entries.iter().take_while(|entry| entry.position < upto).count();
            queue.entries.drain(..goes);
            queue.min += goes as u64;
            for entry in queue.entries.iter_mut().filter(|entry| entry.position < upto) {
                (entry.body, entry.key) = (String::new(), String::new());
            }
        }
    }

    /// Says whether there was something to move.
    fn roll(&mut self, owner: PinOwner, from: u64, to: u64) -> bool {
        match owner {
            PinOwner::Half { half } => {
                let row = self.view.halves.get_mut(&half).filter(|row| row.position == from);
                row.map(|row| row.position = to).is_some()
            }
            PinOwner::Timer { due } => {
                let row = self.view.timers.remove(&(due, from));
                row.map(|row| self.view.timers.insert((due, to), row)).is_some()
            }
        }
    }

    fn delete_topic(&mut self, name: &str, now: u64) -> Outcome {
        let Some(queues) = self.view.topics.remove(name) else {
            return Outcome::Refused(Refusal::NoSuchTopic(name.to_owned()));
        };
        for half in self.view.halves.values_mut() {
            if half.parked.is_none() && queues.contains(&half.queue) {
                half.parked = Some((ParkReason::TopicDeleted, now));
                self.view.counts.open -= 1;
                self.view.counts.parked += 1;
            }
        }
        for queue in queues {
            self.places.remove(&queue);
            self.view.queues.remove(&queue);
        }
        Outcome::Done
    }

    fn publish(&mut self, queue: u32, when: When, bodies: &[String], now: u64, got: &Outcome) -> Outcome {
        if !self.places.contains_key(&queue) {
            return Outcome::Refused(Refusal::NoSuchQueue(QueueId(queue)));
        }
        let Outcome::Published(at) = got else { panic!("published was {got:?}") };
        let positions: Vec<u64> = [at.position].into_iter().chain(at.more_positions.iter().copied()).collect();
        let due = due(when, now);
        let mut first = None;
        for (body, position) in bodies.iter().zip(&positions) {
            let number = self.enter(queue, (body, body), *position, due, None, now);
            first.get_or_insert(number);
        }
        Outcome::Published(Published {
            first_offset: first.expect("a publish has messages"),
            position: at.position,
            more_positions: at.more_positions.clone(),
            stamp: now,
            due,
        })
    }

    /// Enters the queue, or waits. Says the offset, or the number among those that waited.
    fn enter(
        &mut self,
        queue: u32,
        (body, key): (&str, &str),
        position: u64,
        due: Option<u64>,
        half: Option<u64>,
        now: u64,
    ) -> u64 {
        let committed = half.is_some();
        if let Some(due) = due {
            let timer = TimerView {
                queue,
                body: body.to_owned(),
                key: key.to_owned(),
                committed,
                half: half.unwrap_or(position),
            };
            self.view.timers.insert((due, position), timer);
            self.view.counts.next_timer += 1;
            return self.view.counts.next_timer - 1;
        }
        let QueueView { min, entries } = self.view.queues.get_mut(&queue).expect("the queue exists");
        let (body, key) = (body.to_owned(), key.to_owned());
        entries.push(EntryView { body, key, position, store_time: now, committed, half: half.unwrap_or(position) });
        *min + entries.len() as u64 - 1
    }

    fn prepare(&mut self, queue: u32, when: When, unique_id: &str, body: &str, now: u64, got: &Outcome) -> Outcome {
        let Some((topic, _)) = self.places.get(&queue) else {
            return Outcome::Refused(Refusal::NoSuchQueue(QueueId(queue)));
        };
        let key = (topic.clone(), unique_id.to_owned());
        let crc = crc32fast::hash(body.as_bytes());
        let remembered = self.repeats.get(&key).filter(|(_, _, ends)| ends.is_none_or(|ends| ends >= now));
        if let Some((half, first_crc, _)) = remembered.copied() {
            if first_crc != crc {
                return Outcome::Refused(Refusal::UniqueIdTaken(half));
            }
            let open = self.view.halves.get(&half).map(|row| (row.counter, row.prepared_at));
            let decided = self.view.decisions.get(&half);
            let committed = decided.filter(|row| row.decision == Decision::Commit).map(|row| (row.counter, row.at));
            if let Some((counter, stamp)) = open.or(committed) {
                return Outcome::Prepared(Prepared { half, counter, stamp, repeated: true });
            }
        }
        let Outcome::Prepared(Prepared { half, .. }) = got else { panic!("prepared was {got:?}") };
        let counter = self.view.counts.next_half;
        self.view.counts.next_half += 1;
        self.view.counts.open += 1;
        self.repeats.insert(key, (*half, crc, None));
        let row = HalfView {
            position: *half,
            counter,
            queue,
            body: body.to_owned(),
            unique_id: unique_id.to_owned(),
            when,
            prepared_at: now,
            next_due: 0,
            checks: 0,
            parked: None,
        };
        self.view.halves.insert(*half, row);
        Outcome::Prepared(Prepared { half: *half, counter, stamp: now, repeated: false })
    }

    /// `place` is where its bytes lie if the decision brought them along.
    fn settle(
        &mut self,
        half: u64,
        counter: u64,
        group: &str,
        decision: Decision,
        place: Option<u64>,
        now: u64,
    ) -> Outcome {
        let stranger = |own: u64| {
            if group != PRODUCERS {
                return Some(Refusal::WrongGroup(PRODUCERS.to_owned()));
            }
            (counter != own).then_some(Refusal::WrongCounter(own))
        };
        let Some(row) = self.view.halves.get(&half).cloned() else {
            let Some(first) = self.view.decisions.get(&half) else {
                return Outcome::Refused(Refusal::NoSuchHalf(half));
            };
            if let Some(refusal) = stranger(first.counter) {
                return Outcome::Refused(refusal);
            }
            let settled = Settled {
                decision: first.decision,
                queue: QueueId(first.queue),
                offset: first.offset,
                at: first.at,
                first: false,
            };
            if first.decision == decision {
                return Outcome::Settled(settled);
            }
            return Outcome::Refused(Refusal::AlreadyDecided(settled));
        };
        if let Some(refusal) = stranger(row.counter) {
            return Outcome::Refused(refusal);
        }
        let topic = self.places.get(&row.queue).map(|(topic, _)| topic.clone());
        let mut offset = None;
        if decision == Decision::Commit {
            if topic.is_none() {
                return Outcome::Refused(Refusal::NoSuchQueue(QueueId(row.queue)));
            }
            let due = due(row.when, now);
            let number =
                self.enter(row.queue, (&row.body, &row.unique_id), place.unwrap_or(row.position), due, Some(half), now);
            offset = due.is_none().then_some(number);
            self.view.counts.committed += 1;
        } else {
            self.view.counts.rolled_back += 1;
        }
        if row.parked.is_some() {
            self.view.counts.parked -= 1;
        } else {
            self.view.counts.open -= 1;
        }
        if let Some(topic) = topic {
            let crc = crc32fast::hash(row.body.as_bytes());
            self.repeats.insert((topic, row.unique_id), (half, crc, Some(now + WINDOW_MS)));
        }
        self.view.halves.remove(&half);
        let decided = DecisionView { decision, queue: row.queue, offset, counter: row.counter, at: now };
        self.view.decisions.insert(half, decided);
        Outcome::Settled(Settled { decision, queue: QueueId(row.queue), offset, at: now, first: true })
    }

    fn fire(&mut self, upto: u64, limit: u32, now: u64) -> Outcome {
        let due: Vec<(u64, u64)> =
            self.view.timers.range(..=(upto, u64::MAX)).take(limit as usize).map(|(key, _)| *key).collect();
        for key in &due {
            let timer = self.view.timers.remove(key).expect("it was just there");
            if !self.places.contains_key(&timer.queue) {
                continue;
            }
            let half = timer.committed.then_some(timer.half);
            let offset = self.enter(timer.queue, (&timer.body, &timer.key), key.1, None, half, now);
            if let Some(decision) = half.and_then(|half| self.view.decisions.get_mut(&half)) {
                decision.offset = Some(offset);
            }
        }
        Outcome::Handled(due.len() as u32)
    }

    fn expire(&mut self, before: u64) -> Outcome {
        self.forgotten = self.forgotten.max(before);
        self.view.decisions.retain(|_, row| row.at >= self.forgotten);
        Outcome::Done
    }

    /// Positions of what nobody may see: undecided, rolled back.
    pub(super) fn hidden(&self) -> BTreeSet<u64> {
        let rolled_back = self.view.decisions.iter().filter(|(_, row)| row.decision == Decision::Rollback);
        let halves = self.view.halves.iter().flat_map(|(half, row)| [*half, row.position]);
        halves.chain(rolled_back.map(|(half, _)| *half)).collect()
    }
}

fn due(when: When, now: u64) -> Option<u64> {
    match when {
        When::Now => None,
        When::After(millis) => Some(now + millis),
        When::At(time) => Some(time),
    }
    .filter(|due| *due > now)
}
