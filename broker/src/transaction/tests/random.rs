//! Random lives of transactions, against a simple model.
//!
//! Prepares, repeats, members, commits, rollbacks, unknowns, leases, late and opposite decisions, answered and unanswered
//! checks, operators, connections that come, go, block or close in the middle of a round, refused commands, restarts that
//! lose the end of the log, halves that cannot be read, and time, in any order. The [`model`](super::model) says what each
//! may bring. At the end of a life all is healed, and what is undecided must end decided or parked.
//!
//! `a_million_random_steps` is part of the normal test run. A failure names its seed and the steps before it;
//! `ESCROWMQ_LIFE=<seed>` plays that life alone, `ESCROWMQ_LIVES=<number>` plays more of them.

use std::collections::HashMap;

use super::model::{Model, Told};
use super::world::{Entry, Fault, Mishaps, World};
use crate::log::sim_disk::Random;
use crate::terms::{Decision, HalfId, ParkReason, Stamp};
use crate::transaction::engine::CheckPolicy;

/// Steps of one life.
const STEPS: u64 = 4_000;
/// Lives of the normal run: a million steps.
const LIVES: u64 = 250;
const BEGIN: Stamp = Stamp(1_000_000_000);
const GROUPS: [&str; 3] = ["orders", "billing", "stock"];
/// Client ids: few, so that several connections have the same.
const CLIENTS: [&str; 4] = ["p1", "p2", "p3", "p4"];

type Said<T> = Result<T, String>;

/// The steps so far, shown with a failure.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "read through Debug")]
enum Step {
    Submit(u64, Entry),
    Applied(u64, Told),
    Asked(HalfId, u64, u32),
    Parked(HalfId, ParkReason),
    Look(Mishaps),
    Connect(u64, &'static str, &'static str),
    Disconnect(u64),
    Blocked(u64, bool),
    Answered(u64, HalfId, bool),
    Fault(HalfId, Option<Fault>),
    Time(Stamp),
    Restart(usize),
    Heal,
}

struct Life {
    random: Random,
    world: World,
    model: Model,
    steps: Vec<Step>,
    /// Every half that was ever prepared, to be named again.
    halves: Vec<HalfId>,
    /// Checks on their way: connection and half.
    on_the_way: Vec<(u64, HalfId)>,
    next_key: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let policy = CheckPolicy {
            first_after: 6_000,
            interval: 30_000,
            checks_max: 1 + random.below(12) as u32,
            park_after: [60_000, 600_000, 86_400_000][random.below(3) as usize],
            leapt: None,
        };
        Self {
            random,
            world: World::new(policy, BEGIN),
            model: Model::new(policy, BEGIN),
            steps: Vec::new(),
            halves: Vec::new(),
            on_the_way: Vec::new(),
            next_key: 0,
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        if list.is_empty() { None } else { Some(list[self.random.below(list.len() as u64) as usize]) }
    }

    /// Some half, more often one of the latest.
    fn any_half(&mut self) -> Option<HalfId> {
        let recent = self.halves.len().saturating_sub(30);
        let from = if self.one_in(3) { 0 } else { recent };
        if self.halves.is_empty() {
            return None;
        }
        let nth = from + self.nth(self.halves.len() - from);
        Some(self.halves[nth])
    }

    fn any_connection(&mut self) -> Option<u64> {
        let connections: Vec<u64> = self.world.members.keys().copied().collect();
        self.of(&connections)
    }

    fn step(&mut self) -> Said<()> {
        match self.random.below(1000) {
            0..150 => self.prepare(),
            150..180 => self.prepare_member(),
            180..205 => self.repeat(),
            205..280 => self.decide(),
            280..420 => return self.answer(),
            420..440 => self.keep_alive(),
            440..480 => self.operate(),
            480..515 => self.connect(),
            515..540 => self.disconnect(),
            540..555 => self.block(),
            555..563 => self.fault(),
            563..565 => return self.restart(),
            565..566 => self.burst(),
            566..700 => self.pass_time(),
            700..860 => return self.apply_some(),
            _ => return self.look(true),
        }
        Ok(())
    }

    fn submit(&mut self, entry: Entry) -> u64 {
        let position = self.world.submit(entry.clone());
        self.steps.push(Step::Submit(position, entry));
        position
    }

