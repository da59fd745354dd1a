//! The rules for one half, and the state that lives only as long as the process.

use std::collections::VecDeque;
use std::sync::Arc;

use super::policy::CheckPolicy;
use super::waiting::{ByGroup, Waiting};
use super::windows::Windows;
use crate::index::HalfRow;
use crate::steady_clock::Leap;
use crate::terms::{HalfId, ParkReason, QueueId, Stamp};

/// After a start clients need this long to come back, in milliseconds: until then nobody is alarmed that a half has no
/// instance to ask, and no half is parked for it.
pub(crate) const QUIET_MS: u64 = 60_000;

/// A connected instance of a producer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// The number of its connection.
    pub connection: u64,
    /// Its client id.
    pub client: Arc<str>,
    /// Whether its connection takes frames at this moment.
    pub is_writable: bool,
}

/// The next step with a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it is parked, or settled with another half.
    Nothing,
    /// Nothing yet: it is due at this time.
    NotDue(Stamp),
    /// Ask on this connection, where a place is taken for it, and be due again at `next_due`, with or without an answer.
    Check {
        /// The connection.
        connection: u64,
        /// When the next check is due.
        next_due: Stamp,
        /// Which check this is, from 1.
        number: u32,
    },
    /// No instance is connected: it waits for one, and is noted here.
    Wait,
    /// Every connection of its group owes as many answers as it may: it goes on when one comes, and is noted here.
    Hold,
    /// Take it out of the checks, in plain sight.
    Park(ParkReason),
}

/// A group that got an instance.
#[derive(Debug)]
pub(in crate::transaction) struct Joined {
    pub(in crate::transaction) group: Arc<str>,
    /// Its halves up to this id that were parked for want of an instance are resumed.
    pub(in crate::transaction) resumed_upto: HalfId,
}

/// A topic that was deleted while it had open halves.
#[derive(Debug)]
pub(in crate::transaction) struct Deleted {
    /// The id of its first queue.
    pub(in crate::transaction) topic: QueueId,
    /// Its halves up to this id were parked.
    pub(in crate::transaction) parked_upto: HalfId,
}

/// See the module. Each half is in at most one of `waiting` and `held`.
#[derive(Debug)]
pub(crate) struct Scheduler {
    policy: CheckPolicy,
    windows: Windows,
    pub(in crate::transaction) waiting: Waiting,
    pub(in crate::transaction) held: ByGroup,
    pub(in crate::transaction) joined: VecDeque<Joined>,
    pub(in crate::transaction) deleted: VecDeque<Deleted>,
    /// Halves to look at before their due time.
    pub(in crate::transaction) look_again: VecDeque<HalfId>,
    /// A due time before which a round has looked already may have come into the table; `None` if none has.
    pub(in crate::transaction) recheck_from: Option<Stamp>,
    quiet_until: Stamp,
    /// Moves on with each check, so that instances are asked in turn.
    turn: usize,
}

impl Default for Scheduler {
    /// Nothing is known yet, and nobody is asked before [`begin`](Scheduler::begin).
    fn default() -> Self {
        Self {
            policy: CheckPolicy::default(),
            windows: Windows::default(),
            waiting: Waiting::default(),
            held: ByGroup::default(),
            joined: VecDeque::new(),
            deleted: VecDeque::new(),
            look_again: VecDeque::new(),
            recheck_from: None,
            quiet_until: Stamp::MAX,
            turn: 0,
        }
    }
}

impl Scheduler {
    /// The process begins to ask at `now`: from here on clients come back.
    pub(crate) fn begin(&mut self, now: Stamp) {
        self.quiet_until = now.saturating_add(QUIET_MS);
    }

    /// The settings of a running broker may change.
    pub(crate) fn set_policy(&mut self, policy: CheckPolicy) {
        if policy != self.policy {
            self.policy = policy;
            self.waiting.times_changed();
        }
    }

    /// How time leapt when this member began to lead.
    pub(in crate::transaction) fn leapt(&self) -> Option<Leap> {
        self.policy.leapt
    }

