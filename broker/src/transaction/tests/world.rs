//! A broker in miniature: the real steps and rounds of the engine over maps, a log that apply may be behind, connections that
//! come and go, and a clock that only tests move. What the runner does with files and sockets is done here in a few lines.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::index::half::{Repeat, RepeatKey};
use crate::index::{DecisionRow, HalfRow};
use crate::shard::apply::life::{self, Extent, Noted, Rows, TopicRef};
use crate::shard::{Checked, CheckedHalf, Extend, Message, Outcome, Park, Prepare, Resume, Settle};
use crate::terms::{Content, Decision, HalfId, ParkReason, Position, QueueId, QueueOffset, Stamp, When};
use crate::transaction::engine::CheckPolicy;
use crate::transaction::engine::{Instance, Scheduler};
use crate::transaction::round::{Ask, Page, Resumption, View, Walk, plan};

/// A round at least this often.
const LOOK_EVERY_MS: u64 = 10_000;
/// Bytes that each command takes in the log, so that half ids are positions.
const ENTRY_BYTES: u64 = 100;
/// A repeated half gets its first one's identity for ever: windows are the index's business.
const WINDOW_MS: u64 = u64::MAX / 2;

/// A half as Prepare makes it.
pub(in crate::transaction) fn half_row(half: HalfId, group: &str, client: &str, prepared_at: Stamp) -> HalfRow {
    HalfRow {
        half,
        counter: half.0,
        position: half.position(),
        length: 100,
        queue: QueueId(1),
        topic: QueueId(1),
        tag_hash: 0,
        when: When::Now,
        immunity: None,
        first_half: None,
        members: Vec::new(),
        prepared_at,
        next_due: None,
        checks: 0,
        asked: Vec::new(),
        parked: None,
        acts: Vec::new(),
        duplicate_window: WINDOW_MS,
        content: Content([0; 16]),
        group_id: 0,
        group: group.to_owned(),
        client: client.to_owned(),
        unique_id: String::new(),
    }
}

/// The content of a message with this body.
fn content(body: u32) -> Content {
    Content::of(&body.to_be_bytes(), "")
}

/// A command in the log.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Prepare {
        group: String,
        client: String,
        unique_id: String,
        /// Stands for what the message holds.
        body: u32,
        immunity: Option<u64>,
        first_half: Option<HalfId>,
    },
    Settle {
        half: HalfId,
        decision: Decision,
        /// The producer group and the counter that it names; `None` for an operator.
        by: Option<(String, u64)>,
    },
    Extend {
        half: HalfId,
        counter: u64,
        group: String,
        until: Stamp,
        is_answer: bool,
    },
    Park {
        half: HalfId,
        reason: ParkReason,
        by: &'static str,
    },
    Resume {
        half: HalfId,
        by: &'static str,
        only_if: Option<ParkReason>,
    },
    DeleteTopic,
    Checked {
        first_checked: Option<HalfId>,
        /// Half, next due time, whether it counts, who is asked.
        halves: Vec<(HalfId, Stamp, bool, String)>,
    },
}

/// An entry that is not applied yet.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) position: u64,
    pub(super) stamp: Stamp,
    pub(super) entry: Entry,
    /// Submitted by the runner, which waits for it.
    by_runner: bool,
}

/// An entry that was applied.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) logged: Logged,
    pub(super) outcome: Outcome,
}

/// The rows, as apply keeps them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    stamp: Option<Stamp>,
    pub(super) halves: BTreeMap<HalfId, HalfRow>,
    due: BTreeSet<(Stamp, HalfId)>,
    pub(super) decisions: HashMap<HalfId, DecisionRow>,
    repeats: HashMap<RepeatKey, Repeat>,
    next_counter: u64,
    /// The queue: half ids in the order in which consumers see them.
    pub(super) delivered: Vec<HalfId>,
    first_checked: HalfId,
    applied_end: u64,
    /// The one topic is gone.
    is_topic_deleted: bool,
}

fn due_of(row: &HalfRow) -> Option<(Stamp, HalfId)> {
    let due = row.next_due.filter(|_| row.parked.is_none() && row.first_half.is_none());
    due.map(|due| (due, row.half))
}

impl Rows for Tables {
    type Error = String;

    fn now(&self) -> Stamp {
        self.stamp.expect("an entry has a stamp")
    }

    fn half(&self, half: HalfId) -> Result<Option<HalfRow>, String> {
        Ok(self.halves.get(&half).cloned())
    }

