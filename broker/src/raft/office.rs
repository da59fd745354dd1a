//! Whether this member does what only the leader does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lease::Lease;
use crate::planted::{Bug, planted};

/// A leader's office: the term for which it has prepared itself, and its lease. What an earlier leadership left in memory is
/// gone before the office is taken up, and the office is laid down before anything of it is touched again.
///
/// It is held in one term only. A member that is deposed and leads again a moment later holds nothing before it has prepared
/// itself once more, also if it has not noticed yet that it was deposed.
#[derive(Debug)]
pub(crate) struct Office {
    lease: Arc<Lease>,
    /// The term for which it was taken up; 0 for none.
    term: AtomicU64,
}

impl Office {
    /// Nobody holds it yet.
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, term: AtomicU64::new(0) }
    }

    /// That of the only member of a group.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        let lease = Arc::new(Lease::new(escrowmq_common::clock::Clock::manual(0)));
        lease.renew(1, None);
        Self { lease, term: AtomicU64::new(1) }
    }

    /// Whether this member answers requests now.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held_in(self.term.load(Ordering::Acquire))
    }

    /// Whether it answers requests as the leader of this term.
    pub(crate) fn is_held_in(&self, term: u64) -> bool {
        let is_taken_up = term > 0 && self.term.load(Ordering::Acquire) == term;
        is_taken_up && (self.lease.holds_in(term) || planted(Bug::OfficeWithoutLease))
    }

    /// How long it is held if no majority is heard again; zero if it is not held.
    pub(crate) fn left(&self) -> Duration {
        if self.is_held() { self.lease.left() } else { Duration::ZERO }
    }

    /// This member leads in this term and is prepared.
    pub(crate) fn take_up(&self, term: u64) {
        self.term.store(term, Ordering::Release);
    }

    /// This member does not lead any more.
    pub(crate) fn lay_down(&self) {
        self.term.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_common::clock::Clock;

    use super::*;

    #[test]
    fn it_is_held_in_one_term_and_under_its_lease() {
        let clock = Clock::manual(0);
        let lease = Arc::new(Lease::new(clock.clone()));
        let office = Office::new(Arc::clone(&lease));
        lease.renew(3, Some(Duration::from_millis(10)));
        assert!(!office.is_held(), "not taken up");
        office.take_up(3);
        assert!(office.is_held() && office.is_held_in(3) && !office.is_held_in(4));
        assert_eq!((office.left(), Office::alone().left()), (Duration::from_millis(10), Duration::MAX));
        clock.advance(Duration::from_millis(10));
        assert!(!office.is_held(), "the lease is over");
        assert_eq!(office.left(), Duration::ZERO);
        // Deposed, and leader again before anybody here has noticed.
        lease.end();
        lease.renew(5, Some(Duration::from_millis(20)));
        assert!(!office.is_held() && lease.holds(), "it was taken up for another term");
        office.take_up(5);
        assert!(office.is_held());
        office.lay_down();
        assert!(!office.is_held());
    }
}
