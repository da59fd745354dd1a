//! The world of one run: whatever has something to do, one step at a time; then time goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use escrowmq_common::clock::Clock;

use super::checks::Checks;
use super::clients::Clients;
use super::consumers::Consumers;
use super::copies::Copies;
use super::faults::{Faults, KINDS};
use super::judge;
use super::net::{Arrival, Net, address, id_of};
use super::node::Node;
use super::wipes::{Wipes, is_whole};
use crate::log::Flush;
use crate::log::sim_disk::Random;
use crate::shard::Shard;

/// After the last fault all is well again within this time: a leader, equal logs, no half open.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// Steps without time going on, at most: more are a loop that never ends.
const STEPS_AT_ONCE: u64 = 200_000;
/// Fewer acknowledged commands show nothing.
const ACKNOWLEDGED_MIN: u64 = 50;

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) runs: u64,
    pub(super) commands: u64,
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) reads: u64,
    pub(super) checks: u64,
    pub(super) pulled: u64,
    pub(super) faults: u64,
    pub(super) kinds: [u64; KINDS],
    pub(super) leaders: u64,
    pub(super) copies: u64,
    /// Folders that were lost.
    pub(super) wiped: u64,
    /// Changes of the voters that were begun, and those that another leader ended.
    pub(super) changes: u64,
    pub(super) taken_over: u64,
    pub(super) entries: u64,
    pub(super) steps: u64,
    pub(super) simulated_ms: u64,
    /// A hash of the final log, the answers, and the number of steps.
    pub(super) digest: u64,
}

impl Counts {
    pub(super) fn add(&mut self, run: &Counts) {
        self.runs += 1;
        self.commands += run.commands;
        self.acknowledged += run.acknowledged;
        self.unknown += run.unknown;
        self.reads += run.reads;
        self.checks += run.checks;
        self.pulled += run.pulled;
        self.faults += run.faults;
        self.kinds.iter_mut().zip(run.kinds).for_each(|(all, one)| *all += one);
        self.leaders += run.leaders;
        self.copies += run.copies;
        self.wiped += run.wiped;
        self.changes += run.changes;
        self.taken_over += run.taken_over;
        self.entries += run.entries;
        self.steps += run.steps;
        self.simulated_ms += run.simulated_ms;
    }
}

/// See the module.
pub(super) struct World {
    clock: Clock,
    pub(super) nodes: Vec<Node>,
    pub(super) net: Net,
    pub(super) clients: Clients,
    copies: Copies,
    pub(super) consumers: Consumers,
    checks: Checks,
    pub(super) faults: Faults,
    wipes: Wipes,
    random: Random,
    /// Who led in which term.
    leaders: BTreeSet<(u64, usize)>,
    steps: u64,
    steps_at_once: u64,
    keep_room_at: Duration,
}

impl World {
    pub(super) fn new(seed: u64, size: usize, flush: Flush) -> Self {
        let mut random = Random::new(seed);
        let clock = Clock::manual(1_700_000_000_000);
        let net = Net::new(clock.clone(), random.draw());
        let founders: BTreeMap<u64, String> = (0..size).map(|seat| (id_of(seat, 0), address(seat))).collect();
        let nodes = (0..size).map(|seat| {
            let own = Clock::manual(1_700_000_000_000 + random.below(2000) as i64);
            Node::new(seat, founders.clone(), flush, net.clone(), own, random.draw())
        });
        let nodes = nodes.collect();
        Self {
            clock,
            nodes,
            net,
            clients: Clients::new(random.draw()),
            copies: Copies::new(random.draw()),
            consumers: Consumers::new(random.draw()),
            checks: Checks::new(random.draw()),
            // One alone is looked at by the cuts, one by one.
            faults: if size > 1 { Faults::plan(&mut random, size) } else { Faults::none() },
            wipes: Wipes::none(),
            random,
            leaders: BTreeSet::new(),
            steps: 0,
            steps_at_once: 0,
            keep_room_at: Duration::from_secs(1),
        }
    }

    /// Members lose their folders in this run, and leaders care for them.
    fn lose_folders(&mut self, seed: u64) {
        self.wipes = Wipes::plan(seed, self.nodes.len());
        self.nodes.iter_mut().for_each(|node| node.cares = true);
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Lets something happen, or time go on.
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        let now = self.now();
        // Time goes on also while there is much to do.
        let busy = self.random.below(12) > 0;
        let parts = self.nodes.len() + 5;
        let first = self.random.below(parts as u64) as usize;
        let worked = (0..parts).try_fold(false, |worked, nth| {
            if worked { Ok::<_, String>(true) } else { self.let_work((first + nth) % parts, now) }
        })?;
        self.look()?;
        if worked && busy {
            self.steps_at_once += 1;
            if self.steps_at_once > STEPS_AT_ONCE {
                return Err("something is done again and again, and time stands still".to_owned());
            }
            return Ok(());
        }
        self.steps_at_once = 0;
        let next = if worked { now } else { self.next_event().unwrap_or(now) };
        self.advance(next.saturating_sub(now).clamp(Duration::from_millis(1), Duration::from_millis(50)));
        Ok(())
    }