    fn replace(&mut self, old: Option<&HalfRow>, new: Option<HalfRow>) {
        if let Some(old) = old {
            assert_eq!(self.halves.remove(&old.half).as_ref(), Some(old), "a step replaces what is there");
            due_of(old).inspect(|due| assert!(self.due.remove(due), "a due half has its due time"));
        }
        if let Some(new) = new {
            due_of(&new).inspect(|due| assert!(self.due.insert(*due)));
            assert!(self.halves.insert(new.half, new).is_none(), "a new half has an id of its own");
        }
    }

    fn decision(&self, half: HalfId) -> Result<Option<DecisionRow>, String> {
        Ok(self.decisions.get(&half).cloned())
    }

    fn put_decision(&mut self, half: HalfId, row: DecisionRow) {
        assert!(self.decisions.insert(half, row).is_none(), "a half is decided once");
    }

    fn repeat(&self, key: RepeatKey) -> Result<Option<Repeat>, String> {
        Ok(self.repeats.get(&key).copied())
    }

    fn put_repeat(&mut self, key: RepeatKey, repeat: Repeat) {
        self.repeats.insert(key, repeat);
    }

    fn next_counter(&mut self) -> u64 {
        self.next_counter += 1;
        self.next_counter - 1
    }

    fn group_id(&mut self, _group: &str) -> u32 {
        0
    }

    fn with_topic<T>(&self, queue: QueueId, with: impl FnOnce(TopicRef<'_>) -> T) -> Option<T> {
        (!self.is_topic_deleted).then(|| with(TopicRef { name: "orders", id: queue }))
    }

    fn release(&mut self, _row: &HalfRow) {}

    fn is_gone(&self, _row: &HalfRow) -> bool {
        false
    }

    fn deliver(&mut self, row: &HalfRow, _unit: Extent) -> Option<(QueueId, QueueOffset)> {
        self.delivered.push(row.half);
        Some((row.queue, QueueOffset(self.delivered.len() as u64 - 1)))
    }

    fn note(&mut self, _noted: Noted) {}
}

impl Tables {
    /// The group of a transaction and its first half.
    fn whose(&self, half: HalfId) -> Option<(&str, HalfId)> {
        let open = self.halves.get(&half).map(|row| (row.group.as_str(), row.first_half));
        let decided = || self.decisions.get(&half).map(|row| (row.group.as_str(), row.first_half));
        open.or_else(decided).map(|(group, first)| (group, first.unwrap_or(half)))
    }

    fn apply(&mut self, logged: &Logged) -> Outcome {
        self.stamp = self.stamp.max(Some(logged.stamp));
        let outcome = match &logged.entry {
            Entry::Prepare { group, client, unique_id, body, immunity, first_half } => {
                let unit = b"unit".to_vec();
                let prepare = Prepare {
                    queue: QueueId(1),
                    when: When::Now,
                    immunity: *immunity,
                    first_half: *first_half,
                    content: content(*body),
                    duplicate_window: WINDOW_MS,
                    group,
                    client,
                    unique_id,
                    message: Message::new(0, &unit),
                };
                life::prepare(self, &prepare, (Position(logged.position), 100))
            }
            Entry::Settle { half, decision, by } => {
                let (group, counter) = (by.as_ref().map(|(group, _)| group.as_str()), by.as_ref().map(|by| by.1));
                let operator = if by.is_some() { "" } else { "operator" };
                let (half, decision) = (*half, *decision);
                let settle =
                    Settle { half, counter, decision, group, by: operator, reason: operator, rewritten: Vec::new() };
                life::settle(self, &settle, &[])
            }
            Entry::Extend { half, counter, group, until, is_answer } => {
                let (half, counter, until, is_answer) = (*half, *counter, *until, *is_answer);
                life::extend(self, &Extend { half, counter, group, until, is_answer })
            }
            Entry::Park { half, reason, by } => life::park(self, &Park { half: *half, reason: *reason, by, why: by }),
            Entry::Resume { half, by, only_if } => {
                life::resume(self, &Resume { half: *half, by, why: by, only_if: *only_if })
            }
            Entry::DeleteTopic => {
                self.is_topic_deleted = true;
                Ok(Outcome::Done)
            }
            Entry::Checked { first_checked, halves } => {
                let halves = halves.iter().map(|(half, next_due, counts, asked)| CheckedHalf {
                    half: *half,
                    next_due: *next_due,
                    counts: *counts,
                    asked,
                });
                self.first_checked = self.first_checked.max(first_checked.unwrap_or(HalfId::ZERO));
                life::checked(self, &Checked { first_checked_upto: *first_checked, halves: halves.collect() })
            }
        };
        self.applied_end = logged.position + ENTRY_BYTES;
        outcome.expect("maps can be read")
    }
}

/// A connected instance.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) group: String,
    pub(super) client: String,
    /// Whether its connection takes frames.
    pub(super) is_writable: bool,
}

