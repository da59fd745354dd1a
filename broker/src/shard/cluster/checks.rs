//! Check-backs in a run: what each node asks, and what the producers answer.
//!
//! Judged at each check: no member of an older term asks once another one leads; a check is about a half that is there, and whose
//! time before the first check has passed, whatever the leaders' clocks say.

use std::collections::BTreeMap;
use std::time::Duration;

use escrowmq_common::code::request;
use escrowmq_common::header::CheckTransactionStateHeader;

use super::clients::Clients;
use super::desk::FIRST_CHECK;
use super::node::Node;
use crate::log::sim_disk::Random;
use crate::terms::{Decision, HalfId, Stamp};

/// A half is left alone for so long at least: a leader's clock may run a tenth faster, and stamps are whole milliseconds.
const LEFT_ALONE: Duration =
    FIRST_CHECK.saturating_mul(10).checked_div(11).expect("not by zero").saturating_sub(Duration::from_millis(2));

/// A check that its producer has not answered.
struct Check {
    seat: usize,
    life: u64,
    half: HalfId,
    counter: u64,
    at: Duration,
}

/// See the module.
pub(super) struct Checks {
    waiting: Vec<Check>,
    random: Random,
    /// When members began to lead.
    pub(super) began: Vec<Duration>,
    /// Checks that came.
    pub(super) asked: u64,
    /// The checks of each half, by the term of the leader that asked.
    pub(super) by_half: BTreeMap<HalfId, BTreeMap<u64, u64>>,
}

impl Checks {
    pub(super) fn new(seed: u64) -> Self {
        Self { waiting: Vec::new(), random: Random::new(seed), began: Vec::new(), asked: 0, by_half: BTreeMap::new() }
    }

    /// When the next producer answers.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.waiting.iter().map(|check| check.at).min()
    }

    /// Takes the checks that nodes have sent.
    pub(super) fn look(&mut self, clients: &Clients, nodes: &[Node], now: Duration) -> Result<(), String> {
        for node in nodes {
            let Some(desk) = node.desk() else { continue };
            for instance in &desk.instances {
                for frame in instance.requests()? {
                    if frame.code != request::CHECK_TRANSACTION_STATE {
                        continue;
                    }
                    let header: CheckTransactionStateHeader<'_> = frame.header().map_err(|error| error.to_string())?;
                    let half = HalfId(header.commit_log_offset.cast_unsigned());
                    self.note(nodes, node, half)?;
                    let sent = clients.halves.iter().find(|known| known.id == half).and_then(|known| known.sent);
                    // Of two changes the second leader does not know by how much the first one's time leapt.
                    let is_known = |sent: &Duration| self.began.iter().filter(|began| *began >= sent).count() < 2;
                    if let Some(early) = sent.filter(is_known).filter(|sent| now < *sent + LEFT_ALONE) {
                        return Err(format!(
                            "node {} asks about half {half} {:?} after it was sent",
                            node.seat,
                            now.saturating_sub(early)
                        ));
                    }
                    let counter = header.tran_state_table_offset.cast_unsigned();
                    let at = now + Duration::from_millis(1 + self.random.below(200));
                    self.waiting.push(Check { seat: node.seat, life: node.life, half, counter, at });
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, nodes: &[Node], asks: &Node, half: HalfId) -> Result<(), String> {
        self.asked += 1;
        // Nobody asks who has no term: its office is held in one.
        let term = asks.term_led().unwrap_or(0);
        *self.by_half.entry(half).or_default().entry(term).or_default() += 1;
        let newer = nodes.iter().find(|node| node.seat != asks.seat && node.term_led() > Some(term));
        newer.map_or(Ok(()), |newer| {
            Err(format!(
                "node {} asks about half {half} in term {term}, and node {} leads in term {:?}",
                asks.seat,
                newer.seat,
                newer.term_led()
            ))
        })
    }

    /// Lets a producer answer a check. Says whether one did.
    pub(super) fn step(&mut self, clients: &mut Clients, nodes: &[Node], now: Duration) -> bool {
        let Some(due) = self.waiting.iter().position(|check| check.at <= now) else { return false };
        if !clients.may_answer() {
            return false;
        }
        let check = self.waiting.remove(due);
        let node = &nodes[check.seat];
        // The connection is gone otherwise, and the answer with it.
        let is_there = node.life == check.life && now >= node.paused_until;
        if let Some(desk) = node.desk().filter(|_| is_there) {
            for instance in &desk.instances {
                desk.transactions.answered(instance.connection.id(), check.half, Stamp(check.at.as_millis() as u64));
            }
            // While there are faults some do not know yet.
            if clients.active && self.random.below(3) == 0 {
                return true;
            }
            let commit = self.random.below(2) == 0;
            let wanted = if commit { Decision::Commit } else { Decision::Rollback };
            clients.answer(check.half, check.counter, wanted, node, now);
        }
        true
    }
}