    /// Decides about a half that may be due. `instances` are all that are connected of its group.
    pub(crate) fn consider(&mut self, row: &HalfRow, instances: &[Instance], now: Stamp) -> Step {
        let step = self.step(row, instances, now);
        if step != Step::Wait {
            self.waiting.remove(&row.group, row.half);
        }
        if step != Step::Hold {
            self.held.remove(&row.group, row.half);
        }
        step
    }

    fn step(&mut self, row: &HalfRow, instances: &[Instance], now: Stamp) -> Step {
        if row.parked.is_some() || row.first_half.is_some() {
            return Step::Nothing;
        }
        let due = self.policy.next_check(row);
        if due > now {
            return Step::NotDue(due);
        }
        if self.policy.is_exhausted(row) {
            return Step::Park(ParkReason::ChecksExhausted);
        }
        if instances.is_empty() {
            let until = self.policy.waits_until(row).max(self.quiet_until);
            if until <= now {
                return Step::Park(ParkReason::NoChecker);
            }
            self.waiting.add(&row.group, row.half, until);
            return Step::Wait;
        }
        let Some(connection) = self.pick(&row.client, instances, now) else {
            self.held.add(&row.group, row.half);
            return Step::Hold;
        };
        self.windows.asked(connection, row.half, now);
        let number = row.checks + 1;
        Step::Check { connection, next_due: now.saturating_add(self.policy.gap(number)), number }
    }

    /// The instance to ask: the sender, else the one that owes the fewest answers, in turn.
    fn pick(&mut self, sender: &str, instances: &[Instance], now: Stamp) -> Option<u64> {
        self.turn = self.turn.wrapping_add(1);
        let begin = self.turn % instances.len().max(1);
        let in_turn = instances[begin..].iter().chain(&instances[..begin]);
        let mut others: Option<(usize, u64)> = None;
        for instance in in_turn {
            let connection = instance.connection;
            if !instance.is_writable || !self.windows.has_room(connection, now, self.policy.interval) {
                continue;
            }
            if *instance.client == *sender {
                return Some(connection);
            }
            let owed = self.windows.owed(connection);
            if others.is_none_or(|(least, _)| owed < least) {
                others = Some((owed, connection));
            }
        }
        others.map(|(_, connection)| connection)
    }

    /// Whether any of these instances takes a check at `now`.
    pub(crate) fn has_room(&mut self, instances: &[Instance], now: Stamp) -> bool {
        let lost_after = self.policy.interval;
        instances
            .iter()
            .any(|instance| instance.is_writable && self.windows.has_room(instance.connection, now, lost_after))
    }

    /// A check was not written to its connection after all. The instances without that one are asked at once: says on
    /// which connection, where a place is taken for it.
    pub(crate) fn elsewhere(&mut self, row: &HalfRow, failed: u64, instances: &[Instance], now: Stamp) -> Option<u64> {
        self.windows.answered(failed, row.half);
        let others: Vec<Instance> =
            instances.iter().filter(|instance| instance.connection != failed).cloned().collect();
        let connection = self.pick(&row.client, &others, now)?;
        self.windows.asked(connection, row.half, now);
        Some(connection)
    }

    /// A check was not written to its connection after all, and is not for now.
    pub(crate) fn not_sent(&mut self, connection: u64, half: HalfId) {
        self.windows.answered(connection, half);
    }

    /// A producer answered a check in one way or another. Says when the check was made, if this connection owed the answer.
    pub(crate) fn answered(&mut self, connection: u64, half: HalfId) -> Option<Stamp> {
        self.windows.answered(connection, half)
    }

    /// A connection is gone, and with it the answers that it owed.
    pub(crate) fn closed(&mut self, connection: u64) {
        self.windows.forget(connection);
    }

