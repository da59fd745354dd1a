//! The plan of a run's faults.

use std::time::Duration;

use super::net::{Net, Seat, Weather};
use super::node::Node;
use crate::log::sim_disk::Random;

/// Faults of a run.
const FAULTS: usize = 12;
/// They begin within this time, after a first quiet while.
const DURING_MS: u64 = 15_000;
const QUIET_MS: u64 = 1_500;

/// Nobody votes for another leader for so long after it heard one (`raft/timing.rs`).
const LEASE: Duration = Duration::from_millis(600);

/// A fault that cannot begin waits, so many times.
const WAIT: Duration = Duration::from_millis(300);
const WAITS: u32 = 60;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug)]
enum Whom {
    /// Whoever leads then.
    Leader,
    Seat(Seat),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The process ends; the machine stays.
    Kill,
    /// The power goes off, in the middle of what the disk does.
    PowerCut,
    /// The power of all machines goes off at once.
    SiteCut,
    /// Nothing goes to and from it.
    Isolated,
    /// It hears and is not heard.
    Mute,
    /// It is heard and does not hear.
    Deaf,
    /// It and one other do not reach each other.
    Apart(Seat),
    /// The network treats all badly.
    Storm(Weather),
    /// It stands still.
    Paused,
    /// Each flush of its disk takes long.
    SlowDisk,
    FullDisk,
    /// Its wall clock is set.
    ClockJump(i64),
    /// The followers that no majority needs are cut off, another one loses its power, and then the leader dies: it makes a majority
    /// with them that knows nothing of what only the leader, and who else is left, has on its disk.
    Turns,
    /// One follower stops hearing the leader. When it stands for election another one starts anew, which has promised the leader a
    /// moment ago not to vote, and does not hear it any more.
    Forgets,
    /// It hands over.
    HandOver(Seat),
}

/// The kinds of faults.
pub(super) const KINDS: usize = 15;

impl Kind {
    /// Its number, from 0.
    fn number(self) -> usize {
        match self {
            Kind::Kill => 0,
            Kind::PowerCut => 1,
            Kind::SiteCut => 2,
            Kind::Isolated => 3,
            Kind::Mute => 4,
            Kind::Deaf => 5,
            Kind::Apart(_) => 6,
            Kind::Storm(_) => 7,
            Kind::Paused => 8,
            Kind::SlowDisk => 9,
            Kind::FullDisk => 10,
            Kind::ClockJump(_) => 11,
            Kind::Turns => 12,
            Kind::Forgets => 13,
            Kind::HandOver(_) => 14,
        }
    }
}

/// A fault of the plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: Duration,
    lasts: Duration,
    whom: Whom,
    kind: Kind,
    /// It is put off so many times if it cannot begin.
    waits: u32,
}

/// A fault that is there, and what ends it.
enum Ending {
    Start(Seat),
    Heal,
    /// It ends, starts at once, and hears nothing from the second one.
    Restart(Seat, Seat),
    Disk(Seat),
    Room(Seat),
    PowerCut(Seat),
    /// It dies for so long.
    Kill(Seat, Duration),
    /// Its end is known to the node.
    Pause,
}

/// The plan, and what of it is there.
pub(super) struct Faults {
    plan: Vec<Fault>,
    endings: Vec<(Duration, Ending)>,
    pub(super) planned: usize,
    pub(super) fired: usize,
    /// Those that happened, by kind.
    pub(super) kinds: [u64; KINDS],
    pub(super) told: Vec<String>,
}

impl Faults {
    pub(super) fn plan(random: &mut Random, nodes: usize) -> Self {
        let mut plan: Vec<Fault> = (0..FAULTS).map(|_| fault(random, nodes)).collect();
        // A run in which no leader changes shows nothing.
        (plan[0].kind, plan[0].whom) = (Kind::Kill, Whom::Leader);
        // The next one is the last.
        plan.sort_by_key(|fault| std::cmp::Reverse(fault.at));
        Self { planned: plan.len(), plan, ..Self::none() }
    }

    /// No faults.
    pub(super) fn none() -> Self {
        Self { planned: 0, plan: Vec::new(), endings: Vec::new(), fired: 0, kinds: [0; KINDS], told: Vec::new() }
    }

