//! How long to wait before a member is dialed again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that double. Each is a random part of its length, at least half of it: members that lost each other at the
/// same moment do not meet again at the same moment.
#[derive(Debug)]
pub(super) struct BackOff {
    next: Duration,
    random: RandomState,
    drawn: u64,
}

impl BackOff {
    pub(super) fn new() -> BackOff {
        BackOff { next: FIRST, random: RandomState::new(), drawn: 0 }
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        self.drawn += 1;
        let part = self.random.hash_one(self.drawn) % 501;
        whole * (500 + u32::try_from(part).unwrap_or_default()) / 1000
    }

    /// Begins with the first pause again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_two_seconds_and_begin_again() {
        let mut back_off = BackOff::new();
        let wholes = [50, 100, 200, 400, 800, 1600, 2000, 2000, 2000];
        for whole in wholes.map(Duration::from_millis) {
            let pause = back_off.pause();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
        back_off.reset();
        assert!(back_off.pause() <= FIRST);
    }

    #[test]
    fn members_do_not_dial_at_the_same_moment() {
        let pauses: std::collections::BTreeSet<_> = (0..20).map(|_| BackOff::new().pause()).collect();
        assert!(pauses.len() > 1);
    }
}
