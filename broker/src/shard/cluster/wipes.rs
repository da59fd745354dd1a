//! Members that lose their folders, and how the group gets a voter at each seat again: an empty member of another id asks for the
//! seat, or an operator removes the seat while its member runs, empties the folder and adds what starts there.
//!
//! One at a time: the next folder is lost when the seat of the one before votes again and has what the group had. Otherwise the last
//! copy of an acknowledged message may go, and that is no fault of the group's. While the voters change, something happens to the
//! leader in most cases, and another one must end what it began.

use std::collections::BTreeSet;
use std::time::Duration;

use super::faults::Faults;
use super::keeper::Wish;
use super::net::{Net, Seat};
use super::node::Node;
use crate::log::sim_disk::Random;
use crate::raft::Members;
use crate::terms::LogIndex;

/// Folders that are lost in a run.
const WIPES: u64 = 3;
/// The first one after a quiet while, the others after so long each.
const QUIET_MS: u64 = 1_500;
const EVERY_MS: u64 = 5_000;
/// Between the questions of a member that joins, as in a broker.
const ASKS_EVERY: Duration = Duration::from_millis(500);

/// A folder that is to be lost.
struct Wipe {
    at: Duration,
    /// The leader's, if there is no seat.
    seat: Option<Seat>,
    /// The member is down for so long.
    lasts: Duration,
    /// An operator removes the member first.
    is_ordered: bool,
}

/// A seat that is to have another member, until that one votes.
struct Away {
    seat: Seat,
    /// The member is down for so long.
    lasts: Duration,
    is_ordered: bool,
    /// Whether the folder is lost, and what the group had applied then.
    is_lost: bool,
    had: Option<LogIndex>,
    starts_at: Option<Duration>,
    asks_at: Duration,
    /// Voters that the group is on its way to, and the term in which that began.
    change: Option<(BTreeSet<u64>, u64)>,
}

/// See the module.
pub(super) struct Wipes {
    /// The next one is the last.
    plan: Vec<Wipe>,
    away: Option<Away>,
    random: Random,
    /// Leaders are hit while the voters change.
    strikes: bool,
    /// Folders that were lost.
    pub(super) wiped: u64,
    /// Changes of the voters that were begun.
    pub(super) changes: u64,
    /// Those that another leader ended.
    pub(super) taken_over: u64,
}

impl Wipes {
    /// No folder is lost.
    pub(super) fn none() -> Self {
        let random = Random::new(0);
        Self { plan: Vec::new(), away: None, random, strikes: true, wiped: 0, changes: 0, taken_over: 0 }
    }

    /// Some are.
    pub(super) fn plan(seed: u64, nodes: usize) -> Self {
        let mut random = Random::new(seed);
        let mut wipe = |nth| Wipe {
            at: Duration::from_millis(QUIET_MS + nth * EVERY_MS + random.below(EVERY_MS)),
            seat: (random.below(2) == 0).then_some(random.below(nodes as u64) as usize),
            lasts: Duration::from_millis(300 + random.below(2000)),
            is_ordered: random.below(3) == 0,
        };
        let plan = (0..WIPES).rev().map(&mut wipe).collect();
        Self { plan, random, ..Self::none() }
    }

    /// Whether no other folder will be lost.
    pub(super) fn is_over(&self) -> bool {
        self.plan.is_empty() && self.away.as_ref().is_none_or(|away| away.is_lost)
    }

    /// From now on nothing happens to leaders.
    pub(super) fn spare_leaders(&mut self) {
        self.strikes = false;
    }

    /// When the next one is lost, or comes back, or asks.
    pub(super) fn next_event(&self) -> Option<Duration> {
        match &self.away {
            None => self.plan.last().map(|wipe| wipe.at),
            Some(away) => Some(away.starts_at.map_or(away.asks_at, |at| at.min(away.asks_at))),
        }
    }

    /// Loses a folder, starts an empty member, or asks for it. Says whether there was anything.
    pub(super) fn step(
        &mut self,
        nodes: &mut [Node],
        faults: &mut Faults,
        net: &Net,
        now: Duration,
    ) -> Result<bool, String> {
        let Some(away) = &mut self.away else {
            let Some(wipe) = self.plan.pop_if(|wipe| wipe.at <= now) else { return Ok(false) };
            let leads = || nodes.iter().position(|node| node.term_led().is_some());
            let seat = wipe.seat.or_else(leads).unwrap_or(0);
            let Wipe { lasts, is_ordered, .. } = wipe;
            let (is_lost, starts_at, change) = (false, None, None);
            self.away = Some(Away { seat, lasts, is_ordered, is_lost, had: None, starts_at, asks_at: now, change });
            return Ok(true);
        };
        let asks = now >= away.asks_at;
        if asks {
            away.asks_at = now + ASKS_EVERY;
        }
        if !away.is_lost {
            if asks && (!away.is_ordered || away.is_removed(nodes, &mut self.random, now)) {
                away.lose(nodes, now);
                self.wiped += 1;
                faults.told.push(format!("{now:?} node {} loses its folder for {:?}", away.seat, away.lasts));
            }
            return Ok(asks);
        }
        if away.starts_at.take_if(|at| *at <= now).is_some() {
            if !nodes[away.seat].is_up() {
                nodes[away.seat].start()?;
            }
            return Ok(true);
        }
        if asks {
            away.ask(nodes, net, now);
        }
        Ok(asks)
    }

