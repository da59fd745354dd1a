//! Copies of the state on their way to nodes that lack entries: made as a broker makes them, and opened as one opens them. Only
//! the files are handed over at once, so a run shows the rules and not the transfer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::cuts::life::Rows;
use super::net::{Net, Seat, seat_at};
use super::node::Node;
use crate::log::sim_disk::Random;
use crate::raft::Hold;
use crate::snapshot::Cut;

/// A source keeps what is behind a copy for so long.
const HELD_FOR: Duration = Duration::from_secs(5);

/// The state of a node at one applied entry.
pub(super) struct Copy {
    pub(super) cut: Cut,
    pub(super) rows: Rows,
    /// The segments of its log.
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A copy for a node in this life of it.
struct Order {
    to: Seat,
    life: u64,
    /// The node that has it, and its id.
    from: Seat,
    source: u64,
    /// The files that are on their way; `None` until they are made.
    copy: Option<Copy>,
}

/// See the module.
pub(super) struct Copies {
    orders: Vec<(Duration, Order)>,
    holds: Vec<(Duration, Hold)>,
    random: Random,
    /// Copies that were put into the place of a node's own state.
    pub(super) taken: u64,
}

impl Copies {
    pub(super) fn new(seed: u64) -> Self {
        Self { orders: Vec::new(), holds: Vec::new(), random: Random::new(seed), taken: 0 }
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        self.orders.iter().map(|(at, _)| *at).chain(self.holds.iter().map(|(until, _)| *until)).min()
    }

    /// Takes orders of nodes that lack something, makes a copy, or hands one over. Says whether it did anything.
    pub(super) fn step(&mut self, nodes: &mut [Node], net: &Net, now: Duration) -> Result<bool, String> {
        self.holds.retain(|(until, _)| *until > now);
        for node in nodes.iter_mut() {
            let (to, life) = (node.seat, node.life);
            let Some(lack) = node.lack() else { continue };
            // A leader that has not applied yet that it is a member does not know its address.
            let Some(from) = seat_at(&lack.address) else { continue };
            if !self.orders.iter().any(|(_, order)| order.to == to && order.life == life) {
                let at = now + Duration::from_millis(self.random.below(300));
                self.orders.push((at, Order { to, life, from, source: lack.leader, copy: None }));
            }
        }
        let Some(due) = self.orders.iter().position(|(at, _)| *at <= now) else { return Ok(false) };
        let (_, mut order) = self.orders.swap_remove(due);
        let (to, from) = (order.to, order.from);
        let is_there = nodes[to].is_up() && nodes[to].life == order.life && now >= nodes[to].paused_until;
        match order.copy.take() {
            None => {
                let is_same = nodes[from].id() == order.source && now >= nodes[from].paused_until;
                if is_there && is_same && net.reaches(to, from) && net.reaches(from, to) {
                    let held = nodes[from].copy()?.map(|(copy, hold)| {
                        order.copy = Some(copy);
                        (now + HELD_FOR, hold)
                    });
                    self.holds.extend(held);
                    let at = now + Duration::from_millis(self.random.below(500));
                    self.orders.extend(order.copy.is_some().then_some((at, order)));
                }
            }
            Some(copy) if is_there => self.taken += u64::from(nodes[to].take(copy)?),
            Some(_) => {}
        }
        Ok(true)
    }
}
