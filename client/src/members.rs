//! The members of one broker group, and which of them a request goes to. Pure: the caller brings the time.
//!
//! Only the leader carries requests out. A member of one of our groups that does not lead holds a request until somebody leads,
//! and passes it on. So while the leader is away, any member that answers is a way to the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::route::MASTER;

/// A member that found no leader is asked after the others for so long. It answers heartbeats all the while, so that these
/// say nothing about it.
const NO_LEADER_COUNTS: Duration = Duration::from_secs(5);

/// Why a member did not carry a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It cannot be reached, or does not answer. It counts until it does.
    Away,
    /// It answered that it cannot serve: it found no leader, is one no more, or is stopping.
    NoLeader,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Instant,
    trouble: Trouble,
}

/// One broker group. A broker alone is a group of one.
#[derive(Debug, Default)]
pub(crate) struct Members {
    by_id: BTreeMap<i64, Arc<str>>,
    /// Those that do not lead pass requests on, as ours do. A replica of other brokers refuses them.
    pass_on: bool,
    /// The last failure of each member that failed and has not answered since.
    failures: HashMap<Arc<str>, Failure>,
}

impl Members {
    /// Takes over what a route says. Answers whether another member leads now.
    pub(crate) fn update(&mut self, by_id: &BTreeMap<i64, Arc<str>>) -> bool {
        let is_other = by_id.get(&MASTER) != self.by_id.get(&MASTER);
        self.by_id.clone_from(by_id);
        self.failures.retain(|addr, _| by_id.values().any(|other| other == addr));
        if is_other && let Some(leader) = by_id.get(&MASTER) {
            // It has just registered, so what it was before counts no more.
            self.failures.remove(leader);
        }
        is_other
    }

    pub(crate) fn addrs(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_id.values()
    }

    pub(crate) fn has(&self, addr: &str) -> bool {
        self.addrs().any(|other| &**other == addr)
    }

    pub(crate) fn leader(&self) -> Option<&Arc<str>> {
        self.by_id.get(&MASTER)
    }

    /// Whether members that do not lead pass requests on.
    pub(crate) fn pass_on(&self) -> bool {
        self.pass_on
    }

    /// They do, as one of them has said.
    pub(crate) fn set_pass_on(&mut self) {
        self.pass_on = true;
    }

    /// Where a request goes that only the leader carries out: to the leader, or while that fails to the member whose last
    /// failure is the longest ago.
    pub(crate) fn way(&self, now: Instant) -> Option<&Arc<str>> {
        match self.leader() {
            Some(leader) if self.failures.is_empty() => Some(leader),
            leader if !self.pass_on => leader,
            // The first of those that did not fail, the leader before others.
            _ => self.addrs().min_by_key(|addr| self.failed_at(addr, now)),
        }
    }

    /// Where to read from: the way to the leader where members pass on; else the replica `preferred`, else any.
    pub(crate) fn reader(&self, preferred: i64, now: Instant) -> Option<(i64, &Arc<str>)> {
        if self.pass_on {
            return self.way(now).map(|addr| (MASTER, addr));
        }
        let found = self.by_id.get_key_value(&preferred).or_else(|| self.by_id.first_key_value())?;
        Some((*found.0, found.1))
    }

    /// Whether a request can be tried at a member that did not fail.
    pub(crate) fn has_way(&self, now: Instant) -> bool {
        self.way(now).is_some_and(|addr| self.failed_at(addr, now).is_none())
    }