    fn prepare(&mut self) {
        let immunity = if self.one_in(4) { Some(self.random.below(90_000)) } else { None };
        let key = self.new_key();
        let group = GROUPS[self.nth(GROUPS.len())];
        self.prepare_as(group, key, 0, immunity, None);
    }

    fn prepare_as(&mut self, group: &str, key: String, body: u32, immunity: Option<u64>, first: Option<HalfId>) {
        let client = CLIENTS[self.nth(CLIENTS.len())].to_owned();
        let group = group.to_owned();
        let half = self.submit(Entry::Prepare { group, client, unique_id: key, body, immunity, first_half: first });
        self.halves.push(HalfId(half));
    }

    fn nth(&mut self, len: usize) -> usize {
        self.random.below(len as u64) as usize
    }

    fn new_key(&mut self) -> String {
        self.next_key += 1;
        if self.one_in(10) { String::new() } else { format!("K{}", self.next_key) }
    }

    fn prepare_member(&mut self) {
        let Some(first) = self.any_half() else { return };
        let group = self.model.group_of(first).unwrap_or("orders").to_owned();
        let group = if self.one_in(20) { "billing".to_owned() } else { group };
        let key = self.new_key();
        self.prepare_as(&group, key, 0, None, Some(first));
    }

    /// Sends a half again, as it was or with another body.
    fn repeat(&mut self) {
        let Some((group, key, first)) = self.any_half().and_then(|half| self.model.send_of(half)) else { return };
        let body = u32::from(self.one_in(5));
        self.prepare_as(&group, key, body, None, first);
    }

    fn burst(&mut self) {
        // More than one connection may owe, in every third life.
        if !self.one_in(12) {
            return;
        }
        for _ in 0..1_100 {
            let key = self.new_key();
            self.prepare_as("orders", key, 0, None, None);
        }
    }

    /// A decision that nobody asked for: the producer's own, a late one, a repeated or opposite one.
    fn decide(&mut self) {
        let Some(half) = self.any_half() else { return };
        let decision = self.decision();
        self.settle(half, decision);
    }

    fn decision(&mut self) -> Decision {
        if self.one_in(2) { Decision::Commit } else { Decision::Rollback }
    }

    fn settle(&mut self, half: HalfId, decision: Decision) {
        let (group, counter) = self.named(half);
        self.submit(Entry::Settle { half, decision, by: Some((group, counter)) });
    }

    fn named(&mut self, half: HalfId) -> (String, u64) {
        let (group, counter) = self.model.named(half).unwrap_or(("orders", 0));
        let (group, counter) = (group.to_owned(), counter);
        match self.random.below(60) {
            0 => ("strangers".to_owned(), counter),
            1 => (group, counter + 1),
            _ => (group, counter),
        }
    }

    /// An instance answers a check, or answers something that it was not asked or has answered already.
    fn answer(&mut self) -> Said<()> {
        let asked = if self.on_the_way.is_empty() { None } else { Some(self.nth(self.on_the_way.len())) };
        let (connection, half) = match asked {
            // Now and then it answers once more later.
            Some(nth) if self.one_in(20) => self.on_the_way[nth],
            Some(nth) if !self.one_in(30) => self.on_the_way.swap_remove(nth),
            _ => match (self.any_connection(), self.any_half()) {
                (Some(connection), Some(half)) => (connection, half),
                _ => return Ok(()),
            },
        };
        if !self.world.members.contains_key(&connection) {
            return Ok(());
        }
        let owed = self.world.answered(connection, half);
        self.steps.push(Step::Answered(connection, half, owed));
        self.model.answered(connection, half, owed, self.world.now)?;
        match self.random.below(10) {
            0..3 => {}
            3..6 => {
                let (group, counter) = self.named(half);
                let until = self.world.now + 1 + self.random.below(100_000);
                self.submit(Entry::Extend { half, counter, group, until, is_answer: owed });
            }
            _ => {
                let decision = self.decision();
                self.settle(half, decision);
            }
        }
        Ok(())
    }

    fn keep_alive(&mut self) {
        let Some(half) = self.any_half() else { return };
        let (group, counter) = self.named(half);
        let until = self.world.now + 1 + self.random.below(100_000);
        self.submit(Entry::Extend { half, counter, group, until, is_answer: false });
    }

