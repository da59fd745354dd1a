//! The rules of transactions in their simplest form: a map from halves to their states, and a rule for each event.
//!
//! Written apart from the engine. It follows the log entry by entry, and says of each answer, check and parking whether it was
//! right at that moment.

use std::collections::{BTreeMap, HashMap};

use super::world::{Entry, Logged, Member, Sent, Tables, World};
use crate::shard::{Outcome, Refusal};
use crate::terms::{Decision, HalfId, ParkReason, Stamp};
use crate::transaction::engine::CheckPolicy;

type Said<T> = Result<T, String>;

/// No connection owes more answers.
const OWED_MAX: usize = 1000;
/// Nothing is parked for want of an instance so long after a start, in milliseconds.
const QUIET: u64 = 60_000;

/// An outcome, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Kept(HalfId),
    Repeats(HalfId),
    Settled { decision: Decision, first: bool, members: Vec<HalfId> },
    Refused(&'static str),
    Done,
}

impl Told {
    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Prepared(prepared) if prepared.repeated => Self::Repeats(prepared.half),
            Outcome::Prepared(prepared) => Self::Kept(prepared.half),
            Outcome::Settled(settled) => Self::Settled {
                decision: settled.decision,
                first: settled.first,
                members: settled.members.iter().map(|member| member.half).collect(),
            },
            Outcome::Refused(refusal) => Self::Refused(match refusal {
                Refusal::NoSuchHalf(_) => "no such half",
                Refusal::WrongGroup(_) => "wrong group",
                Refusal::WrongCounter(_) => "wrong counter",
                Refusal::AlreadyDecided(_) => "decided",
                Refusal::UniqueIdTaken(_) => "another message",
                Refusal::NotOpen(_) => "parked",
                Refusal::NotParked(_) => "not parked",
                Refusal::NotFirstHalf(..) => "not first",
                Refusal::TransactionFull(_) => "full",
                _ => "for a reason that is not modelled",
            }),
            _ => Self::Done,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Parked(ParkReason),
    Decided(Decision),
}

#[derive(Debug, Clone)]
struct Half {
    group: String,
    client: String,
    key: String,
    body: u32,
    counter: u64,
    first: Option<HalfId>,
    members: Vec<HalfId>,
    prepared_at: Stamp,
    state: State,
    attempts: u32,
    /// The next check comes no earlier.
    not_before: Stamp,
    /// Its time was given by a check, a lease or a resumption.
    is_timed: bool,
}

pub(super) struct Model {
    policy: CheckPolicy,
    began: Stamp,
    halves: HashMap<HalfId, Half>,
    /// By group, key and body: the half that a repeated send gets.
    keys: HashMap<(String, String, u32), HalfId>,
    /// By connection: what it owes, and since when.
    owed: HashMap<u64, HashMap<HalfId, Stamp>>,
    /// The number of the check that was sent and is not in the tables yet.
    on_record: HashMap<HalfId, u32>,
    delivered: Vec<HalfId>,
    prepared: u64,
    open: usize,
}