    /// Plans one more, at whoever leads in a moment.
    pub(super) fn strike(&mut self, random: &mut Random, now: Duration) {
        // Most changes take no longer than the first.
        let within = [15, 500][random.below(2) as usize];
        let (at, lasts) = (now + Duration::from_millis(random.below(within)), lasts(random));
        let kind = match random.below(10) {
            0..4 => Kind::Kill,
            4 | 5 => Kind::PowerCut,
            6 | 7 => Kind::Isolated,
            8 => Kind::Mute,
            _ => Kind::Paused,
        };
        self.planned += 1;
        self.plan.push(Fault { at, lasts, whom: Whom::Leader, kind, waits: WAITS });
        self.plan.sort_by_key(|fault| std::cmp::Reverse(fault.at));
    }

    /// When the next one begins or ends.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.plan.last().map(|fault| fault.at).into_iter().chain(self.endings.iter().map(|(at, _)| *at)).min()
    }

    /// Whether all have begun and ended.
    pub(super) fn is_over(&self) -> bool {
        self.plan.is_empty() && self.endings.is_empty()
    }

    /// Begins and ends what is due. Says whether there was anything.
    pub(super) fn step(&mut self, nodes: &mut [Node], net: &Net, now: Duration) -> Result<bool, String> {
        let due: Vec<_> = self.endings.extract_if(.., |(at, _)| *at <= now).collect();
        let mut worked = !due.is_empty();
        for (_, ending) in due {
            match ending {
                Ending::Start(seat) if !nodes[seat].is_up() => nodes[seat].start()?,
                Ending::Restart(seat, leader) if nodes[seat].is_up() => {
                    net.cut(leader, seat);
                    nodes[seat].crash(false);
                    nodes[seat].start()?;
                }
                Ending::Start(_) | Ending::Restart(..) | Ending::Pause => {}
                Ending::PowerCut(seat) => nodes[seat].plan_power_cut(true),
                Ending::Kill(seat, lasts) => {
                    net.heal();
                    nodes[seat].crash(false);
                    self.endings.push((now + lasts, Ending::Start(seat)));
                }
                Ending::Heal => net.heal(),
                Ending::Disk(seat) => nodes[seat].disk_ms = 2,
                Ending::Room(seat) => nodes[seat].set_full(false),
            }
        }
        if self.plan.last().is_some_and(|fault| fault.at <= now)
            && let Some(fault) = self.plan.pop()
        {
            worked = true;
            if self.begin(fault, nodes, net, now) {
                self.fired += 1;
                self.kinds[fault.kind.number()] += 1;
                self.told.push(format!("{now:?} {:?} {:?} for {:?}", fault.kind, fault.whom, fault.lasts));
            } else if fault.waits > 0 {
                // Nobody runs whom it could hit, or nobody leads.
                self.plan.push(Fault { at: now + WAIT, waits: fault.waits - 1, ..fault });
                self.plan.sort_by_key(|fault| std::cmp::Reverse(fault.at));
            } else {
                self.told.push(format!("{now:?} {:?} {:?} could not begin", fault.kind, fault.whom));
            }
        }
        // A power cut comes in the middle of an operation of the disk.
        for node in nodes.iter_mut() {
            if node.is_up() && node.disk.is_off() {
                node.crash(true);
                self.endings.push((now + Duration::from_secs(1), Ending::Start(node.seat)));
                worked = true;
            }
        }
        Ok(worked)
    }

    /// Says whether it could begin.
    fn begin(&mut self, fault: Fault, nodes: &mut [Node], net: &Net, now: Duration) -> bool {
        let leader = nodes.iter().position(|node| node.term_led().is_some());
        let seat = match fault.whom {
            Whom::Leader => leader.unwrap_or(0),
            Whom::Seat(seat) => seat,
        };
        // One that is down is hit when it is up again, so that the plan happens: here, another one.
        let Some(seat) = (0..nodes.len()).map(|nth| (seat + nth) % nodes.len()).find(|seat| nodes[*seat].is_up())
        else {
            return false;
        };
        let end = now + fault.lasts;
        let others = || (0..nodes.len()).filter(move |other| *other != seat);
        match fault.kind {
            Kind::Kill => {
                nodes[seat].crash(false);
                self.endings.push((end, Ending::Start(seat)));
            }
            Kind::PowerCut => {
                nodes[seat].plan_power_cut(false);
            }
            Kind::SiteCut => {
                for node in nodes.iter_mut() {
                    node.plan_power_cut(true);
                }
            }
            Kind::Isolated => {
                for other in others() {
                    net.cut(seat, other);
                    net.cut(other, seat);
                }
                self.endings.push((end, Ending::Heal));
            }
            Kind::Mute => {
                others().for_each(|other| net.cut(seat, other));
                self.endings.push((end, Ending::Heal));
            }
            Kind::Deaf => {
                others().for_each(|other| net.cut(other, seat));
                self.endings.push((end, Ending::Heal));
            }
            Kind::Apart(by) => {
                let other = (seat + by) % nodes.len();
                net.cut(seat, other);
                net.cut(other, seat);
                self.endings.push((end, Ending::Heal));
            }
            Kind::Storm(weather) => {
                net.set_weather(weather);
                self.endings.push((end, Ending::Heal));
            }
            Kind::Paused => {
                nodes[seat].paused_until = end;
                self.endings.push((end, Ending::Pause));
            }
            Kind::SlowDisk => {
                nodes[seat].disk_ms = 400;
                self.endings.push((end, Ending::Disk(seat)));
            }
            Kind::FullDisk => {
                nodes[seat].set_full(true);
                self.endings.push((end, Ending::Room(seat)));
            }
            Kind::ClockJump(by) => {
                let clock = &nodes[seat].clock;
                clock.jump_wall(clock.wall_ms() + by);
            }
            Kind::Turns => {
                let Some(leader) = leader else { return false };
                let size = nodes.len();
                let near = (leader + 1) % size;
                for far in (size / 2 + 1..size).map(|nth| (leader + nth) % size) {
                    for other in (0..size).filter(|other| *other != far) {
                        net.cut(far, other);
                        net.cut(other, far);
                    }
                }
                self.endings.push((now + fault.lasts / 4, Ending::PowerCut(near)));
                self.endings.push((now + fault.lasts / 2, Ending::Kill(leader, fault.lasts)));
            }
            Kind::Forgets => {
                let Some(leader) = leader else { return false };
                let (near, far) = ((leader + 1) % nodes.len(), (leader + 2) % nodes.len());
                net.cut(far, leader);
                net.cut(leader, far);
                // Between the lease and the end of the sampled time.
                self.endings.push((now + LEASE + fault.lasts / 5, Ending::Restart(near, leader)));
                self.endings.push((now + 4 * LEASE, Ending::Heal));
            }
            Kind::HandOver(by) => {
                let Some(leader) = leader else { return false };
                let Some(storage) = nodes[leader].storage() else { return false };
                // A broker hands over to voters alone: to this one, or to the next that is one.
                let voters = storage.member().members().borrow().voters.clone();
                let others = (by..by + nodes.len()).map(|by| (leader + by) % nodes.len()).filter(|to| *to != leader);
                let Some(to) = others.map(|to| nodes[to].id()).find(|to| voters.contains(to)) else { return false };
                drop(storage.shard.executor().spawn(storage.hand_over(to)));
            }
        }
        true
    }
}