    fn operate(&mut self) {
        let Some(half) = self.any_half() else { return };
        let by = "operator";
        let entry = match self.random.below(6) {
            0 => Entry::Settle { half, decision: self.decision(), by: None },
            1 => Entry::Park { half, reason: ParkReason::Operator, by },
            2 => Entry::Resume { half, by, only_if: Some(ParkReason::Operator) },
            _ => Entry::Resume { half, by, only_if: None },
        };
        self.submit(entry);
    }

    fn connect(&mut self) {
        if self.world.members.len() < 6 {
            let (group, client) = (GROUPS[self.nth(GROUPS.len())], CLIENTS[self.nth(CLIENTS.len())]);
            let id = self.world.connect(group, client);
            self.steps.push(Step::Connect(id, group, client));
        }
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.any_connection() {
            self.world.disconnect(connection);
            self.model.closed(connection);
            self.steps.push(Step::Disconnect(connection));
        }
    }

    fn block(&mut self) {
        if let Some(connection) = self.any_connection()
            && let Some(member) = self.world.members.get_mut(&connection)
        {
            member.is_writable = !member.is_writable;
            self.steps.push(Step::Blocked(connection, !member.is_writable));
        }
    }

    fn fault(&mut self) {
        let Some(half) = self.any_half() else { return };
        let fault = match self.random.below(3) {
            0 => Some(Fault::Bytes),
            1 => Some(Fault::Disk),
            _ => None,
        };
        match fault {
            Some(fault) => self.world.faults.insert(half, fault),
            None => self.world.faults.remove(&half),
        };
        self.steps.push(Step::Fault(half, fault));
    }

    /// The process ends somewhere; so much of the log as was not durable is gone with it.
    fn restart(&mut self) -> Said<()> {
        let kept = self.random.below(self.world.log.len() as u64 + 1) as usize;
        self.steps.push(Step::Restart(kept));
        self.world.restart(kept);
        self.model.restarted(self.world.now);
        self.on_the_way.clear();
        // A broker that opens applies what it has before it serves.
        self.apply_all()
    }

    fn pass_time(&mut self) {
        let due = self.world.next_look().since(self.world.now);
        let by = match self.random.below(4) {
            0 => due.min(3_600_000),
            1 => self.random.below(40_000),
            _ => self.random.below(2_000),
        };
        self.world.now = self.world.now + by;
        self.steps.push(Step::Time(self.world.now));
    }

    fn apply_some(&mut self) -> Said<()> {
        for _ in 0..=self.random.below(12) {
            if !self.apply_next()? {
                break;
            }
        }
        Ok(())
    }

    fn apply_all(&mut self) -> Said<()> {
        while self.apply_next()? {}
        Ok(())
    }

    fn apply_next(&mut self) -> Said<bool> {
        let Some(applied) = self.world.apply_next() else { return Ok(false) };
        self.steps.push(Step::Applied(applied.logged.position, Told::of(&applied.outcome)));
        self.model.applied(&applied.logged, &applied.outcome, &self.world.tables)?;
        Ok(true)
    }

    /// A round, if the runner would begin one now.
    fn look(&mut self, may_go_wrong: bool) -> Said<()> {
        if !self.world.may_look() || self.world.next_look() > self.world.now {
            return Ok(());
        }
        let mut mishaps = Mishaps { refused: may_go_wrong && self.one_in(40), closing: Vec::new() };
        if may_go_wrong && !mishaps.refused && self.one_in(15) {
            mishaps.closing.extend(self.any_connection());
        }
        self.steps.push(Step::Look(mishaps.clone()));
        let before = self.world.members.clone();
        let done = self.world.look(&mishaps);
        for (half, reason) in &done.parked {
            self.steps.push(Step::Parked(*half, *reason));
            let faulty = self.world.faults.contains_key(half);
            self.model.parks(*half, *reason, &before, faulty, self.world.now)?;
        }
        for closed in mishaps.closing {
            self.model.closed(closed);
        }
        let faults = self.world.faults.len();
        for sent in done.sent {
            self.steps.push(Step::Asked(sent.half, sent.connection, sent.number));
            self.model.asked(&sent, &self.world.members, faults, self.world.now)?;
            self.on_the_way.push((sent.connection, sent.half));
        }
        Ok(())
    }