    fn let_work(&mut self, which: usize, now: Duration) -> Result<bool, String> {
        let size = self.nodes.len();
        match which {
            nth if nth < size => self.nodes[nth].step(),
            nth if nth == size => {
                match self.net.arrive() {
                    Some(Arrival::Request { to, node, call, bytes }) => self.nodes[to].serve(node, call, bytes),
                    Some(Arrival::Answered) => {}
                    None => return Ok(false),
                }
                Ok(true)
            }
            nth if nth == size + 1 => self.clients.step(&self.nodes, now),
            nth if nth == size + 2 => self.consumers.step(&self.nodes, now),
            nth if nth == size + 3 => Ok(self.checks.step(&mut self.clients, &self.nodes, now)),
            _ => {
                if now >= self.keep_room_at {
                    self.keep_room_at = now + Duration::from_millis(50 + self.random.below(300));
                    let seat = self.random.below(size as u64) as usize;
                    if now >= self.nodes[seat].paused_until {
                        self.nodes[seat].keep_room()?;
                    }
                    return Ok(true);
                }
                let copied = self.copies.step(&mut self.nodes, &self.net, now)?;
                let wiped = self.wipes.step(&mut self.nodes, &mut self.faults, &self.net, now)?;
                Ok(self.faults.step(&mut self.nodes, &self.net, now)? || copied || wiped)
            }
        }
    }

    fn next_event(&self) -> Option<Duration> {
        let nodes = self.nodes.iter().filter_map(Node::next_event);
        let others = [
            self.net.next_arrival(),
            self.clients.next_event(),
            self.consumers.next_event(),
            self.checks.next_event(),
            self.faults.next_event(),
            self.wipes.next_event(),
            self.copies.next_event(),
            Some(self.keep_room_at),
        ];
        nodes.chain(others.into_iter().flatten()).min()
    }

    /// Clocks differ in what they show, not in how fast they run.
    fn advance(&self, by: Duration) {
        // Whole milliseconds: that is what these clocks have.
        let by = Duration::from_millis(by.as_nanos().div_ceil(1_000_000) as u64);
        self.clock.advance(by);
        self.nodes.iter().for_each(|node| node.clock.advance(by));
    }

    /// What holds at each moment.
    fn look(&mut self) -> Result<(), String> {
        let mut leases = Vec::new();
        for node in &self.nodes {
            if let Some(term) = node.term_led()
                && self.leaders.insert((term, node.seat))
            {
                self.checks.began.push(self.clock.monotonic());
                self.faults.told.push(format!("{:?} node {} leads in term {term}", self.clock.monotonic(), node.seat));
                if self.leaders.iter().filter(|(other, _)| *other == term).count() > 1 {
                    return Err(format!("term {term} has two leaders: {:?}", self.leaders));
                }
                let applied = node.applied_term();
                if applied != Some(term) {
                    return Err(format!("node {} leads in term {term}, and has applied term {applied:?}", node.seat));
                }
            }
            if node.storage().is_some_and(|storage| storage.lease().holds()) {
                leases.push(node.seat);
            }
            if let Some(failure) = node.failure().filter(|_| !node.disk.is_off()) {
                return Err(format!("node {}: {failure}", node.seat));
            }
        }
        if leases.len() > 1 {
            return Err(format!("nodes {leases:?} may answer reads at the same time"));
        }
        let now = self.now();
        self.wipes.look(&self.nodes, &mut self.faults, now);
        self.checks.look(&self.clients, &self.nodes, now)
    }

    pub(super) fn run_until(
        &mut self,
        what: &str,
        within: Duration,
        mut is_so: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let deadline = self.now() + within;
        while !is_so(self)? {
            if self.now() > deadline {
                return Err(format!("{what}: not within {within:?}; {}", self.state()));
            }
            self.step()?;
        }
        Ok(())
    }

    /// The state of the nodes, in words.
    fn state(&self) -> String {
        let node = |node: &Node| {
            let Some(shard) = node.shard() else { return format!("node {} is down", node.seat) };
            let (applied, end) = (shard.counters().applied_index(), shard.log().last().map(|last| last.index));
            let leads = node.term_led();
            let members = node.members();
            format!("node {} applied {applied:?} of {end:?}, leads {leads:?}, has {members:?}", node.seat)
        };
        self.nodes.iter().map(node).collect::<Vec<_>>().join("; ")
    }

