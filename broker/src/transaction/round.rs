//! One round: reads which halves are due, asks the engine about each, and gathers the acts.
//!
//! Promise: only halves that are due cost anything: a round reads those, up to a bound, and the one row after them.
//!
//! Seven ways lead to a half: it is to be looked at again; its topic was deleted; it waited and its group got an instance; it was
//! parked for want of one; it was held back and an answer made room; its wait is over; its due time has come, from the table of
//! due times or, for first checks, from the half table in the order of Prepare. Each way has bounds of its own, so that none
//! starves another.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::engine::scheduler::Step;
use super::engine::{Instance, Scheduler};
use crate::index::HalfRow;
use crate::terms::{HalfId, ParkReason, QueueId, Stamp};

/// Most halves for which one round does something that is recorded, on each way.
const ACTS: usize = 1000;
/// Most rows that one round reads on each way: a half that is held back costs a row and nothing else.
const ROWS: usize = 10_000;
/// Bytes of halves that one round asks about, on each way: they are in memory until they are written.
const BYTES: usize = 4 * 1024 * 1024;
/// Halves that are held back are looked at this often, in milliseconds, though no answer made room: a connection may take
/// frames again, or an answer count as lost.
const HELD_RETRY_MS: u64 = 1_000;
/// How often due times that a round has passed are looked at again, and how far back, in milliseconds. Nothing should be
/// there; if a due time came into the table late all the same, its half is late, not lost.
const RECHECK_EVERY_MS: u64 = 10_000;
const RECHECK_BACK_MS: u64 = 20_000;

/// The tables, the connected instances and the scheduler, as a round sees them.
pub(crate) trait View {
    /// Why a table did not answer.
    type Error;

    /// The undecided half with this id.
    fn half(&self, half: HalfId) -> Result<Option<HalfRow>, Self::Error>;

    /// Up to `limit` pairs of due time and half after `after`, due at or before `upto`, earliest first.
    fn scan_due(&self, after: (Stamp, HalfId), upto: Stamp, limit: usize) -> Result<Vec<(Stamp, HalfId)>, Self::Error>;

    /// The earliest due time after this one.
    fn earliest_due(&self, after: Stamp) -> Result<Option<Stamp>, Self::Error>;

    /// Calls `each` with the undecided halves from this id on, in order, until it says stop.
    fn scan(&self, from: HalfId, each: &mut dyn FnMut(HalfRow) -> bool) -> Result<(), Self::Error>;

    /// A page of at most `limit` halves of the group with ids above `after`, of those that are parked for want of an instance.
    fn parked_without_checker(&self, group: &str, after: HalfId, limit: usize) -> Result<Page<HalfId>, Self::Error>;

    /// A page of at most `limit` open halves of a topic, named by its first queue, with ids above `after`.
    fn open_of_topic(&self, topic: QueueId, after: HalfId, limit: usize) -> Result<Page<HalfRow>, Self::Error>;

    /// Whether this queue is there: else its topic was deleted.
    fn has_queue(&self, queue: QueueId) -> bool;

    /// Every half that is prepared from now on has this id or a later one.
    fn next_half(&self) -> HalfId;

    /// Every due time that is given from now on is this or later, except as [`Scheduler::recheck_from`] tells. Not later than
    /// `now`.
    fn settled_upto(&self, now: Stamp) -> Stamp;

    /// The connected instances of a group.
    fn instances(&self, group: &str) -> Vec<Instance>;

    /// Lets a look or a change at the scheduler; short, because handlers wait for it.
    fn with<T>(&self, change: impl FnOnce(&mut Scheduler) -> T) -> T;
}

/// Some halves of many.
#[derive(Debug)]
pub(crate) struct Page<T> {
    /// The halves of the page, oldest first.
    pub halves: Vec<T>,
    /// The next page begins after this half, if there may be one.
    pub next: Option<HalfId>,
}

/// Ask about this half.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The half.
    pub row: HalfRow,
    /// On this connection, where a place is taken for it.
    pub connection: u64,
    /// Be due again then.
    pub next_due: Stamp,
    /// Which check this is, from 1.
    pub number: u32,
}