    /// Rounds and log until nothing is due now.
    fn settle_down(&mut self) -> Said<()> {
        self.apply_all()?;
        while self.world.next_look() <= self.world.now {
            self.look(false)?;
            self.apply_all()?;
        }
        Ok(())
    }

    /// Nothing goes wrong any more: everything undecided must end decided or parked.
    fn heal(&mut self) -> Said<()> {
        self.steps.push(Step::Heal);
        self.world.faults.clear();
        for connection in self.world.members.keys().copied().collect::<Vec<_>>() {
            self.world.disconnect(connection);
            self.model.closed(connection);
        }
        self.world.attention = true;
        self.settle_down()?;
        let scheduler = self.world.scheduler.take();
        let counted = GROUPS.map(|group| scheduler.waiting_of(group));
        self.world.scheduler.replace(scheduler);
        self.model.waits(&GROUPS, counted, self.world.now)?;
        for group in GROUPS {
            self.world.connect(group, "healer");
        }
        // Some lives end with answers, some with silence.
        let decides = self.one_in(2);
        let mut looks = 0;
        while self.model.open() > 0 {
            self.settle_down()?;
            self.model.is_due_asked(&self.world)?;
            for (connection, half) in std::mem::take(&mut self.on_the_way) {
                if self.world.members.contains_key(&connection) && (decides || self.one_in(2)) {
                    let owed = self.world.answered(connection, half);
                    self.model.answered(connection, half, owed, self.world.now)?;
                    if decides {
                        let decision = self.decision();
                        let (group, counter) = self
                            .model
                            .named(half)
                            .map(|(group, counter)| (group.to_owned(), counter))
                            .ok_or("no name")?;
                        self.submit(Entry::Settle { half, decision, by: Some((group, counter)) });
                    }
                }
            }
            self.apply_all()?;
            looks += 1;
            if looks > 20_000 {
                return Err(format!("{} halves stay open though all is well", self.model.open()));
            }
            self.world.now = self.world.next_look().max(self.world.now);
            self.steps.push(Step::Time(self.world.now));
        }
        self.model.compare(&self.world.tables)
    }

    /// Lives; answers how many steps it took.
    fn live(&mut self) -> Said<()> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.heal()
    }
}

/// Plays a life; an error has what is needed to look into it.
fn live(seed: u64) -> Said<()> {
    let mut life = Life::new(seed);
    life.live().map_err(|why| {
        let steps = life.steps.len();
        let last = life.steps[steps.saturating_sub(60)..].iter().map(|step| format!("  {step:?}\n"));
        let last: String = last.collect();
        format!(
            "{why}\nseed {seed}, after {steps} events (ESCROWMQ_LIFE={seed} plays it again); the last ones:\n{last}"
        )
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn a_million_random_steps() {
    const { assert!(STEPS * LIVES >= 1_000_000) };
    if let Some(seed) = number("ESCROWMQ_LIFE") {
        live(seed).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let lives = number("ESCROWMQ_LIVES").unwrap_or(LIVES);
    let mut seen: HashMap<&str, u64> = HashMap::new();
    for seed in 0..lives {
        let mut life = Life::new(seed);
        life.live().unwrap_or_else(|_| panic!("{}", live(seed).expect_err("a life is the same each time")));
        for step in &life.steps {
            *seen.entry(kind(step)).or_default() += 1;
        }
    }
    // The model has checked only the events that it saw.
    for wanted in
        ["asked", "waits parked", "exhausted", "unreadable", "refused", "repeated", "settled", "restart", "closing"]
    {
        assert!(seen.get(wanted).is_some_and(|times| *times >= lives / 10), "{wanted}: {seen:?}");
    }
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Asked(..) => "asked",
        Step::Parked(_, ParkReason::NoChecker) => "waits parked",
        Step::Parked(_, ParkReason::ChecksExhausted) => "exhausted",
        Step::Parked(_, ParkReason::Unreadable) => "unreadable",
        Step::Applied(_, Told::Refused(_)) => "refused",
        Step::Applied(_, Told::Repeats(_)) => "repeated",
        Step::Applied(_, Told::Settled { .. }) => "settled",
        Step::Restart(_) => "restart",
        Step::Look(mishaps) if !mishaps.closing.is_empty() => "closing",
        _ => "other",
    }
}
