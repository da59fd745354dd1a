//! How long a leader may answer reads by itself.
//!
//! A leader that was cut off does not know that others have elected another one. So it answers reads only for
//! [`READ_LEASE`](super::timing::READ_LEASE) after it sent what a majority has answered: none of that majority votes for
//! another leader before [`LEASE`](super::timing::LEASE) is over, which begins later, when they got it. The difference is for clocks
//! that run apart.
//!
//! Members that restart have forgotten what they promised. They do not vote before a lease is over (`serve.rs`). A leader that
//! hands over allows others to vote at once, so it gives up its lease first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock::Clock;

use crate::planted::{Bug, planted};

/// The value of `until` that no clock reaches.
const FOR_EVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lease {
    clock: Clock,
    /// In nanoseconds of the monotonic clock; 0 for none.
    until: AtomicU64,
    /// The term in which it was renewed last. Written before `until`, and read after it.
    term: AtomicU64,
    /// Handed over in this term: it is not renewed any more. 0 for none.
    given_up: AtomicU64,
}

impl Lease {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, until: AtomicU64::new(0), term: AtomicU64::new(0), given_up: AtomicU64::new(0) }
    }

    /// Whether this member leads, and no other member can.
    pub(crate) fn holds(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let is_over = || nanoseconds(self.clock.monotonic()) >= until && !planted(Bug::ReadWithoutLease);
        until == FOR_EVER || until > 0 && !is_over()
    }

    /// How long it holds if it is not renewed. Zero if it does not; [`Duration::MAX`] if nobody else can lead.
    pub(crate) fn left(&self) -> Duration {
        match self.until.load(Ordering::Acquire) {
            FOR_EVER => Duration::MAX,
            until => Duration::from_nanos(until).saturating_sub(self.clock.monotonic()),
        }
    }

    /// Whether this member leads in this term, and no other member can lead.
    pub(crate) fn holds_in(&self, term: u64) -> bool {
        self.holds() && self.term.load(Ordering::Acquire) == term
    }

    /// A majority heard from the leader of this term; the sole member is its own majority.
    pub(super) fn renew(&self, term: u64, until: Option<Duration>) {
        if self.given_up.load(Ordering::Acquire) != term {
            self.term.store(term, Ordering::Release);
            self.until.store(until.map_or(FOR_EVER, nanoseconds), Ordering::Release);
        }
        // Given up meanwhile, by another thread.
        if self.given_up.load(Ordering::Acquire) == term {
            self.end();
        }
    }

    /// This member does not lead.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Hands over in this term.
    pub(super) fn give_up(&self, term: u64) {
        self.given_up.store(term, Ordering::Release);
        self.end();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOR_EVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_its_end_and_is_renewed() {
        let clock = Clock::manual(0);
        let lease = Lease::new(clock.clone());
        assert!(!lease.holds());
        lease.renew(1, Some(Duration::from_millis(10)));
        assert!(lease.holds());
        clock.advance(Duration::from_millis(10));
        assert!(!lease.holds());
        lease.renew(1, None);
        assert!(lease.holds());
        lease.end();
        assert!(!lease.holds());
    }

    #[test]
    fn once_given_up_it_stays_so_in_its_term() {
        let lease = Lease::new(Clock::manual(0));
        lease.renew(1, None);
        lease.give_up(1);
        lease.renew(1, None);
        assert!(!lease.holds());
        lease.renew(2, None);
        assert!(lease.holds());
    }
}
