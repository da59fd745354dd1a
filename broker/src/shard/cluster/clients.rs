//! Clients of the group: producers that know what they sent and what they were told, and a reader that looks at queue ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::cuts::act::{Act, PRODUCERS, Place};
use super::super::cuts::life::change_settings;
use super::net::Seat;
use super::node::Node;
use crate::log::sim_disk::Random;
use crate::shard::{Admission, Outcome, Shard, SubmitError};
use crate::terms::{Decision, Entered, FEATURE_LEVEL, HalfId, Position, QueueId, QueueOffset, When};

/// Producers that send and decide.
const PRODUCERS_COUNT: usize = 4;
/// Those, and the ones that answer checks.
const CLIENTS: usize = PRODUCERS_COUNT + 2;
/// A command is answered by then, by whatever answer, if its node runs.
const ANSWERED_WITHIN: Duration = Duration::from_millis(3500);
/// The topic and the number of its queues.
pub(super) const TOPIC: (&str, u32) = ("topic", 3);

/// A command, and what became of it.
pub(super) struct Op {
    pub(super) act: Act,
    to: Seat,
    life: u64,
    at: Duration,
    /// In the order of everything that happens.
    pub(super) invoked: u64,
    pub(super) answered: Option<u64>,
    /// No result: the node ended, or the run did. The outcome is unknown.
    pub(super) result: Option<Result<Outcome, SubmitError>>,
}

impl Op {
    /// Whether it may have happened.
    pub(super) fn is_unknown(&self) -> bool {
        match &self.result {
            None => true,
            Some(Err(error)) => error.outcome_unknown(),
            Some(Ok(_)) => false,
        }
    }
}

/// A half that a producer knows.
#[derive(Clone)]
pub(super) struct Half {
    pub(super) id: HalfId,
    pub(super) counter: u64,
    /// When its producer sent it first; `None` if the producer was not told of it.
    pub(super) sent: Option<Duration>,
    /// What its producer decides, once it has.
    pub(super) intent: Option<Decision>,
    /// Somebody was told that it is decided.
    pub(super) settled: Option<Decision>,
}

type Results = Arc<Mutex<Vec<(usize, u64, Result<Outcome, SubmitError>)>>>;

/// See the module.
pub(super) struct Clients {
    pub(super) ops: Vec<Op>,
    pub(super) halves: Vec<Half>,
    results: Results,
    /// The command that each producer waits for.
    waits: Vec<Option<usize>>,
    next_at: Vec<Duration>,
    target: Vec<Seat>,
    reads_at: Duration,
    pub(super) reads: u64,
    queues: Vec<(u32, Place)>,
    /// Queue ends that somebody was told of, or saw.
    pub(super) ends: BTreeMap<u32, QueueOffset>,
    random: Random,
    now: u64,
    bodies: u64,
    /// Old messages go.
    trims: bool,
    /// Somebody was told that the group runs at the feature level that has settings.
    is_raised: bool,
    /// New commands are made.
    pub(super) active: bool,
}