/// A check that was written to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) half: HalfId,
    pub(super) connection: u64,
    pub(super) number: u32,
}

/// The effects of a round, for the checks after it.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) sent: Vec<Sent>,
    pub(super) parked: Vec<(HalfId, ParkReason)>,
}

/// The trouble with a half, for the test of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its bytes are not what was written, or no check can be made of them.
    Bytes,
    /// The disk does not answer; it may the next time.
    Disk,
}

/// Faults on the way from a plan to the connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Mishaps {
    /// The log takes nothing of the round.
    pub(super) refused: bool,
    /// These connections close before anything is written to them.
    pub(super) closing: Vec<u64>,
}

/// The broker.
pub(super) struct World {
    pub(super) now: Stamp,
    pub(super) policy: CheckPolicy,
    pub(super) tables: Tables,
    pub(super) log: VecDeque<Logged>,
    end: u64,
    pub(super) scheduler: RefCell<Scheduler>,
    walk: Walk,
    pub(super) members: BTreeMap<u64, Member>,
    next_connection: u64,
    joined: Vec<String>,
    pub(super) faults: HashMap<HalfId, Fault>,
    /// Halves that are looked at again once the runner's commands are applied.
    returned: Vec<HalfId>,
    /// When the next round comes by itself.
    wake: Stamp,
    /// The next round comes at once.
    pub(super) attention: bool,
}

struct Seen<'a>(&'a World);