    /// All faults are over: everything runs, and everybody reaches everybody.
    fn heal(&mut self) -> Result<(), String> {
        self.net.heal();
        self.wipes.spare_leaders();
        let now = self.now();
        for node in &mut self.nodes {
            node.disk_ms = 2;
            node.paused_until = node.paused_until.min(now);
            if node.is_up() {
                node.set_full(false);
            } else {
                node.start()?;
            }
        }
        self.clients.active = false;
        Ok(())
    }

    pub(super) fn leader(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.storage().is_some_and(|storage| storage.lease().holds()))
    }

    /// Everybody has applied everything, and nothing is on its way.
    fn is_quiet(&self) -> bool {
        let end = |node: &Node| node.shard().and_then(|shard| shard.log().last());
        let ends: BTreeSet<_> = self.nodes.iter().map(|node| end(node).map(|last| (last.term, last.index))).collect();
        let applied = |node: &Node| {
            node.shard()
                .is_some_and(|shard| shard.counters().applied_index() == shard.log().last().map(|last| last.index))
        };
        ends.len() == 1 && self.nodes.iter().all(applied) && self.leader().is_some() && self.clients.is_idle()
    }

    /// Each seat votes under the id that it has now, as every node knows.
    fn has_all_members(&self) -> bool {
        self.nodes.iter().all(|node| node.members().is_some_and(|members| is_whole(&self.nodes, &members)))
    }

    /// Check-backs have settled every half, delayed messages are in their queues, and consumers have read all.
    fn is_settled(&self) -> bool {
        let is_settled = |shard: &Shard| {
            let counters = shard.counters();
            (counters.open_halves(), counters.timers()) == (0, 0) && self.consumers.are_done(shard)
        };
        self.is_quiet() && self.has_all_members() && self.leader().and_then(Node::shard).is_some_and(is_settled)
    }
}

/// Members of the group of a seed.
fn size_of(seed: u64) -> usize {
    if seed.is_multiple_of(5) { 5 } else { 3 }
}

/// Whether members lose their folders with this seed.
fn loses_folders(seed: u64) -> bool {
    seed % 4 == 1
}

/// One run; an error says what is wrong.
pub(super) fn run(seed: u64, flush: Flush) -> Result<Counts, String> {
    let mut world = World::new(seed, size_of(seed), flush);
    if loses_folders(seed) {
        world.lose_folders(seed);
    }
    let told = |world: &World, why: String| format!("{why}\n  faults:\n    {}", world.faults.told.join("\n    "));
    for node in &mut world.nodes {
        node.start()?;
    }
    let lived = (|| {
        let rest = Duration::from_secs(60);
        world.run_until("the faults end", rest, |world| Ok(world.faults.is_over() && world.wipes.is_over()))?;
        world.heal()?;
        world.run_until("every half is settled, and all is consumed", HEALED_WITHIN, |world| Ok(world.is_settled()))
    })();
    lived.map_err(|why| told(&world, why))?;
    let entries = judge::judge(&world).map_err(|why| told(&world, why))?;
    let counts = Counts {
        runs: 1,
        commands: world.clients.ops.len() as u64,
        acknowledged: world.clients.acknowledged(),
        unknown: world.clients.ops.iter().filter(|op| op.is_unknown()).count() as u64,
        reads: world.clients.reads,
        checks: world.checks.asked,
        pulled: world.consumers.pulled,
        faults: world.faults.fired as u64,
        kinds: world.faults.kinds,
        leaders: world.leaders.len() as u64,
        copies: world.copies.taken,
        wiped: world.wipes.wiped,
        changes: world.wipes.changes,
        taken_over: world.wipes.taken_over,
        entries,
        steps: world.steps,
        simulated_ms: world.now().as_millis() as u64,
        digest: digest(&world),
    };
    let quiet = |why: &str| Err(told(&world, format!("the run shows nothing: {why}; {counts:?}")));
    if world.faults.fired * 10 < world.faults.planned * 9 {
        return quiet("too few faults happened");
    }
    if world.leaders.len() < 2 {
        return quiet("no leader changed");
    }
    if counts.acknowledged < ACKNOWLEDGED_MIN {
        return quiet("too few commands were acknowledged");
    }
    if counts.checks == 0 || world.consumers.stored == 0 {
        return quiet("nobody was checked, or no offset was stored");
    }
    // A shard that is only dropped would go on writing.
    world.nodes.iter_mut().for_each(|node| node.crash(false));
    Ok(counts)
}

fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    for op in &world.clients.ops {
        format!("{:?} {:?} {:?}", op.act, op.answered, op.result).hash(&mut hasher);
    }
    for node in &world.nodes {
        node.shard().and_then(|shard| shard.log().last()).map(|last| (last.term, last.index)).hash(&mut hasher);
    }
    world.steps.hash(&mut hasher);
    hasher.finish()
}
