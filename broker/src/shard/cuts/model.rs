//! The state that a shard must be in after some commands: the promises once more, in plain maps, by nobody who wrote
//! apply.
//!
//! The model predicts each outcome. Two things it takes from the outcome itself, as no promise says what they are: the
//! position of a message in the log, and the time. Of commands whose outcome names no position the log itself tells it.

use std::collections::{BTreeMap, BTreeSet};

use super::act::{Act, PRODUCERS, Place, WINDOW_MS};
use super::view::{DecisionView, EntryView, HalfView, QueueView, TimerView, View};
use crate::shard::{Outcome, Prepared, Published, Refusal, Settled, SettledMember};
use crate::terms::{Decision, Entered, HalfId, ParkReason, PinOwner, Position, QueueId, QueueOffset, Stamp, When};

/// The state after some commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) view: View,
    /// Topic of each queue that exists, and its number there.
    pub(super) places: BTreeMap<u32, Place>,
    /// Repeated sends: (topic, unique id, body) to the half, and until when if it is decided.
    repeats: BTreeMap<(String, String, String), (HalfId, Option<Stamp>)>,
    /// Plain messages that are recognised when they are sent again: (topic, unique key, bodies) to the answer, and until when.
    published: BTreeMap<(String, String, String), (Published, Stamp)>,
    /// How many queues of each topic are written and read now.
    sizes: BTreeMap<String, u32>,
    /// Decisions made before are forgotten.
    forgotten: Option<Stamp>,
    next_queue: u32,
}