    /// A group got an instance: halves that wait for one, or were parked for want of one, go on.
    pub(crate) fn joined(&mut self, group: Arc<str>) {
        match self.joined.iter_mut().find(|joined| joined.group == group) {
            Some(joined) => joined.resumed_upto = HalfId::ZERO,
            None => self.joined.push_back(Joined { group, resumed_upto: HalfId::ZERO }),
        }
    }

    /// A topic is gone, named by its first queue: its open halves are parked, some with each round. Those that this process
    /// does not come to are found when they are due.
    pub(crate) fn topic_deleted(&mut self, topic: QueueId) {
        self.deleted.push_back(Deleted { topic, parked_upto: HalfId::ZERO });
    }

    /// A transaction was decided or parked, or got a lease; `half` is its first half. Needed for the counts alone: no decided half
    /// is asked about anyway.
    pub(crate) fn waits_no_more(&mut self, group: &str, half: HalfId) {
        self.waiting.remove(group, half);
        self.held.remove(group, half);
    }

    /// Whether any half waits or is held back.
    pub(crate) fn has_any(&self) -> bool {
        !(self.waiting.is_empty() && self.held.is_empty())
    }

    /// A half is due at once, even if a round has passed it.
    pub(crate) fn look_again(&mut self, half: HalfId) {
        self.look_again.push_back(half);
    }

    /// A half got a due time that may be over already.
    pub(crate) fn recheck_from(&mut self, due: Stamp) {
        self.recheck_from = Some(self.recheck_from.map_or(due, |since| since.min(due)));
    }

    /// Halves that wait for an instance of this group have one now.
    pub(in crate::transaction) fn hold_all(&mut self, group: &Arc<str>) {
        self.waiting.hold_all(group, &mut self.held);
    }

    /// Halves that are held back of this group have no instance any more.
    pub(in crate::transaction) fn wait_all(&mut self, group: &Arc<str>) {
        self.waiting.wait_all(group, &mut self.held);
    }

    /// How many answers a connection owes.
    #[cfg(test)]
    pub(crate) fn owed(&self, connection: u64) -> usize {
        self.windows.owed(connection)
    }

    /// Halves of a group that wait because no instance is connected.
    pub(crate) fn waiting_of(&self, group: &str) -> usize {
        self.waiting.len_of(group)
    }

    /// Halves that wait because no instance of their group is connected, for an alarm: none while clients come back.
    pub(crate) fn without_checker(&self, now: Stamp) -> usize {
        if now < self.quiet_until { 0 } else { self.waiting.len() }
    }

    /// Halves that are held back because every connection of their group owes as many answers as it may.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::HalfId;
    use crate::transaction::engine::windows::WINDOW;

    const POLICY: CheckPolicy =
        CheckPolicy { first_after: 6_000, interval: 30_000, checks_max: 15, park_after: 86_400_000, leapt: None };

    fn row(half: HalfId, client: &str) -> HalfRow {
        crate::transaction::tests::half_row(half, "g", client, Stamp(1_000))
    }

    fn scheduler(now: u64) -> Scheduler {
        let mut scheduler = Scheduler::default();
        scheduler.begin(Stamp(now));
        scheduler.set_policy(POLICY);
        scheduler
    }

    fn instance(connection: u64, client: &str) -> Instance {
        Instance { connection, client: Arc::from(client), is_writable: true }
    }

    fn asked(step: Step) -> u64 {
        match step {
            Step::Check { connection, .. } => connection,
            other => panic!("not asked: {other:?}"),
        }
    }

    #[test]
    fn instances_are_asked_in_turn_when_the_sender_is_not_there() {
        let mut scheduler = scheduler(0);
        let instances = [instance(1, "a"), instance(2, "b"), instance(3, "c")];
        let mut times = [0; 3];
        for half in 1..=300 {
            let connection = asked(scheduler.consider(&row(HalfId(half), "gone"), &instances, Stamp(7_000)));
            times[connection as usize - 1] += 1;
            assert!(scheduler.answered(connection, HalfId(half)).is_some());
        }
        assert_eq!(times, [100; 3]);
    }