    /// Looks at the change of the members at each step.
    pub(super) fn look(&mut self, nodes: &[Node], faults: &mut Faults, now: Duration) {
        let Some(away) = &mut self.away else { return };
        let Some((term, leader, members)) = leader(nodes) else { return };
        if members.is_joint {
            if away.change.as_ref().is_none_or(|(voters, _)| *voters != members.voters) {
                self.changes += 1;
                faults.told.push(format!("{now:?} node {} changes the voters to {:?}", leader.seat, members.voters));
                away.change = Some((members.voters, term));
                if self.strikes && self.random.below(4) > 0 {
                    faults.strike(&mut self.random, now);
                }
            }
            return;
        }
        if !members.is_committed {
            return;
        }
        // If it is another one it was not begun: nobody had it but the leader of before.
        let ended = away.change.take().is_some_and(|(voters, began)| voters == members.voters && began < term);
        self.taken_over += u64::from(ended);
        let has = nodes[away.seat].shard().and_then(|shard| shard.counters().applied_index());
        if away.is_lost && is_whole(nodes, &members) && has >= away.had {
            faults.told.push(format!("{now:?} node {} votes again as {}", away.seat, nodes[away.seat].id()));
            self.away = None;
        }
    }
}

impl Away {
    /// Asks for the removal of the member, as an operator does. Says whether it is out.
    fn is_removed(&mut self, nodes: &[Node], random: &mut Random, now: Duration) -> bool {
        let Some((_, leader, members)) = leader(nodes) else { return false };
        if !members.is_joint && members.is_committed && !members.addresses.contains_key(&nodes[self.seat].id()) {
            return true;
        }
        if now < leader.paused_until {
            return false;
        }
        if leader.seat != self.seat {
            if let Some(keeper) = leader.keeper() {
                keeper.ask(Wish::Remove(self.seat));
            }
            return false;
        }
        // A leader is not removed: it hands over first, and it takes a while until it is clear who leads.
        let others: Vec<u64> = members.voters.into_iter().filter(|voter| *voter != leader.id()).collect();
        let to = others[random.below(others.len() as u64) as usize];
        if let Some(storage) = leader.storage() {
            drop(storage.shard.executor().spawn(storage.hand_over(to)));
        }
        self.asks_at = now + 5 * ASKS_EVERY;
        false
    }

    /// The folder is lost.
    fn lose(&mut self, nodes: &mut [Node], now: Duration) {
        self.had = nodes.iter().filter_map(|node| node.shard()?.counters().applied_index()).max();
        (self.is_lost, self.starts_at) = (true, Some(now + self.lasts));
        nodes[self.seat].wipe();
    }

    /// Asks the leader for the seat.
    fn ask(&self, nodes: &[Node], net: &Net, now: Duration) {
        let (seat, own) = (self.seat, &nodes[self.seat]);
        let Some((_, leader, members)) = leader(nodes) else { return };
        let is_there = |node: &Node| node.is_up() && now >= node.paused_until;
        let reaches = net.reaches(seat, leader.seat) && net.reaches(leader.seat, seat);
        if !is_there(own) || !is_there(leader) || !reaches || members.addresses.contains_key(&own.id()) {
            return;
        }
        let wish = if self.is_ordered { Wish::Add(own.id(), seat) } else { Wish::Take(own.id(), seat) };
        if let Some(keeper) = leader.keeper() {
            keeper.ask(wish);
        }
    }
}

/// The leader of the newest term, and the members as it has them.
fn leader(nodes: &[Node]) -> Option<(u64, &Node, Members)> {
    let (term, leader) =
        nodes.iter().filter_map(|node| Some((node.term_led()?, node))).max_by_key(|(term, _)| *term)?;
    Some((term, leader, leader.members()?))
}

/// Whether each seat votes, under the id that it has now, and nobody else is in the group or was left half way.
pub(super) fn is_whole(nodes: &[Node], members: &Members) -> bool {
    let ids: BTreeSet<u64> = nodes.iter().map(Node::id).collect();
    !members.is_joint && members.is_committed && members.voters == ids && members.addresses.keys().eq(&ids)
}