/// Resume this half if it is still parked for want of an instance.
#[derive(Debug)]
pub(crate) struct Resumption {
    /// The half.
    pub half: HalfId,
    /// Its group.
    pub group: Arc<str>,
}

/// The acts of a round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Checks.
    pub asks: Vec<Ask>,
    /// Halves that get a due time without being asked about.
    pub moved: Vec<(HalfId, Stamp)>,
    /// Halves to park.
    pub parked: Vec<(HalfId, ParkReason)>,
    /// Halves to resume.
    pub resumptions: Vec<Resumption>,
    /// With this round recorded, every half up to this id has had its first check, or has a due time of its own.
    pub first_checked: HalfId,
    /// Look again at this time.
    pub next: Option<Stamp>,
    /// More is due now than one round takes.
    pub more: bool,
}

/// How far rounds have come. Lost with the process; the next one begins with what was recorded.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    /// Halves up to this id need no look for a first check. Moving it on saves the next look from all the rows that are
    /// gone.
    first: HalfId,
    /// Due times up to this one were looked at.
    due_upto: (Stamp, HalfId),
    /// Of those that wait for a leap to have passed.
    leapt_upto: (Stamp, HalfId),
    /// When passed due times were last looked at again.
    rechecked: Stamp,
    /// Which of the groups with halves that are held back comes first.
    turn: usize,
}

impl Walk {
    /// Begins with all due times, and with first checks after the recorded half.
    pub(crate) fn begin(first_checked: HalfId) -> Self {
        let none = (Stamp::ZERO, HalfId::ZERO);
        Self { first: first_checked, due_upto: none, leapt_upto: none, rechecked: Stamp::ZERO, turn: 0 }
    }
}

/// Plans one round at `now`. A half or table that cannot be read is left out and named by the error; the rest of the round stands.
pub(crate) fn plan<S: View>(walk: &mut Walk, view: &S, now: Stamp) -> (Round, Option<S::Error>) {
    let mut planner = Planner {
        view,
        now,
        round: Round::default(),
        budget: Budget::default(),
        instances: HashMap::new(),
        taken: HashSet::new(),
        unread: Vec::new(),
        error: None,
    };
    planner.look_again();
    planner.deleted();
    planner.joined();
    planner.held(walk);
    planner.waited_too_long();
    planner.due_times(walk);
    planner.first_checks(walk);
    let unread = std::mem::take(&mut planner.unread);
    let (over, held, oldest) = view.with(|scheduler| {
        for half in unread {
            scheduler.look_again(half);
        }
        let retry = (!scheduler.held.is_empty()).then(|| now.saturating_add(HELD_RETRY_MS));
        let oldest = scheduler.held.oldest().into_iter().chain(scheduler.waiting.oldest()).min();
        (scheduler.waiting.next_over(), retry, oldest)
    });
    planner.next_at(over);
    planner.next_at(held);
    // A half that waits or is held back costs no entry of the log: it may have no due time in the table, and a restart finds
    // it on the walk.
    planner.round.first_checked = oldest.map_or(walk.first, |half| walk.first.min(half.previous()));
    (planner.round, planner.error)
}

/// The bounds of what one way may still do.
#[derive(Debug, Clone, Copy)]
struct Budget {
    acts: usize,
    rows: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { acts: ACTS, rows: ROWS, bytes: BYTES }
    }
}

struct Planner<'a, S: View> {
    view: &'a S,
    now: Stamp,
    round: Round,
    budget: Budget,
    instances: HashMap<String, Arc<[Instance]>>,
    /// Halves for which this round does something: their rows do not show it yet, and another way may lead to them.
    taken: HashSet<HalfId>,
    /// Halves whose rows could not be read.
    unread: Vec<HalfId>,
    error: Option<S::Error>,
}