impl Model {
    pub(super) fn new(policy: CheckPolicy, began: Stamp) -> Self {
        Self {
            policy,
            began,
            halves: HashMap::new(),
            keys: HashMap::new(),
            owed: HashMap::new(),
            on_record: HashMap::new(),
            delivered: Vec::new(),
            prepared: 0,
            open: 0,
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn group_of(&self, half: HalfId) -> Option<&str> {
        self.halves.get(&half).map(|half| half.group.as_str())
    }

    /// The names that a producer gives.
    pub(super) fn named(&self, half: HalfId) -> Option<(&str, u64)> {
        self.halves.get(&half).map(|half| (half.group.as_str(), half.counter))
    }

    /// The identity of a repeated send: group, key, first half.
    pub(super) fn send_of(&self, half: HalfId) -> Option<(String, String, Option<HalfId>)> {
        self.halves.get(&half).map(|half| (half.group.clone(), half.key.clone(), half.first))
    }

    pub(super) fn restarted(&mut self, now: Stamp) {
        self.began = now;
        self.owed.clear();
        self.on_record.clear();
    }

    pub(super) fn closed(&mut self, connection: u64) {
        self.owed.remove(&connection);
    }

    /// An answer counts once, and only for the connection that was asked.
    pub(super) fn answered(&mut self, connection: u64, half: HalfId, owed: bool, now: Stamp) -> Said<()> {
        let since = self.owed.get_mut(&connection).and_then(|owed| owed.remove(&half));
        let expected = since.is_some();
        let may_be_given_up = since.is_some_and(|at| at + self.policy.interval <= now);
        if owed == expected || may_be_given_up {
            Ok(())
        } else {
            Err(format!("answer to {half} on {connection}: owed {owed}, not {expected}"))
        }
    }

    /// Whether a connection may be asked once more. Answers that did not come within an interval are given up, by a
    /// connection that owes all it may.
    fn may_be_asked(&mut self, connection: u64, more: usize, now: Stamp) -> bool {
        let Some(owed) = self.owed.get_mut(&connection) else { return true };
        if owed.len() + more < OWED_MAX {
            return true;
        }
        let lost = self.policy.interval;
        if owed.len() >= OWED_MAX {
            owed.retain(|_, at| *at + lost > now);
        }
        owed.len() + more < OWED_MAX
    }

    /// A check was written to a connection.
    pub(super) fn asked(
        &mut self,
        sent: &Sent,
        members: &BTreeMap<u64, Member>,
        faults: usize,
        now: Stamp,
    ) -> Said<()> {
        let Sent { half, connection, number } = *sent;
        let wrong = |why: &str| Err(format!("check {number} of {half} on {connection}: {why}"));
        let Some(row) = self.halves.get(&half).cloned() else { return wrong("no such half") };
        let Some(member) = members.get(&connection) else { return wrong("the connection is gone") };
        if row.state != State::Open {
            return wrong(&format!("it is {:?}", row.state));
        }
        if row.first.is_some() {
            return wrong("it is a member of a transaction");
        }
        if now < row.not_before {
            return wrong(&format!("not due before {}, it is {now}", row.not_before));
        }
        if number != row.attempts + 1 {
            return wrong(&format!("it has used up {} attempts", row.attempts));
        }
        if number > self.policy.checks_max {
            return wrong("more checks than transactionCheckMax");
        }
        if member.group != row.group {
            return wrong("an instance of another group");
        }
        if !self.may_be_asked(connection, 0, now) {
            return wrong("the connection owes all it may");
        }
        if member.client != row.client {
            for (other, sender) in members {
                let is_sender = sender.client == row.client && sender.group == row.group && sender.is_writable;
                // Halves that could not be read took places for a moment.
                if is_sender && self.may_be_asked(*other, faults, now) {
                    return wrong(&format!("its sender could be asked on {other}"));
                }
            }
        }
        self.owed.entry(connection).or_default().insert(half, now);
        self.on_record.insert(half, number);
        Ok(())
    }

    /// The runner parks a half.
    pub(super) fn parks(
        &self,
        half: HalfId,
        reason: ParkReason,
        members: &BTreeMap<u64, Member>,
        faulty: bool,
        now: Stamp,
    ) -> Said<()> {
        let wrong = |why: &str| Err(format!("{half} parked as {}: {why}", reason.name()));
        let Some(row) = self.halves.get(&half) else { return wrong("no such half") };
        if row.state != State::Open || row.first.is_some() || now < row.not_before {
            return wrong("it is not due");
        }
        match reason {
            ParkReason::ChecksExhausted if row.attempts < self.policy.checks_max => {
                wrong(&format!("after {} checks", row.attempts))
            }
            ParkReason::NoChecker if members.values().any(|member| member.group == row.group) => {
                wrong("an instance is connected")
            }
            ParkReason::NoChecker if now < (row.prepared_at + self.policy.park_after).max(self.began + QUIET) => {
                wrong("too early")
            }
            ParkReason::Unreadable if !faulty => wrong("nothing is wrong with it"),
            _ => Ok(()),
        }
    }

    /// The halves that wait for an instance, when none is connected and nothing is on its way.
    pub(super) fn waits(&self, groups: &[&str; 3], counted: [usize; 3], now: Stamp) -> Said<()> {
        let waits = |row: &&Half| row.state == State::Open && row.first.is_none() && row.not_before <= now;
        let expected = groups.map(|group| self.halves.values().filter(waits).filter(|row| row.group == group).count());
        if counted == expected { Ok(()) } else { Err(format!("waiting: {counted:?}, not {expected:?}")) }
    }

    /// With an instance of each group, nothing on its way and nothing due now, every half that is due was asked about or is
    /// held back for want of an answer.
    pub(super) fn is_due_asked(&self, world: &World) -> Said<()> {
        let scheduler = world.scheduler.borrow();
        let groups = world.groups();
        let forgotten = self.halves.iter().find(|(half, row)| {
            let is_due = row.state == State::Open && row.first.is_none() && row.not_before <= world.now;
            is_due && groups.contains(row.group.as_str()) && !scheduler.held.contains(&row.group, **half)
        });
        match forgotten {
            Some((half, row)) => Err(format!("{half} is due since {}, and nothing happens: {row:?}", row.not_before)),
            None => Ok(()),
        }
    }

    /// An entry was applied: what it brought must be what it had to bring.
    pub(super) fn applied(&mut self, logged: &Logged, outcome: &Outcome, tables: &Tables) -> Said<()> {
        let told = Told::of(outcome);
        let (expected, half) = match &logged.entry {
            Entry::Prepare { group, client, unique_id, body, immunity, first_half } => {
                let new = Half {
                    group: group.clone(),
                    client: client.clone(),
                    key: unique_id.clone(),
                    body: *body,
                    counter: self.prepared,
                    first: *first_half,
                    members: Vec::new(),
                    prepared_at: logged.stamp,
                    state: State::Open,
                    attempts: 0,
                    not_before: logged.stamp + immunity.unwrap_or(self.policy.first_after),
                    is_timed: immunity.is_some(),
                };
                let half = HalfId(logged.position);
                (self.prepare(half, new), half)
            }
            Entry::Settle { half, decision, by } => (self.settle(*half, *decision, by.as_ref()), *half),
            Entry::Extend { half, counter, group, until, is_answer } => {
                (self.extend(*half, *counter, group, *until, *is_answer), *half)
            }
            Entry::Park { half, reason, .. } => (self.park(*half, *reason), *half),
            Entry::Resume { half, only_if, .. } => (self.resume(*half, *only_if, logged.stamp), *half),
            Entry::DeleteTopic => {
                return Err("random steps delete no topic: all that follows would be refused".to_owned());
            }
            Entry::Checked { halves, .. } => {
                self.checked(halves, logged.stamp)?;
                for (half, ..) in halves {
                    self.compare_one(*half, tables)?;
                }
                return Ok(());
            }
        };
        if told != expected {
            return Err(format!("{:?} at {}: told {told:?}, not {expected:?}", logged.entry, logged.position));
        }
        self.compare_one(half, tables)
    }

    fn prepare(&mut self, half: HalfId, new: Half) -> Told {
        // Another body under the same key is another message.
        let key = (new.group.clone(), new.key.clone(), new.body);
        let known = self.keys.get(&key).filter(|_| !new.key.is_empty());
        if let Some(first) = known {
            let row = &self.halves[first];
            if row.state != State::Decided(Decision::Rollback) {
                return if row.first == new.first { Told::Repeats(*first) } else { Told::Refused("another message") };
            }
        }
        if let Some(first) = new.first {
            let Some(row) = self.halves.get_mut(&first) else { return Told::Refused("no such half") };
            match row.state {
                State::Decided(_) if row.group == new.group => return Told::Refused("decided"),
                State::Decided(_) => return Told::Refused("no such half"),
                _ if row.group != new.group => return Told::Refused("wrong group"),
                _ if row.first.is_some() => return Told::Refused("not first"),
                _ if row.members.len() == 127 => return Told::Refused("full"),
                State::Parked(_) => return Told::Refused("parked"),
                State::Open => row.members.push(half),
            }
        }
        if !new.key.is_empty() {
            self.keys.insert(key, half);
        }
        self.prepared += 1;
        self.open += 1;
        self.halves.insert(half, new);
        Told::Kept(half)
    }

    /// Why this sender has no say, if so.
    fn stranger(row: &Half, group: &str, counter: u64) -> Option<Told> {
        if row.group != group {
            return Some(Told::Refused("wrong group"));
        }
        (row.counter != counter).then_some(Told::Refused("wrong counter"))
    }

    /// All halves of a transaction, the first one in front.
    fn whole(&self, half: HalfId) -> Vec<HalfId> {
        let first = self.halves[&half].first.unwrap_or(half);
        std::iter::once(first).chain(self.halves[&first].members.iter().copied()).collect()
    }

    fn settle(&mut self, half: HalfId, decision: Decision, by: Option<&(String, u64)>) -> Told {
        let Some(row) = self.halves.get(&half) else { return Told::Refused("no such half") };
        if let Some(refused) = by.and_then(|(group, counter)| Self::stranger(row, group, *counter)) {
            return refused;
        }
        let whole = self.whole(half);
        let members = whole[1..].to_vec();
        if let State::Decided(first) = row.state {
            return if first == decision {
                Told::Settled { decision, first: false, members }
            } else {
                Told::Refused("decided")
            };
        }
        for half in &whole {
            self.set(*half, State::Decided(decision));
        }
        if decision == Decision::Commit {
            self.delivered.extend(&whole);
        }
        Told::Settled { decision, first: true, members }
    }

    fn set(&mut self, half: HalfId, state: State) {
        let row = self.halves.get_mut(&half).expect("a half of the model");
        self.open -= usize::from(row.state == State::Open);
        self.open += usize::from(state == State::Open);
        row.state = state;
    }

    fn extend(&mut self, half: HalfId, counter: u64, group: &str, until: Stamp, is_answer: bool) -> Told {
        let Some(row) = self.halves.get(&half) else { return Told::Refused("no such half") };
        if let Some(refused) = Self::stranger(row, group, counter) {
            return refused;
        }
        if matches!(row.state, State::Decided(_)) {
            return Told::Refused("decided");
        }
        let first = row.first.unwrap_or(half);
        let row = self.halves.get_mut(&first).expect("a half of the model");
        if row.state == State::Open {
            if is_answer {
                row.attempts = row.attempts.saturating_sub(1);
                row.not_before = until;
            } else {
                row.not_before = if row.is_timed { row.not_before.max(until) } else { until };
            }
            row.is_timed = true;
        }
        Told::Done
    }

    fn park(&mut self, half: HalfId, reason: ParkReason) -> Told {
        match self.halves.get(&half) {
            Some(row) if !matches!(row.state, State::Decided(_)) => {}
            _ => return Told::Refused("no such half"),
        }
        for half in self.whole(half) {
            if self.halves[&half].state == State::Open {
                self.set(half, State::Parked(reason));
            }
        }
        Told::Done
    }

    fn resume(&mut self, half: HalfId, only_if: Option<ParkReason>, now: Stamp) -> Told {
        let reason = match self.halves.get(&half).map(|row| row.state) {
            None | Some(State::Decided(_)) => return Told::Refused("no such half"),
            Some(State::Open) => return Told::Refused("not parked"),
            Some(State::Parked(reason)) => reason,
        };
        if only_if.is_some_and(|only| only != reason) {
            return Told::Refused("not parked");
        }
        for half in self.whole(half) {
            self.set(half, State::Open);
            let row = self.halves.get_mut(&half).expect("a half of the model");
            (row.attempts, row.not_before, row.is_timed) = (0, now, true);
        }
        Told::Done
    }

    /// The gap after a check: five of one interval, then twice as long each time, ten at most.
    fn gap(&self, number: u32) -> u64 {
        self.policy.interval * [1, 1, 1, 1, 1, 2, 4, 8].get(number as usize - 1).unwrap_or(&10)
    }

    fn checked(&mut self, halves: &[(HalfId, Stamp, bool, String)], stamp: Stamp) -> Said<()> {
        for (half, next_due, counts, _) in halves {
            let sent = if *counts { self.on_record.remove(half) } else { None };
            if let Some(number) = sent
                && *next_due != stamp + self.gap(number)
            {
                return Err(format!("{half}: check {number} at {stamp} is followed by one at {next_due}"));
            }
            let Some(row) = self.halves.get_mut(half) else { return Err(format!("{half} is not known")) };
            if row.state == State::Open && row.first.is_none() {
                row.attempts += u32::from(*counts);
                (row.not_before, row.is_timed) = (*next_due, true);
            }
        }
        Ok(())
    }

    /// One half, and with it the number of all: nothing is lost, nothing is twice.
    fn compare_one(&self, half: HalfId, tables: &Tables) -> Said<()> {
        let Some(row) = self.halves.get(&half) else { return Ok(()) };
        let stored = tables.halves.get(&half);
        let decision = tables.decisions.get(&half).map(|row| row.decision);
        let parked = stored.and_then(|stored| stored.parked).map(|(reason, _)| reason);
        let is_same = match row.state {
            State::Open => {
                stored.is_some_and(|stored| stored.checks == row.attempts || row.first.is_some()) && parked.is_none()
            }
            State::Parked(reason) => parked == Some(reason),
            State::Decided(first) => stored.is_none() && decision == Some(first),
        };
        let are_all = tables.halves.len() + tables.decisions.len() == self.halves.len();
        if is_same && are_all && (stored.is_none() || decision.is_none()) {
            return Ok(());
        }
        Err(format!("{half} is {row:?}; stored: {stored:?}, decided: {decision:?}, all there: {are_all}"))
    }

    /// Everything.
    pub(super) fn compare(&self, tables: &Tables) -> Said<()> {
        for half in self.halves.keys() {
            self.compare_one(*half, tables)?;
        }
        if tables.delivered == self.delivered { Ok(()) } else { Err("consumers see something else".to_owned()) }
    }
}