/// How long a fault lasts.
fn lasts(random: &mut Random) -> Duration {
    Duration::from_millis(300 + random.below(3000))
}

fn fault(random: &mut Random, nodes: usize) -> Fault {
    let at = Duration::from_millis(QUIET_MS + random.below(DURING_MS));
    let lasts = lasts(random);
    let whom = if random.below(2) == 0 { Whom::Leader } else { Whom::Seat(random.below(nodes as u64) as usize) };
    let by = 1 + random.below(nodes as u64 - 1) as usize;
    let hour = 3_600_000;
    let weather = Weather {
        lost: [0, 20, 200][random.below(3) as usize],
        repeated: [0, 100][random.below(2) as usize],
        delay: [5, 60, 300][random.below(3) as usize],
        reorders: random.below(2) == 0,
    };
    let kind = match random.below(33) {
        0..4 => Kind::Kill,
        4..7 => Kind::PowerCut,
        26 | 27 | 7 => Kind::SiteCut,
        28..31 => Kind::Turns,
        31 | 32 => Kind::Forgets,
        8..11 => Kind::Isolated,
        11 | 12 => Kind::Mute,
        13 | 14 => Kind::Deaf,
        15 => Kind::Apart(by),
        16..19 => Kind::Storm(weather),
        19 | 20 => Kind::Paused,
        21 => Kind::SlowDisk,
        22 => Kind::FullDisk,
        23 => Kind::ClockJump(if random.below(2) == 0 { hour } else { -hour }),
        _ => Kind::HandOver(by),
    };
    Fault { at, lasts, whom, kind, waits: WAITS }
}