impl Clients {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            ops: Vec::new(),
            halves: Vec::new(),
            results: Results::default(),
            waits: vec![None; CLIENTS],
            next_at: vec![Duration::ZERO; CLIENTS],
            target: vec![0; CLIENTS],
            reads_at: Duration::ZERO,
            reads: 0,
            queues: Vec::new(),
            ends: BTreeMap::new(),
            random: Random::new(seed),
            now: 0,
            bodies: 0,
            trims: seed.is_multiple_of(2),
            is_raised: false,
            active: true,
        }
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.waits.iter().all(Option::is_none)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.ops.iter().filter(|op| matches!(op.result, Some(Ok(_)))).count() as u64
    }

    /// When the next client has something to do.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let idle = self
            .next_at
            .iter()
            .zip(&self.waits)
            .take(PRODUCERS_COUNT)
            .filter(|(_, waits)| waits.is_none())
            .map(|(at, _)| *at);
        idle.chain([self.reads_at]).min().filter(|_| self.active)
    }

    /// Takes answers, and lets one client do something. Says whether anybody did.
    pub(super) fn step(&mut self, nodes: &[Node], now: Duration) -> Result<bool, String> {
        self.now += 1;
        let results = std::mem::take(&mut *self.results.lock());
        let mut worked = !results.is_empty();
        for (op, life, result) in results {
            self.take(op, life, result, nodes, now)?;
        }
        self.give_up_on_the_dead(nodes, now)?;
        if !self.active {
            return Ok(worked);
        }
        if now >= self.reads_at {
            self.reads_at = now + Duration::from_millis(5 + self.random.below(40));
            self.read(nodes)?;
            worked = true;
        }
        for client in 0..PRODUCERS_COUNT {
            if self.waits[client].is_none() && now >= self.next_at[client] {
                self.send(client, nodes, now);
                return Ok(true);
            }
        }
        Ok(worked)
    }

    fn take(
        &mut self,
        nth: usize,
        life: u64,
        result: Result<Outcome, SubmitError>,
        nodes: &[Node],
        now: Duration,
    ) -> Result<(), String> {
        let op = &mut self.ops[nth];
        // The connection broke before it was told.
        let alive = nodes[op.to].life == life && nodes[op.to].is_up();
        if op.result.is_some() {
            return Err(format!("{:?} was answered twice", op.act));
        }
        let Some(client) = self.waits.iter().position(|waits| *waits == Some(nth)) else { return Ok(()) };
        self.waits[client] = None;
        self.next_at[client] = now + Duration::from_millis(self.random.below(30));
        if !alive {
            return Ok(());
        }
        op.answered = Some(self.now);
        let act = op.act.clone();
        if let Err(error) = &result {
            // Somebody else may lead.
            self.target[client] = (self.target[client] + 1) % nodes.len();
            if matches!(error, SubmitError::NotLeader) {
                self.next_at[client] = now + Duration::from_millis(20 + self.random.below(60));
            }
        }
        op.result = Some(result.clone());
        if let Ok(outcome) = result {
            self.learn(&act, &outcome)?;
        }
        Ok(())
    }

    /// What an answer says is known from now on.
    fn learn(&mut self, act: &Act, outcome: &Outcome) -> Result<(), String> {
        match (act, outcome) {
            (Act::Publish { queue, bodies, .. }, Outcome::Published(published)) => {
                if let Entered::Queue(first) = published.entered {
                    let end = self.ends.entry(*queue).or_insert(QueueOffset::ZERO);
                    *end = (*end).max(QueueOffset(first.get() + bodies.len() as u64));
                }
            }
            (Act::Prepare { unique_id, .. }, Outcome::Prepared(half)) => {
                // It may have been sent before, and be the half of then.
                let is_same = |op: &&Op| matches!(&op.act, Act::Prepare { unique_id: other, .. } if other == unique_id);
                let sent = self.ops.iter().filter(is_same).map(|op| op.at).min();
                let known = Half { id: half.half, counter: half.counter, sent, intent: None, settled: None };
                self.halves.push(known);
            }
            (Act::Settle { half, .. }, Outcome::Settled(settled)) => self.note_settled(*half, settled.decision)?,
            (Act::Settle { half, .. }, Outcome::Refused(crate::shard::Refusal::AlreadyDecided(settled))) => {
                self.note_settled(*half, settled.decision)?;
            }
            (Act::PutTopic { .. } | Act::Offsets(_) | Act::Trim { .. } | Act::Settings { .. }, Outcome::Done) => {}
            (Act::Feature(_), Outcome::Done) => self.is_raised = true,
            (act, outcome) => return Err(format!("{act:?} was answered with {outcome:?}")),
        }
        Ok(())
    }

    fn note_settled(&mut self, half: HalfId, decision: Decision) -> Result<(), String> {
        let half = self.halves.iter_mut().find(|known| known.id == half).ok_or("a half that nobody knows")?;
        if half.settled.is_some_and(|settled| settled != decision) {
            return Err(format!("half {} was decided twice: {:?} and {decision:?}", half.id, half.settled));
        }
        half.settled = Some(decision);
        Ok(())
    }

    /// Answers of nodes that ended never come. Those of a node that runs come in time.
    fn give_up_on_the_dead(&mut self, nodes: &[Node], now: Duration) -> Result<(), String> {
        for client in 0..CLIENTS {
            let Some(nth) = self.waits[client] else { continue };
            let op = &self.ops[nth];
            let node = &nodes[op.to];
            if node.life != op.life || !node.is_up() {
                self.waits[client] = None;
                self.next_at[client] = now + Duration::from_millis(self.random.below(50));
                self.target[client] = (op.to + 1) % nodes.len();
            } else if now > op.at.max(node.paused_until) + ANSWERED_WITHIN {
                let load = node.shard().map(|shard| (shard.intake().entries(), shard.intake().bytes()));
                return Err(format!(
                    "at {now:?} node {} has not answered what came at {:?}; it leads {:?}, on their way {load:?}, failure {:?}: {:?}",
                    op.to,
                    op.at,
                    node.term_led(),
                    node.failure(),
                    op.act,
                ));
            }
        }
        Ok(())
    }

    fn send(&mut self, client: usize, nodes: &[Node], now: Duration) {
        let to = self.target[client];
        let Some(shard) = nodes[to].shard().filter(|_| now >= nodes[to].paused_until).cloned() else {
            self.target[client] = (to + 1) % nodes.len();
            self.next_at[client] = now + Duration::from_millis(5 + self.random.below(20));
            return;
        };
        let act = self.act(&shard);
        self.submit(&shard, act, client, &nodes[to], now);
    }

    /// Sends a command to a node for a producer that waits for nothing.
    fn submit(&mut self, shard: &Shard, act: Act, client: usize, node: &Node, now: Duration) {
        let nth = self.ops.len();
        let (results, life) = (Arc::clone(&self.results), node.life);
        let refused = Arc::clone(&results);
        let completion = Box::new(move |result| results.lock().push((nth, life, result)));
        // As the handlers of a broker admit them.
        let admission = match &act {
            Act::Publish { .. } | Act::Prepare { .. } => Admission::Normal,
            _ => Admission::Reserved,
        };
        act.with_command(|command| {
            if let Err((error, _)) = shard.submit(command, admission, completion) {
                refused.lock().push((nth, life, Err(error)));
            }
        });
        let (to, invoked) = (node.seat, self.now);
        self.ops.push(Op { act, to, life, at: now, invoked, answered: None, result: None });
        self.waits[client] = Some(nth);
    }

    /// Whether an answer to a check can be given now.
    pub(super) fn may_answer(&self) -> bool {
        self.waits[PRODUCERS_COUNT..].contains(&None)
    }

    /// A producer answers a check: with what it decided before, else with `wanted`.
    pub(super) fn answer(&mut self, half: HalfId, counter: u64, wanted: Decision, node: &Node, now: Duration) {
        let Some(shard) = node.shard().cloned() else { return };
        if !self.halves.iter().any(|known| known.id == half) {
            // Its producer was not told of it.
            self.halves.push(Half { id: half, counter, sent: None, intent: None, settled: None });
        }
        let known = self.halves.iter_mut().rev().find(|known| known.id == half);
        let decision = known.map_or(wanted, |known| *known.intent.get_or_insert(wanted));
        let client = (PRODUCERS_COUNT..CLIENTS).find(|client| self.waits[*client].is_none());
        let client = client.expect("somebody may answer");
        self.submit(&shard, settle(half, counter, decision), client, node, now);
    }

    fn body(&mut self) -> String {
        self.bodies += 1;
        let length = if self.random.below(20) == 0 { 3000 } else { self.random.below(300) as usize };
        format!("{}-{}", self.bodies, "x".repeat(length))
    }

    /// Some messages wait for their time.
    fn when(&mut self) -> When {
        match self.random.below(6) {
            0 => When::After(100 + self.random.below(3000)),
            _ => When::Now,
        }
    }

    fn act(&mut self, shard: &Shard) -> Act {
        let count = self.queues.len() as u64;
        if count == 0 {
            return Act::PutTopic { name: TOPIC.0.to_owned(), queues: TOPIC.1 };
        }
        let (queue, place) = self.queues[self.random.below(count) as usize].clone();
        match self.random.below(100) {
            0..45 => {
                let bodies = (0..=self.random.below(2)).map(|_| self.body()).collect();
                Act::Publish { queue, place, when: self.when(), bodies, once: false }
            }
            45..70 => {
                let (body, when) = (self.body(), self.when());
                Act::Prepare { queue, place, when, unique_id: body.clone(), body, first_half: None }
            }
            70..95 if !self.halves.is_empty() => {
                // Mostly one of the last, decided or not.
                let recent = self.random.below(8.min(self.halves.len() as u64)) as usize;
                let commit = self.random.below(3) > 0;
                // The oldest open one keeps old bytes from going.
                let oldest = self.trims && self.random.below(2) == 0;
                let oldest = self.halves.iter().position(|half| half.settled.is_none()).filter(|_| oldest);
                let nth = oldest.unwrap_or(self.halves.len() - 1 - recent);
                let half = &mut self.halves[nth];
                let intent = *half.intent.get_or_insert(if commit { Decision::Commit } else { Decision::Rollback });
                let opposite = if intent == Decision::Commit { Decision::Rollback } else { Decision::Commit };
                let decision = if self.random.below(12) == 0 { opposite } else { intent };
                settle(half.id, half.counter, decision)
            }
            95..97 if !self.is_raised => Act::Feature(FEATURE_LEVEL),
            95..97 => change_settings(&mut self.random),
            _ if self.trims && self.random.below(2) == 0 => {
                // Up to any segment, and no further.
                let segments = shard.log().segments();
                let upto = self.random.below(segments.len().max(1) as u64) as usize;
                let upto = segments.get(upto).map_or(Position::ZERO, |segment| segment.start);
                Act::Trim { upto }
            }
            _ => {
                let offset = QueueOffset(self.random.below(50));
                Act::Offsets(vec![(format!("group-{}", self.random.below(2)), queue, offset)])
            }
        }
    }

    /// Looks at the queue ends of a node that may answer reads: it shows what anybody was told before.
    fn read(&mut self, nodes: &[Node]) -> Result<(), String> {
        let node = &nodes[self.random.below(nodes.len() as u64) as usize];
        let Some(storage) = node.storage() else { return Ok(()) };
        if self.queues.is_empty() {
            self.find_queues(&storage.shard);
        }
        if !storage.lease().holds() {
            return Ok(());
        }
        self.reads += 1;
        for topic in storage.shard.topics().all() {
            for queue in &topic.queues {
                let known = self.ends.entry(queue.id.0).or_insert(QueueOffset::ZERO);
                let found = queue.max_offset();
                if found < *known {
                    return Err(format!(
                        "node {} leads and shows queue {} up to {found}, and somebody knows it up to {known}",
                        node.seat, queue.id
                    ));
                }
                *known = found;
            }
        }
        Ok(())
    }

    fn find_queues(&mut self, shard: &Shard) {
        let Some(topic) = shard.topics().all().into_iter().find(|topic| topic.settings.name == TOPIC.0) else { return };
        let place = |nth: usize| (TOPIC.0.to_owned(), nth as i32);
        let ids = topic.queues.iter().map(|queue| queue.id);
        self.queues = ids.enumerate().map(|(nth, QueueId(id))| (id, place(nth))).collect();
    }
}

fn settle(half: HalfId, counter: u64, decision: Decision) -> Act {
    Act::Settle { half, counter, group: PRODUCERS.to_owned(), decision, rewritten: Vec::new() }
}