impl Model {
    /// The answer that the command must get at this time; `got` says where messages lie, and `places` where those lie
    /// that were written once more.
    pub(super) fn apply(&mut self, act: &Act, now: Stamp, got: &Outcome, places: &[Position]) -> Outcome {
        match act {
            Act::PutTopic { name, queues } => {
                self.sizes.insert(name.clone(), *queues);
                let had = self.view.topics.entry(name.clone()).or_default();
                while had.len() < *queues as usize {
                    had.push(self.next_queue);
                    self.places.insert(self.next_queue, (name.clone(), had.len() as i32 - 1));
                    self.view.queues.insert(self.next_queue, QueueView { min: QueueOffset::ZERO, entries: Vec::new() });
                    self.next_queue += 1;
                }
                Outcome::Done
            }
            Act::DeleteTopic { name } => self.delete_topic(name),
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
            Act::Publish { queue, when, bodies, once, .. } => self.publish(*queue, *when, bodies, *once, now, got),
            Act::Prepare { queue, when, unique_id, body, first_half, .. } => {
                self.prepare(*queue, *when, (unique_id, body), *first_half, now, got)
            }
            Act::Settle { half, counter, group, decision, rewritten } => {
                let halves = rewritten.iter().map(|(half, ..)| *half);
                let places: BTreeMap<HalfId, Position> = halves.zip(places.iter().copied()).collect();
                self.settle(*half, *counter, group, *decision, &places, now)
            }
            Act::Checked { halves } => {
                let mut handled = 0;
                for each in halves {
                    let half = self.view.halves.get_mut(&each.half);
                    if let Some(half) = half.filter(|half| half.parked.is_none() && half.first_half.is_none()) {
                        half.next_due = Some(each.next_due);
                        half.checks += u32::from(each.counts);
                        if !each.asked.is_empty() {
                            half.asked.push((now, each.asked.to_owned()));
                            half.asked = half.asked.split_off(half.asked.len().saturating_sub(16));
                        }
                        handled += 1;
                    }
                }
                Outcome::Handled(handled)
            }
            Act::Extend { half, counter, until, is_answer } => self.extend(*half, *counter, *until, *is_answer),
            Act::Park { half } => {
                if !self.view.halves.contains_key(half) {
                    return Outcome::Refused(Refusal::NoSuchHalf(*half));
                }
                self.park(*half, ParkReason::Operator, now);
                Outcome::Done
            }
            Act::Resume { half, only_if } => {
                let Some(row) = self.view.halves.get(half) else {
                    return Outcome::Refused(Refusal::NoSuchHalf(*half));
                };
                let reason = row.parked.map(|(reason, _)| reason);
                if reason.is_none() || only_if.is_some_and(|only| Some(only) != reason) {
                    return Outcome::Refused(Refusal::NotParked(reason));
                }
                for id in self.whole(*half) {
                    let row = self.view.halves.get_mut(&id).expect("all of a transaction is open");
                    row.parked = None;
                    row.checks = 0;
                    row.next_due = Some(now);
                    row.acts.push((now, false));
                    row.acts = row.acts.split_off(row.acts.len().saturating_sub(8));
                    self.view.counts.parked -= 1;
                    self.view.counts.open += 1;
                }
                Outcome::Done
            }
            Act::Offsets(commits) => {
                for (group, queue, offset) in commits {
                    let key = (group.clone(), *queue);
                    // A group that was deleted with its offsets gets none from commits that come after it.
                    let is_known = self.view.groups.contains(group) || self.view.offsets.contains_key(&key);
                    if self.places.contains_key(queue) && is_known {
                        self.view.offsets.insert(key, *offset);
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
            Act::GiveUp { positions, messages } => {
                self.view.lost.insert(positions.start, (positions.end, *messages));
                Outcome::Done
            }
            Act::Settings { only_missing, values } => {
                let before = self.view.agreed.settings.clone();
                let wanted = values.iter().filter(|(key, _)| !only_missing || !before.contains_key(key));
                self.view.agreed.settings.extend(wanted.cloned());
                Outcome::Done
            }
            Act::Feature(level) => {
                self.view.agreed.level = self.view.agreed.level.max(*level);
                Outcome::Done
            }
            Act::Lock { group, client, life, queues } => {
                let mut held = Vec::new();
                for queue in queues {
                    let key = (group.clone(), *queue);
                    let other = self.view.locks.get(&key).filter(|(owner, until)| owner != client && *until > now);
                    if other.is_none() {
                        self.view.locks.insert(key, (client.clone(), now + *life));
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
    fn trim(&mut self, upto: Position) {
        let halves = self.view.halves.values().map(|half| half.position);
        let needed = halves.chain(self.view.timers.keys().map(|(_, position)| *position)).min();
        let upto = upto.min(needed.unwrap_or(Position::MAX));
        if upto <= self.view.trimmed {
            return;
        }
        self.view.trimmed = upto;
        for queue in self.view.queues.values_mut() {
            let goes = queue.entries.iter().take_while(|entry| entry.position < upto).count();
            queue.entries.drain(..goes);
            queue.min = queue.min + goes as u64;
            for entry in queue.entries.iter_mut().filter(|entry| entry.position < upto) {
                (entry.body, entry.key) = (String::new(), String::new());
            }
        }
    }

    /// Says whether there was something to move.
    fn roll(&mut self, owner: PinOwner, from: Position, to: Position) -> bool {
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

    fn delete_topic(&mut self, name: &str) -> Outcome {
        let Some(queues) = self.view.topics.remove(name) else {
            return Outcome::Refused(Refusal::NoSuchTopic(name.to_owned()));
        };
        for queue in queues {
            self.places.remove(&queue);
            self.view.queues.remove(&queue);
        }
        Outcome::Done
    }

    /// All halves of the transaction of this one, the first one in front.
    fn whole(&self, half: HalfId) -> Vec<HalfId> {
        let first = self.view.halves[&half].first_half.unwrap_or(half);
        let mut whole = vec![first];
        whole.extend(&self.view.halves[&first].members);
        whole
    }

    fn park(&mut self, half: HalfId, reason: ParkReason, now: Stamp) {
        for id in self.whole(half) {
            let row = self.view.halves.get_mut(&id).expect("all of a transaction is undecided");
            if row.parked.is_none() {
                row.parked = Some((reason, now));
                if reason == ParkReason::Operator {
                    row.acts.push((now, true));
                    row.acts = row.acts.split_off(row.acts.len().saturating_sub(8));
                }
                self.view.counts.open -= 1;
                self.view.counts.parked += 1;
            }
        }
    }

    fn extend(&mut self, half: HalfId, counter: u64, until: Stamp, is_answer: bool) -> Outcome {
        let row = self.view.halves.get(&half);
        let known = row.map(|row| row.counter).or(self.view.decisions.get(&half).map(|row| row.counter));
        match known {
            None => return Outcome::Refused(Refusal::NoSuchHalf(half)),
            Some(own) if own != counter => return Outcome::Refused(Refusal::WrongCounter(own)),
            Some(_) => {}
        }
        let Some(row) = row else { return Outcome::Refused(Refusal::AlreadyDecided(self.settled(half))) };
        let first = row.first_half.unwrap_or(half);
        let row = self.view.halves.get_mut(&first).expect("all of a transaction is undecided");
        if row.parked.is_none() {
            row.next_due = if is_answer { Some(until) } else { row.next_due.max(Some(until)) };
            row.checks -= u32::from(is_answer && row.checks > 0);
        }
        Outcome::Done
    }

    /// The known outcome of this half's decided transaction.
    fn settled(&self, half: HalfId) -> Settled {
        let named = &self.view.decisions[&half];
        let first = named.first_half.and_then(|first| self.view.decisions.get(&first)).unwrap_or(named);
        let members = first.members.iter().filter_map(|member| {
            let row = self.view.decisions.get(member)?;
            Some(SettledMember { half: *member, queue: QueueId(row.queue), offset: row.offset })
        });
        Settled {
            decision: named.decision,
            queue: QueueId(first.queue),
            offset: first.offset,
            at: named.at,
            first: false,
            members: members.collect(),
        }
    }

    fn publish(&mut self, queue: u32, when: When, bodies: &[String], once: bool, now: Stamp, got: &Outcome) -> Outcome {
        let Some((topic, number)) = self.places.get(&queue) else {
            return Outcome::Refused(Refusal::NoSuchQueue(QueueId(queue)));
        };
        if number.cast_unsigned() >= self.sizes[topic] {
            return Outcome::Refused(Refusal::NoSuchQueue(QueueId(queue)));
        }
        let key = (topic.clone(), bodies[0].clone(), bodies.concat());
        let known = self.published.get(&key).filter(|(_, ends)| once && *ends >= now);
        if let Some((first, _)) = known
            && first.repeats.is_some_and(|queue| self.places.contains_key(&queue.0))
        {
            return Outcome::Published(first.clone());
        }
        let Outcome::Published(at) = got else { panic!("published was {got:?}") };
        let positions: Vec<Position> = [at.position].into_iter().chain(at.more_positions.iter().copied()).collect();
        let due = due(when, now);
        let mut first = None;
        for (body, position) in bodies.iter().zip(&positions) {
            let entered = self.enter(queue, (body, body), *position, due, None, now);
            first.get_or_insert(entered);
        }
        let published = Published {
            entered: first.expect("a publish has messages"),
            position: at.position,
            more_positions: at.more_positions.clone(),
            stamp: now,
            repeats: None,
        };
        if once {
            // Of a batch the first message stands for all.
            let again = Published { more_positions: Vec::new(), repeats: Some(QueueId(queue)), ..published.clone() };
            self.published.insert(key, (again, now + WINDOW_MS));
        }
        Outcome::Published(published)
    }

    /// The queue in which a message enters that waited for this one: it may be one that nobody reads any more.
    fn live(&self, queue: u32) -> u32 {
        let (topic, number) = &self.places[&queue];
        let number = number.cast_unsigned() % self.sizes[topic];
        self.view.topics[topic][number as usize]
    }

    /// Enters the queue, or waits.
    fn enter(
        &mut self,
        queue: u32,
        (body, key): (&str, &str),
        position: Position,
        due: Option<Stamp>,
        half: Option<HalfId>,
        now: Stamp,
    ) -> Entered {
        let committed = half.is_some();
        if let Some(due) = due {
            let timer = TimerView {
                queue,
                body: body.to_owned(),
                key: key.to_owned(),
                committed,
                half: half.unwrap_or(HalfId::at(position)),
            };
            self.view.timers.insert((due, position), timer);
            self.view.counts.next_timer += 1;
            return Entered::Waits { number: self.view.counts.next_timer - 1, due };
        }
        let QueueView { min, entries } = self.view.queues.get_mut(&queue).expect("the queue exists");
        let (body, key) = (body.to_owned(), key.to_owned());
        entries.push(EntryView {
            body,
            key,
            position,
            store_time: now,
            committed,
            half: half.unwrap_or(HalfId::at(position)),
        });
        Entered::Queue(*min + (entries.len() as u64 - 1))
    }

    fn prepare(
        &mut self,
        queue: u32,
        when: When,
        (unique_id, body): (&str, &str),
        first_half: Option<HalfId>,
        now: Stamp,
        got: &Outcome,
    ) -> Outcome {
        let Some((topic, _)) = self.places.get(&queue) else {
            return Outcome::Refused(Refusal::NoSuchQueue(QueueId(queue)));
        };
        let key = (topic.clone(), unique_id.to_owned(), body.to_owned());
        let remembered = self.repeats.get(&key).filter(|(_, ends)| ends.is_none_or(|ends| ends >= now));
        if let Some((half, _)) = remembered.copied() {
            // A half of a topic that was deleted meanwhile is no half of the one that was made again.
            let open = self.view.halves.get(&half).filter(|row| self.places.contains_key(&row.queue));
            let open = open.map(|row| (row.counter, row.prepared_at, row.first_half));
            let decided = self.view.decisions.get(&half).filter(|row| row.decision == Decision::Commit);
            let committed = decided.map(|row| (row.counter, row.at, row.first_half));
            if let Some((counter, stamp, of)) = open.or(committed) {
                if of != first_half {
                    return Outcome::Refused(Refusal::UniqueIdTaken(half));
                }
                return Outcome::Prepared(Prepared { half, counter, stamp, repeated: true });
            }
        }
        if let Some(first) = first_half {
            let refusal = match self.view.halves.get(&first) {
                None if self.view.decisions.contains_key(&first) => Refusal::AlreadyDecided(self.settled(first)),
                None => Refusal::NoSuchHalf(first),
                Some(row) => match (row.first_half, row.parked) {
                    (Some(of), _) => Refusal::NotFirstHalf(first, of),
                    (None, _) if row.members.len() == 127 => Refusal::TransactionFull(128),
                    (None, Some((reason, _))) => Refusal::NotOpen(reason),
                    (None, None) => Refusal::NoSuchHalf(HalfId::MAX),
                },
            };
            if refusal != Refusal::NoSuchHalf(HalfId::MAX) {
                return Outcome::Refused(refusal);
            }
        }
        let Outcome::Prepared(Prepared { half, .. }) = got else { panic!("prepared was {got:?}") };
        if let Some(first) = first_half.and_then(|first| self.view.halves.get_mut(&first)) {
            first.members.push(*half);
        }
        let counter = self.view.counts.next_half;
        self.view.counts.next_half += 1;
        self.view.counts.open += 1;
        self.repeats.insert(key, (*half, None));
        let row = HalfView {
            position: half.position(),
            counter,
            queue,
            body: body.to_owned(),
            unique_id: unique_id.to_owned(),
            when,
            prepared_at: now,
            next_due: None,
            checks: 0,
            asked: Vec::new(),
            first_half,
            members: Vec::new(),
            acts: Vec::new(),
            parked: None,
        };
        self.view.halves.insert(*half, row);
        Outcome::Prepared(Prepared { half: *half, counter, stamp: now, repeated: false })
    }

    /// `places` says where bytes lie that the decision brought along, by half.
    fn settle(
        &mut self,
        half: HalfId,
        counter: u64,
        group: &str,
        decision: Decision,
        places: &BTreeMap<HalfId, Position>,
        now: Stamp,
    ) -> Outcome {
        let stranger = |own: u64| {
            if group != PRODUCERS {
                return Some(Refusal::WrongGroup(PRODUCERS.to_owned()));
            }
            (counter != own).then_some(Refusal::WrongCounter(own))
        };
        let Some(row) = self.view.halves.get(&half) else {
            let Some(known) = self.view.decisions.get(&half) else {
                return Outcome::Refused(Refusal::NoSuchHalf(half));
            };
            if let Some(refusal) = stranger(known.counter) {
                return Outcome::Refused(refusal);
            }
            let settled = self.settled(half);
            return if settled.decision == decision {
                Outcome::Settled(settled)
            } else {
                Outcome::Refused(Refusal::AlreadyDecided(settled))
            };
        };
        if let Some(refusal) = stranger(row.counter) {
            return Outcome::Refused(refusal);
        }
        let whole = self.whole(half);
        let gone = whole.iter().map(|id| self.view.halves[id].queue).find(|queue| !self.places.contains_key(queue));
        if let Some(gone) = gone.filter(|_| decision == Decision::Commit) {
            return Outcome::Refused(Refusal::NoSuchQueue(QueueId(gone)));
        }
        for id in &whole {
            self.settle_one(*id, decision, places.get(id).copied(), now);
        }
        Outcome::Settled(Settled { first: true, ..self.settled(whole[0]) })
    }

    fn settle_one(&mut self, half: HalfId, decision: Decision, place: Option<Position>, now: Stamp) {
        let row = self.view.halves.remove(&half).expect("all of a transaction is undecided");
        let (mut queue, mut offset) = (row.queue, None);
        if decision == Decision::Commit {
            let due = due(row.when, now);
            if due.is_none() {
                queue = self.live(row.queue);
            }
            let position = place.unwrap_or(row.position);
            offset = offset_of(self.enter(queue, (&row.body, &row.unique_id), position, due, Some(half), now));
            self.view.counts.committed += 1;
        } else {
            self.view.counts.rolled_back += 1;
        }
        if row.parked.is_some() {
            self.view.counts.parked -= 1;
        } else {
            self.view.counts.open -= 1;
        }
        if let Some((topic, _)) = self.places.get(&row.queue) {
            self.repeats.insert((topic.clone(), row.unique_id, row.body), (half, Some(now + WINDOW_MS)));
        }
        let decision = DecisionView {
            decision,
            queue,
            offset,
            counter: row.counter,
            at: now,
            checks: row.checks,
            asked: row.asked,
            acts: row.acts,
            first_half: row.first_half,
            members: row.members,
        };
        self.view.decisions.insert(half, decision);
    }

    fn fire(&mut self, upto: Stamp, limit: u32, now: Stamp) -> Outcome {
        let due: Vec<(Stamp, Position)> =
            self.view.timers.range(..=(upto, Position::MAX)).take(limit as usize).map(|(key, _)| *key).collect();
        for key in &due {
            let timer = self.view.timers.remove(key).expect("it was just there");
            if !self.places.contains_key(&timer.queue) {
                continue;
            }
            let half = timer.committed.then_some(timer.half);
            let queue = self.live(timer.queue);
            let entered = self.enter(queue, (&timer.body, &timer.key), key.1, None, half, now);
            if let Some(decision) = half.and_then(|half| self.view.decisions.get_mut(&half)) {
                (decision.offset, decision.queue) = (offset_of(entered), queue);
            }
        }
        Outcome::Handled(due.len() as u32)
    }

    fn expire(&mut self, before: Stamp) -> Outcome {
        self.forgotten = self.forgotten.max(Some(before));
        self.view.decisions.retain(|_, row| Some(row.at) >= self.forgotten);
        Outcome::Done
    }

    /// Positions of what nobody may see: undecided, rolled back.
    pub(super) fn hidden(&self) -> BTreeSet<HalfId> {
        let rolled_back = self.view.decisions.iter().filter(|(_, row)| row.decision == Decision::Rollback);
        let halves = self.view.halves.iter().flat_map(|(half, row)| [*half, HalfId::at(row.position)]);
        halves.chain(rolled_back.map(|(half, _)| *half)).collect()
    }
}

fn offset_of(entered: Entered) -> Option<QueueOffset> {
    match entered {
        Entered::Queue(offset) => Some(offset),
        Entered::Waits { .. } => None,
    }
}

fn due(when: When, now: Stamp) -> Option<Stamp> {
    match when {
        When::Now => None,
        When::After(millis) => Some(now + millis),
        When::At(time) => Some(time),
    }
    .filter(|due| *due > now)
}