    /// Whether the leader is known and did not fail. Others than ours may have no leader for long; nobody waits for one.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        match self.leader() {
            Some(leader) => self.failed_at(leader, now).is_none(),
            None => !self.pass_on,
        }
    }

    /// A request to the member at `addr` failed.
    pub(crate) fn failed(&mut self, addr: &str, trouble: Trouble, now: Instant) {
        if let Some(addr) = self.by_id.values().find(|other| &***other == addr) {
            self.failures.insert(Arc::clone(addr), Failure { at: now, trouble });
        }
    }

    /// The member at `addr` answered what was asked at `asked`. `served`: it carried a request out, or passed it on; else it
    /// answered a heartbeat, as members without a leader do, too.
    pub(crate) fn answered(&mut self, addr: &str, asked: Instant, served: bool) {
        let is_over = |failure: &Failure| failure.at <= asked && (served || failure.trouble == Trouble::Away);
        if self.failures.get(addr).is_some_and(is_over) {
            self.failures.remove(addr);
        }
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.len()
    }

    fn failed_at(&self, addr: &str, now: Instant) -> Option<Instant> {
        let failure = self.failures.get(addr)?;
        let counts = failure.trouble == Trouble::Away || now.duration_since(failure.at) < NO_LEADER_COUNTS;
        counts.then_some(failure.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &[(i64, &str)]) -> BTreeMap<i64, Arc<str>> {
        list.iter().map(|(id, addr)| (*id, Arc::from(*addr))).collect()
    }

    fn group(pass_on: bool) -> Members {
        let mut members = Members { pass_on, ..Members::default() };
        members.update(&ids(&[(0, "a"), (2, "b"), (3, "c")]));
        members
    }

    fn way(members: &Members, now: Instant) -> &str {
        members.way(now).expect("a way")
    }

    #[test]
    fn while_the_leader_is_away_others_are_the_way_in_turn() {
        let (mut members, start) = (group(true), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(way(&members, start), "a");
        members.failed("a", Trouble::Away, at(1));
        assert_eq!(way(&members, at(1)), "b");
        assert!(members.has_way(at(1)) && !members.is_settled(at(1)));
        members.failed("b", Trouble::NoLeader, at(2));
        assert_eq!(way(&members, at(2)), "c");
        members.failed("c", Trouble::Away, at(3));
        assert_eq!(way(&members, at(3)), "a", "its failure is the longest ago");
        assert!(!members.has_way(at(3)));
        members.failed("a", Trouble::Away, at(4));
        assert_eq!(way(&members, at(4)), "b");
        assert_eq!(way(&members, at(5_002)), "b", "that it found no leader is long ago");
        assert!(members.has_way(at(5_002)));
    }

    #[test]
    fn an_answer_ends_a_failure_that_came_before_the_question() {
        let (mut members, start) = (group(true), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        members.failed("a", Trouble::Away, at(2));
        members.answered("a", at(1), true);
        assert_eq!(way(&members, at(3)), "b", "asked before it went");
        members.answered("a", at(3), false);
        assert_eq!((way(&members, at(3)), members.failures()), ("a", 0));
        members.failed("a", Trouble::NoLeader, at(4));
        members.answered("a", at(5), false);
        assert_eq!(way(&members, at(5)), "b", "it has no leader, but answers heartbeats");
        members.answered("a", at(6), true);
        assert_eq!(way(&members, at(6)), "a");
    }

    #[test]
    fn another_leader_is_taken_at_its_word() {
        let (mut members, now) = (group(true), Instant::now());
        for member in ["a", "b"] {
            members.failed(member, Trouble::Away, now);
        }
        assert!(members.update(&ids(&[(2, "b"), (3, "c")])), "the leader is gone");
        assert_eq!((way(&members, now), members.failures()), ("c", 1), "who is in no route is forgotten");
        assert!(!members.is_settled(now));
        assert!(members.update(&ids(&[(0, "b"), (1, "a"), (3, "c")])));
        assert!(members.is_settled(now) && way(&members, now) == "b");
        assert!(!members.update(&ids(&[(0, "b"), (3, "c")])), "the same leader");
    }

    #[test]
    fn replicas_of_other_brokers_take_no_requests_for_their_master() {
        let (mut members, now) = (group(false), Instant::now());
        members.failed("a", Trouble::Away, now);
        assert_eq!(way(&members, now), "a");
        assert_eq!(members.reader(2, now), Some((2, &"b".into())));
        assert_eq!(members.reader(7, now), Some((0, &"a".into())));
        members.update(&ids(&[(2, "b")]));
        assert_eq!((members.way(now), members.is_settled(now)), (None, true));
        assert_eq!(members.reader(0, now), Some((2, &"b".into())));
        let mut ours = group(true);
        ours.failed("a", Trouble::Away, now);
        assert_eq!(ours.reader(3, now), Some((0, &"b".into())), "all reads are the leader's");
    }
}