impl<S: View> Planner<'_, S> {
    fn look_again(&mut self) {
        self.budget = Budget::default();
        while self.may_go_on()
            && let Some(half) = self.view.with(|scheduler| scheduler.look_again.pop_front())
        {
            // Any half of the transaction may have been named; the first one is asked about.
            match self.view.half(half) {
                Ok(Some(HalfRow { first_half: Some(first), .. })) => self.handle_id(first),
                _ => self.handle_id(half),
            }
        }
    }

    /// Open halves of topics that were deleted: nobody is asked about them any more.
    fn deleted(&mut self) {
        self.budget = Budget::default();
        while self.may_go_on() {
            let front = self
                .view
                .with(|scheduler| scheduler.deleted.front().map(|deleted| (deleted.topic, deleted.parked_upto)));
            let Some((topic, after)) = front else { return };
            // The page counts as read even if it is empty.
            let limit = self.budget.acts;
            self.budget.rows = self.budget.rows.saturating_sub(limit);
            let page = match self.view.open_of_topic(topic, after, limit) {
                Ok(page) => page,
                Err(error) => {
                    // The others first; this one is tried again.
                    self.failed(error);
                    self.view.with(|scheduler| scheduler.deleted.rotate_left(1));
                    return;
                }
            };
            for row in page.halves {
                self.orphaned(&row);
            }
            self.view.with(|scheduler| match (page.next, scheduler.deleted.front_mut()) {
                (Some(next), Some(deleted)) => deleted.parked_upto = next,
                _ => drop(scheduler.deleted.pop_front()),
            });
        }
    }

    /// Halves that waited for a group that has an instance now, and those that were parked for want of one.
    fn joined(&mut self) {
        self.budget = Budget::default();
        while self.may_go_on() {
            let front = self.view.with(|scheduler| {
                let joined = scheduler.joined.front()?;
                Some((Arc::clone(&joined.group), joined.resumed_upto))
            });
            let Some((group, after)) = front else { return };
            let is_done = self.instances(&group).is_empty() || self.next_of(&group, after);
            if is_done {
                self.view.with(|scheduler| scheduler.joined.pop_front());
            }
        }
    }

    /// Halves that waited are held back until there is room, and a page of parked halves is resumed; says whether that was the
    /// last.
    fn next_of(&mut self, group: &Arc<str>, after: HalfId) -> bool {
        // However many wait, no row is read before there is room for its check.
        self.view.with(|scheduler| scheduler.hold_all(group));
        let limit = self.budget.acts;
        let parked = match self.view.parked_without_checker(group, after, limit) {
            Ok(parked) => parked,
            Err(error) => {
                // The others first; this one is tried again.
                self.failed(error);
                self.budget.acts = 0;
                self.view.with(|scheduler| scheduler.joined.rotate_left(1));
                return false;
            }
        };
        self.budget.acts = self.budget.acts.saturating_sub(parked.halves.len());
        // The page counts as read even if it is empty.
        self.budget.rows = self.budget.rows.saturating_sub(limit);
        let returns = parked.halves.into_iter().map(|half| Resumption { half, group: Arc::clone(group) });
        self.round.resumptions.extend(returns);
        if let Some(next) = parked.next {
            self.view.with(|scheduler| {
                if let Some(joined) = scheduler.joined.front_mut() {
                    joined.resumed_upto = next;
                }
            });
        }
        parked.next.is_none()
    }

    /// Halves for which there is room now, or whose instances left.
    fn held(&mut self, walk: &mut Walk) {
        self.budget = Budget::default();
        let mut groups: Vec<Arc<str>> = self.view.with(|scheduler| scheduler.held.groups().cloned().collect());
        if groups.is_empty() {
            return;
        }
        groups.sort_unstable();
        walk.turn = walk.turn.wrapping_add(1);
        let begin = walk.turn % groups.len();
        groups.rotate_left(begin);
        for group in groups {
            let instances = self.instances(&group);
            let now = self.now;
            if instances.is_empty() {
                self.view.with(|scheduler| scheduler.wait_all(&group));
                continue;
            }
            while self.may_go_on() {
                let half =
                    self.view.with(
                        |scheduler| {
                            if scheduler.has_room(&instances, now) { scheduler.held.pop(&group) } else { None }
                        },
                    );
                let Some(half) = half else { break };
                self.handle_id(half);
            }
        }
    }

    fn waited_too_long(&mut self) {
        self.budget = Budget::default();
        let now = self.now;
        while self.may_go_on()
            && let Some(half) = self.view.with(|scheduler| scheduler.waiting.pop_over(now))
        {
            self.handle_id(half);
        }
    }

    /// Halves with a due time of their own.
    fn due_times(&mut self, walk: &mut Walk) {
        self.budget = Budget::default();
        let upto = self.view.settled_upto(self.now).min(self.now);
        if let Some(since) = self.view.with(|scheduler| scheduler.recheck_from.take()) {
            walk.due_upto = walk.due_upto.min((since.saturating_sub(1), HalfId::MAX));
        }
        if self.now >= walk.rechecked.saturating_add(RECHECK_EVERY_MS) {
            walk.rechecked = self.now;
            walk.due_upto = walk.due_upto.min((self.now.saturating_sub(RECHECK_BACK_MS), HalfId::ZERO));
        }
        self.look_at_due(&mut walk.due_upto, upto, 0);
        if let Some(leap) = self.view.with(|scheduler| scheduler.leapt()) {
            // The way above has seen these, and some were not due: they are looked at again when they are.
            walk.leapt_upto = walk.leapt_upto.max((leap.last, HalfId::MAX));
            self.look_at_due(&mut walk.leapt_upto, upto.saturating_sub(leap.by), leap.by);
        }
    }

    /// Halves with a due time up to this one, which count as due so many milliseconds later.
    fn look_at_due(&mut self, looked: &mut (Stamp, HalfId), upto: Stamp, later: u64) {
        let due = match self.view.scan_due(*looked, upto, ROWS) {
            Ok(due) => due,
            Err(error) => return self.failed(error),
        };
        let is_all = due.len() < ROWS;
        for (at, half) in due {
            if !self.may_go_on() {
                return;
            }
            self.handle_id(half);
            *looked = (at, half);
        }
        if !is_all {
            self.round.more = true;
            return;
        }
        // The newest moment is not over: a half that is prepared in it may be due in it.
        *looked = (*looked).max((upto.saturating_sub(1), HalfId::MAX));
        match self.view.earliest_due(looked.0.max(upto)) {
            Ok(next) => self.next_at(next.map(|due| due.saturating_add(later))),
            Err(error) => self.failed(error),
        }
    }

    /// Halves whose first check comes in the order in which they were prepared: no due time of their own is needed.
    fn first_checks(&mut self, walk: &mut Walk) {
        self.budget = Budget::default();
        // Read before the look: halves of later entries have later ids.
        let mut first = walk.first.max(self.view.next_half().previous());
        let mut looked = walk.first;
        let view = self.view;
        let scanned = view.scan(walk.first.next(), &mut |row| {
            let half = row.half;
            if row.next_due.is_none() && row.parked.is_none() && row.first_half.is_none() {
                let is_left = !self.may_go_on() || matches!(self.handle(row), Step::NotDue(_));
                if is_left {
                    // Looked at again the next time: nothing is left below it.
                    first = half.previous();
                    return false;
                }
            }
            looked = half;
            true
        });
        match scanned {
            Ok(()) => walk.first = first.max(looked),
            Err(error) => {
                walk.first = looked;
                self.failed(error);
            }
        }
    }

    /// Whether the way at hand may do more in this round.
    fn may_go_on(&mut self) -> bool {
        let goes_on = self.budget.acts > 0 && self.budget.rows > 0 && self.budget.bytes > 0;
        self.round.more |= !goes_on;
        goes_on
    }

    fn next_at(&mut self, due: Option<Stamp>) {
        self.round.next = [self.round.next, due].into_iter().flatten().min();
    }

    fn instances(&mut self, group: &str) -> Arc<[Instance]> {
        if let Some(known) = self.instances.get(group) {
            return Arc::clone(known);
        }
        let found: Arc<[Instance]> = self.view.instances(group).into();
        self.instances.insert(group.to_owned(), Arc::clone(&found));
        found
    }

    fn handle_id(&mut self, half: HalfId) {
        match self.view.half(half) {
            Ok(Some(row)) => {
                self.handle(row);
            }
            Ok(None) => self.budget.rows = self.budget.rows.saturating_sub(1),
            // It has no part in this round, and the others have.
            Err(error) => {
                self.budget.rows = self.budget.rows.saturating_sub(1);
                self.unread.push(half);
                self.failed(error);
            }
        }
    }

    /// Follows the scheduler's step for one half. If the rules themselves fail on it, that half is parked.
    fn handle(&mut self, row: HalfRow) -> Step {
        self.budget.rows = self.budget.rows.saturating_sub(1);
        if self.taken.contains(&row.half) {
            return Step::Nothing;
        }
        if row.parked.is_none() && row.first_half.is_none() && !self.view.has_queue(row.queue) {
            return self.orphaned(&row);
        }
        let now = self.now;
        let judge = || {
            let instances = self.instances(&row.group);
            self.view.with(|scheduler| scheduler.consider(&row, &instances, now))
        };
        let step = catch_unwind(AssertUnwindSafe(judge)).unwrap_or(Step::Park(ParkReason::Unreadable));
        match step {
            Step::NotDue(due) => self.next_at(Some(due)),
            Step::Nothing | Step::Wait | Step::Hold => {}
            Step::Park(reason) => {
                self.acted(row.half);
                self.round.parked.push((row.half, reason));
            }
            Step::Check { connection, next_due, number } => {
                self.acted(row.half);
                self.budget.bytes = self.budget.bytes.saturating_sub(row.length as usize);
                self.round.asks.push(Ask { row, connection, next_due, number });
            }
        }
        step
    }

    /// The topic of an open half is gone. The whole transaction is parked with it, and waits under its first half.
    fn orphaned(&mut self, row: &HalfRow) -> Step {
        let first = row.first_half.unwrap_or(row.half);
        if !self.taken.contains(&first) {
            self.acted(first);
            self.view.with(|scheduler| scheduler.waits_no_more(&row.group, first));
            self.round.parked.push((first, ParkReason::TopicDeleted));
        }
        Step::Park(ParkReason::TopicDeleted)
    }

    /// The first error names them all.
    fn failed(&mut self, error: S::Error) {
        self.error.get_or_insert(error);
    }

    fn acted(&mut self, half: HalfId) {
        self.taken.insert(half);
        self.budget.acts = self.budget.acts.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::steady_clock::Leap;
    use crate::terms::HalfId;
    use crate::terms::Stamp;
    use crate::transaction::engine::CheckPolicy;
    use crate::transaction::tests::half_row;

    const POLICY: CheckPolicy =
        CheckPolicy { first_after: 1, interval: 1_000, checks_max: 5, park_after: 1_000_000, leapt: None };

    /// Three halves, all due; a look for the instances of the group `cursed` fails, and half 20 cannot be read.
    struct Cursed {
        scheduler: RefCell<Scheduler>,
        is_readable: bool,
    }

    impl Cursed {
        fn rows() -> [HalfRow; 4] {
            [(10, "orders"), (20, "orders"), (30, "cursed"), (40, "orders")].map(|(half, group)| HalfRow {
                next_due: Some(Stamp(5 + half)),
                ..half_row(HalfId(half), group, "client", Stamp(1))
            })
        }
    }

    impl View for Cursed {
        type Error = &'static str;

        fn half(&self, half: HalfId) -> Result<Option<HalfRow>, Self::Error> {
            if half == HalfId(20) && !self.is_readable {
                return Err("half 20 cannot be read");
            }
            Ok(Self::rows().into_iter().find(|row| row.half == half))
        }

        fn scan_due(
            &self,
            after: (Stamp, HalfId),
            upto: Stamp,
            limit: usize,
        ) -> Result<Vec<(Stamp, HalfId)>, Self::Error> {
            let due = Self::rows().into_iter().filter_map(|row| Some((row.next_due?, row.half)));
            Ok(due.filter(|due| *due > after && due.0 <= upto).take(limit).collect())
        }

        fn earliest_due(&self, after: Stamp) -> Result<Option<Stamp>, Self::Error> {
            Ok(Self::rows().into_iter().filter_map(|row| row.next_due).find(|due| *due > after))
        }

        fn scan(&self, _from: HalfId, _each: &mut dyn FnMut(HalfRow) -> bool) -> Result<(), Self::Error> {
            Err("the half table cannot be read")
        }

        fn open_of_topic(&self, _: QueueId, _: HalfId, _: usize) -> Result<Page<HalfRow>, Self::Error> {
            Ok(Page { halves: Vec::new(), next: None })
        }

        fn has_queue(&self, _: QueueId) -> bool {
            true
        }

        fn parked_without_checker(&self, _: &str, _: HalfId, _: usize) -> Result<Page<HalfId>, Self::Error> {
            Ok(Page { halves: Vec::new(), next: None })
        }

        fn next_half(&self) -> HalfId {
            HalfId(100)
        }

        fn settled_upto(&self, now: Stamp) -> Stamp {
            now
        }

        fn instances(&self, group: &str) -> Vec<Instance> {
            assert_ne!(group, "cursed", "this panic is part of the test");
            vec![Instance { connection: 1, client: Arc::from("client"), is_writable: true }]
        }

        fn with<T>(&self, change: impl FnOnce(&mut Scheduler) -> T) -> T {
            change(&mut self.scheduler.borrow_mut())
        }
    }

    #[test]
    fn what_fails_on_one_half_or_table_leaves_the_others_alone() {
        let mut scheduler = Scheduler::default();
        scheduler.set_policy(POLICY);
        let mut view = Cursed { scheduler: RefCell::new(scheduler), is_readable: false };
        let mut walk = Walk::begin(HalfId::ZERO);
        let asked = |round: &Round| round.asks.iter().map(|ask| ask.row.half).collect::<Vec<_>>();
        let (round, error) = plan(&mut walk, &view, Stamp(100));
        assert_eq!(error, Some("half 20 cannot be read"));
        assert_eq!(asked(&round), [HalfId(10), HalfId(40)]);
        assert_eq!(round.parked, [(HalfId(30), ParkReason::Unreadable)]);
        view.is_readable = true;
        let (round, error) = plan(&mut walk, &view, Stamp(100));
        assert_eq!(
            (asked(&round), error),
            (vec![HalfId(20)], Some("the half table cannot be read")),
            "it is tried again"
        );
    }

    #[test]
    fn two_ways_to_a_half_ask_about_it_once() {
        let mut scheduler = Scheduler::default();
        scheduler.set_policy(POLICY);
        scheduler.look_again(HalfId(10));
        let view = Cursed { scheduler: RefCell::new(scheduler), is_readable: true };
        let (round, _) = plan(&mut Walk::begin(HalfId::ZERO), &view, Stamp(15));
        assert_eq!(round.asks.len(), 1);
        assert_eq!(round.next, Some(Stamp(25)));
    }

    #[test]
    fn what_a_leap_made_due_is_looked_at_again_when_it_has_passed() {
        let leap = Leap { last: Stamp(20), start: Stamp(30), by: 10 };
        let mut scheduler = Scheduler::default();
        scheduler.set_policy(CheckPolicy { leapt: Some(leap), ..POLICY });
        let view = Cursed { scheduler: RefCell::new(scheduler), is_readable: true };
        let mut walk = Walk::begin(HalfId::ZERO);
        let mut asked_at = |now| {
            let (round, _) = plan(&mut walk, &view, Stamp(now));
            (round.asks.iter().map(|ask| ask.row.half.0).collect::<Vec<_>>(), round.next)
        };
        assert_eq!(asked_at(30), (vec![10], Some(Stamp(35))), "one was due before");
        assert_eq!(asked_at(34), (vec![], Some(Stamp(35))));
        assert_eq!(asked_at(35).0, [20]);
    }
}