impl View for Seen<'_> {
    type Error = String;

    fn half(&self, half: HalfId) -> Result<Option<HalfRow>, String> {
        Ok(self.0.tables.halves.get(&half).cloned())
    }

    fn scan_due(&self, after: (Stamp, HalfId), upto: Stamp, limit: usize) -> Result<Vec<(Stamp, HalfId)>, String> {
        let behind = self.0.tables.due.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
        Ok(behind.copied().take_while(|(due, _)| *due <= upto).take(limit).collect())
    }

    fn earliest_due(&self, after: Stamp) -> Result<Option<Stamp>, String> {
        Ok(self.0.tables.due.range((after + 1, HalfId::ZERO)..).next().map(|(due, _)| *due))
    }

    fn scan(&self, from: HalfId, each: &mut dyn FnMut(HalfRow) -> bool) -> Result<(), String> {
        for row in self.0.tables.halves.range(from..).map(|(_, row)| row) {
            if !each(row.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn parked_without_checker(&self, group: &str, after: HalfId, limit: usize) -> Result<Page<HalfId>, String> {
        let parked = |row: &&HalfRow| {
            let reason = row.parked.map(|(reason, _)| reason);
            row.group == group && row.first_half.is_none() && reason == Some(ParkReason::NoChecker)
        };
        let rows = self.0.tables.halves.range(after.next()..).map(|(_, row)| row).filter(parked).take(limit);
        let halves: Vec<HalfId> = rows.map(|row| row.half).collect();
        let next = if halves.len() < limit { None } else { halves.last().copied() };
        Ok(Page { halves, next })
    }

    fn open_of_topic(&self, topic: QueueId, after: HalfId, limit: usize) -> Result<Page<HalfRow>, String> {
        let rows = self.0.tables.halves.range(after.next()..).map(|(_, row)| row);
        let open = rows.filter(|row| row.parked.is_none() && row.topic == topic);
        let halves: Vec<HalfRow> = open.take(limit).cloned().collect();
        let next = if halves.len() < limit { None } else { halves.last().map(|row| row.half) };
        Ok(Page { halves, next })
    }

    fn has_queue(&self, _queue: QueueId) -> bool {
        !self.0.tables.is_topic_deleted
    }

    fn next_half(&self) -> HalfId {
        HalfId(self.0.tables.applied_end)
    }

    fn settled_upto(&self, now: Stamp) -> Stamp {
        if self.0.log.is_empty() { now } else { self.0.tables.stamp.unwrap_or(Stamp::ZERO) }
    }

    fn instances(&self, group: &str) -> Vec<Instance> {
        let members = self.0.members.iter().filter(|(_, member)| member.group == group);
        members
            .map(|(connection, member)| Instance {
                connection: *connection,
                client: Arc::from(member.client.as_str()),
                is_writable: member.is_writable,
            })
            .collect()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Scheduler) -> T) -> T {
        change(&mut self.0.scheduler.borrow_mut())
    }
}

impl World {
    pub(super) fn new(policy: CheckPolicy, now: Stamp) -> Self {
        let mut world = Self {
            now,
            policy,
            tables: Tables::default(),
            log: VecDeque::new(),
            end: ENTRY_BYTES,
            scheduler: RefCell::default(),
            walk: Walk::begin(HalfId::ZERO),
            members: BTreeMap::new(),
            next_connection: 1,
            joined: Vec::new(),
            faults: HashMap::new(),
            returned: Vec::new(),
            wake: now,
            attention: true,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let mut scheduler = Scheduler::default();
        scheduler.begin(self.now);
        scheduler.set_policy(self.policy);
        self.scheduler = RefCell::new(scheduler);
        self.walk = Walk::begin(self.tables.first_checked);
        self.attention = true;
    }

    /// The process ends and another one begins: what was not in the tables or in what is kept of the log is gone.
    pub(super) fn restart(&mut self, kept_of_log: usize) {
        self.log.truncate(kept_of_log);
        self.end = self.log.back().map_or(self.tables.applied_end, |last| last.position + ENTRY_BYTES).max(ENTRY_BYTES);
        self.members.clear();
        self.joined.clear();
        self.returned.clear();
        self.log.iter_mut().for_each(|logged| logged.by_runner = false);
        self.begin();
    }

    pub(super) fn connect(&mut self, group: &str, client: &str) -> u64 {
        let id = self.next_connection;
        self.next_connection += 1;
        let member = Member { group: group.to_owned(), client: client.to_owned(), is_writable: true };
        self.members.insert(id, member);
        self.joined.push(group.to_owned());
        self.attention = true;
        id
    }

    pub(super) fn disconnect(&mut self, connection: u64) {
        self.members.remove(&connection);
        let mut scheduler = self.scheduler.borrow_mut();
        scheduler.closed(connection);
        self.attention |= scheduler.held() > 0;
    }

    /// Gives a command its place in the log: its position, which for Prepare is the id of the half.
    pub(super) fn submit(&mut self, entry: Entry) -> u64 {
        self.put(entry, false)
    }

    fn put(&mut self, entry: Entry, by_runner: bool) -> u64 {
        let position = self.end;
        self.end += ENTRY_BYTES;
        self.log.push_back(Logged { position, stamp: self.now, entry, by_runner });
        position
    }

    /// Applies the next entry, and tells the scheduler what handlers tell it then.
    pub(super) fn apply_next(&mut self) -> Option<Applied> {
        let logged = self.log.pop_front()?;
        let outcome = self.tables.apply(&logged);
        self.attention = true;
        let mut scheduler = self.scheduler.borrow_mut();
        let is_done = !matches!(outcome, Outcome::Refused(_));
        match &logged.entry {
            Entry::Resume { half, .. } if is_done && !logged.by_runner => scheduler.look_again(*half),
            Entry::Extend { half, until, .. } if is_done && !logged.by_runner => {
                let (group, first) = self.tables.whose(*half).expect("it is there");
                scheduler.waits_no_more(group, first);
                scheduler.recheck_from(*until);
            }
            Entry::DeleteTopic => scheduler.topic_deleted(QueueId(1)),
            Entry::Settle { half, .. } | Entry::Park { half, .. } if is_done => {
                let (group, first) = self.tables.whose(*half).expect("it is there");
                scheduler.waits_no_more(group, first);
            }
            _ => {}
        }
        drop(scheduler);
        Some(Applied { logged, outcome })
    }

    /// Whether the runner may begin a round: it waits for its own commands.
    pub(super) fn may_look(&self) -> bool {
        !self.log.iter().any(|logged| logged.by_runner)
    }

    /// When the next round is due.
    pub(super) fn next_look(&self) -> Stamp {
        if self.attention { self.now } else { self.wake }
    }

    /// A round, carried out as the runner does it.
    pub(super) fn look(&mut self, mishaps: &Mishaps) -> Done {
        assert!(self.may_look(), "the runner waits for its commands");
        self.attention = false;
        for half in std::mem::take(&mut self.returned) {
            self.scheduler.borrow_mut().look_again(half);
        }
        for group in std::mem::take(&mut self.joined) {
            self.scheduler.borrow_mut().joined(Arc::from(group));
        }
        let mut walk = self.walk.clone();
        let (mut round, error) = plan(&mut walk, &Seen(self), self.now);
        assert_eq!(error, None);
        self.walk = walk;
        self.wake = round.next.map_or(Stamp::MAX, |next| next.max(self.now)).min(self.now + LOOK_EVERY_MS);
        self.attention |= round.more;
        let ready = self.make_checks(&mut round.asks, &mut round.moved, &mut round.parked);
        if mishaps.refused {
            return self.refuse(&ready, round.resumptions);
        }
        let mut done = Done { sent: Vec::new(), parked: round.parked };
        for (half, reason) in done.parked.clone() {
            self.put(Entry::Park { half, reason, by: "" }, true);
        }
        for Resumption { half, .. } in round.resumptions {
            self.put(Entry::Resume { half, by: "", only_if: Some(ParkReason::NoChecker) }, true);
            self.returned.push(half);
        }
        let moved = round.moved.iter().map(|(half, due)| (*half, *due, false, String::new()));
        let asked = ready.iter().map(|ask| {
            let client = self.members[&ask.connection].client.clone();
            (ask.row.half, ask.next_due, true, client)
        });
        let halves: Vec<_> = moved.chain(asked).collect();
        if !halves.is_empty() {
            self.put(Entry::Checked { first_checked: Some(round.first_checked), halves }, true);
        }
        mishaps.closing.iter().for_each(|connection| self.disconnect(*connection));
        for ask in &ready {
            self.write(ask, &mut done);
        }
        done
    }

    fn make_checks(
        &self,
        asks: &mut Vec<Ask>,
        moved: &mut Vec<(HalfId, Stamp)>,
        parked: &mut Vec<(HalfId, ParkReason)>,
    ) -> Vec<Ask> {
        let mut ready = Vec::new();
        for ask in asks.drain(..) {
            let half = ask.row.half;
            let Some(fault) = self.faults.get(&half) else {
                ready.push(ask);
                continue;
            };
            self.scheduler.borrow_mut().not_sent(ask.connection, half);
            match fault {
                Fault::Disk => moved.push((half, ask.next_due)),
                Fault::Bytes => parked.push((half, ParkReason::Unreadable)),
            }
        }
        ready
    }

    /// Nothing of the round is in the log: nobody is asked, and everything is looked at again.
    fn refuse(&mut self, ready: &[Ask], resumed: Vec<Resumption>) -> Done {
        let mut scheduler = self.scheduler.borrow_mut();
        for ask in ready {
            scheduler.not_sent(ask.connection, ask.row.half);
        }
        for Resumption { group, .. } in resumed {
            scheduler.joined(group);
        }
        drop(scheduler);
        self.walk = Walk::begin(self.tables.first_checked);
        self.attention = true;
        Done::default()
    }

    fn write(&mut self, ask: &Ask, done: &mut Done) {
        let half = ask.row.half;
        let mut connection = ask.connection;
        while !self.members.contains_key(&connection) {
            let instances = Seen(self).instances(&ask.row.group);
            let next = self.scheduler.borrow_mut().elsewhere(&ask.row, connection, &instances, self.now);
            let Some(next) = next else {
                let (counter, group) = (ask.row.counter, ask.row.group.clone());
                self.put(Entry::Extend { half, counter, group, until: self.now, is_answer: true }, true);
                self.returned.push(half);
                return;
            };
            connection = next;
            let client = self.members[&connection].client.clone();
            let halves = vec![(half, ask.next_due, false, client)];
            self.put(Entry::Checked { first_checked: None, halves }, true);
        }
        done.sent.push(Sent { half, connection, number: ask.number });
    }

    /// A producer answers a check. Says whether its connection owed the answer.
    pub(super) fn answered(&mut self, connection: u64, half: HalfId) -> bool {
        let mut scheduler = self.scheduler.borrow_mut();
        let owed = scheduler.answered(connection, half).is_some();
        self.attention |= owed && scheduler.held() > 0;
        owed
    }

    /// The groups that have an instance.
    pub(super) fn groups(&self) -> HashSet<&str> {
        self.members.values().map(|member| member.group.as_str()).collect()
    }
}