    #[test]
    fn a_connection_that_takes_no_frames_is_passed_over() {
        let mut scheduler = scheduler(0);
        let full = Instance { is_writable: false, ..instance(1, "a") };
        assert_eq!(asked(scheduler.consider(&row(HalfId(1), "a"), &[full.clone(), instance(2, "b")], Stamp(7_000))), 2);
        assert_eq!(scheduler.consider(&row(HalfId(2), "a"), &[full], Stamp(7_000)), Step::Hold);
        assert_eq!(scheduler.held(), 1);
    }

    #[test]
    fn a_check_that_was_not_written_goes_to_another_instance() {
        let mut scheduler = scheduler(0);
        let instances = [instance(1, "a"), instance(2, "b")];
        let half = row(HalfId(1), "a");
        assert_eq!(asked(scheduler.consider(&half, &instances, Stamp(7_000))), 1);
        assert_eq!(scheduler.elsewhere(&half, 1, &instances, Stamp(7_000)), Some(2));
        assert_eq!((scheduler.owed(1), scheduler.owed(2)), (0, 1));
        assert_eq!(scheduler.elsewhere(&half, 2, &instances[1..], Stamp(7_000)), None);
        assert_eq!(scheduler.owed(2), 0);
    }

    #[test]
    fn a_full_sender_leaves_it_to_others_and_then_the_half_is_held() {
        let mut scheduler = scheduler(0);
        let instances = [instance(1, "a"), instance(2, "b")];
        for half in 1..=2 * WINDOW as u64 {
            let expected = if half <= WINDOW as u64 { 1 } else { 2 };
            assert_eq!(asked(scheduler.consider(&row(HalfId(half), "a"), &instances, Stamp(7_000))), expected);
        }
        assert_eq!(scheduler.consider(&row(HalfId(5_000), "a"), &instances, Stamp(7_000)), Step::Hold);
        assert!(!scheduler.has_room(&instances, Stamp(7_000)));
        assert!(scheduler.answered(2, HalfId(1_500)).is_some());
        assert_eq!(asked(scheduler.consider(&row(HalfId(5_000), "a"), &instances, Stamp(7_000))), 2);
        assert_eq!(scheduler.held(), 0);
    }

    #[test]
    fn members_and_parked_halves_are_left_alone() {
        let mut scheduler = scheduler(0);
        let member = HalfRow { first_half: Some(HalfId(1)), ..row(HalfId(2), "a") };
        let parked = HalfRow { parked: Some((ParkReason::Operator, Stamp(1))), ..row(HalfId(3), "a") };
        for half in [member, parked] {
            assert_eq!(scheduler.consider(&half, &[instance(1, "a")], Stamp::MAX), Step::Nothing);
        }
    }

    #[test]
    fn the_last_check_is_followed_by_parking_once_its_gap_is_over() {
        let mut scheduler = scheduler(0);
        let half = HalfRow { checks: 15, next_due: Some(Stamp(50_000)), ..row(HalfId(1), "a") };
        assert_eq!(scheduler.consider(&half, &[instance(1, "a")], Stamp(49_999)), Step::NotDue(Stamp(50_000)));
        assert_eq!(scheduler.consider(&half, &[], Stamp(50_000)), Step::Park(ParkReason::ChecksExhausted));
    }

    #[test]
    fn nobody_is_alarmed_while_clients_come_back() {
        let mut scheduler = scheduler(100_000_000);
        assert_eq!(
            scheduler.consider(&row(HalfId(1), "a"), &[], Stamp(100_000_000)),
            Step::Wait,
            "though its day is over"
        );
        assert_eq!(
            (scheduler.without_checker(Stamp(100_059_999)), scheduler.without_checker(Stamp(100_060_000))),
            (0, 1)
        );
        assert_eq!(scheduler.waiting_of("g"), 1);
        assert_eq!(
            scheduler.consider(&row(HalfId(1), "a"), &[], Stamp(100_060_000)),
            Step::Park(ParkReason::NoChecker)
        );
        assert_eq!(scheduler.waiting_of("g"), 0);
    }
}
