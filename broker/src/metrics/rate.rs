//! How much there is of something in a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A sum for each whole second, of which the last two are kept. One thread adds; others may look at any time.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// The second that `current` is for, on the monotonic clock.
    second: AtomicU64,
    current: AtomicU64,
    previous: AtomicU64,
}

impl Rate {
    /// Adds to the second of `now`.
    pub(crate) fn add(&self, more: u64, now: Duration) {
        let second = self.second.load(Ordering::Relaxed);
        if second != now.as_secs() {
            let current = self.current.swap(0, Ordering::Relaxed);
            self.previous.store(if second + 1 == now.as_secs() { current } else { 0 }, Ordering::Relaxed);
            self.second.store(now.as_secs(), Ordering::Relaxed);
        }
        self.current.fetch_add(more, Ordering::Relaxed);
    }

    /// The sum of the last whole second.
    pub(crate) fn per_second(&self, now: Duration) -> u64 {
        match now.as_secs().checked_sub(self.second.load(Ordering::Relaxed)) {
            Some(0) => self.previous.load(Ordering::Relaxed),
            Some(1) => self.current.load(Ordering::Relaxed),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_second_counts() {
        let (rate, at) = (Rate::default(), Duration::from_millis);
        rate.add(1, at(1_000));
        rate.add(2, at(1_999));
        assert_eq!(rate.per_second(at(1_999)), 0);
        assert_eq!(rate.per_second(at(2_000)), 3);
        rate.add(5, at(2_500));
        assert_eq!((rate.per_second(at(2_900)), rate.per_second(at(3_000)), rate.per_second(at(4_000))), (3, 5, 0));
        rate.add(7, at(9_000));
        assert_eq!(rate.per_second(at(9_500)), 0, "the second before it had nothing");
    }
}
