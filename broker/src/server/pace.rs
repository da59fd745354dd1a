//! When to carry out what was read: at once, or when the other connections that are ready have been read as well.
//!
//! Waiting for the others makes batches. It also costs a look at all sockets, and mostly the waking of another thread, which
//! is more than a lone send costs otherwise, and a connection that is alone gains nothing by it.

use std::sync::atomic::{AtomicU32, Ordering};

/// After this many reads without company the next one is not made to wait for any.
const ALONE: u32 = 8;
/// One read out of this many waits all the same, to see whether there is company by now.
const LOOK_EVERY: u32 = 8;

/// Whether reads come alone. A guess: it decides nothing but speed.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Reads since the last time that something was carried out.
    waiting: AtomicU32,
    /// How often in a row it was one read.
    alone: AtomicU32,
}

impl Pace {
    /// Notes a read that made work; says whether to carry it out at once.
    pub(super) fn read(&self) -> bool {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let alone = self.alone.load(Ordering::Relaxed);
        waiting == 0 && alone >= ALONE && !alone.is_multiple_of(LOOK_EVERY)
    }

    /// Notes that all that was read is carried out now.
    pub(super) fn carried_out(&self) {
        let alone = match self.waiting.swap(0, Ordering::Relaxed) {
            // Another thread has done it.
            0 => return,
            1 => self.alone.load(Ordering::Relaxed).wrapping_add(1),
            _ => 0,
        };
        self.alone.store(alone, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lone_reads(pace: &Pace, count: u32) -> u32 {
        (0..count)
            .map(|_| {
                let at_once = pace.read();
                pace.carried_out();
                u32::from(at_once)
            })
            .sum()
    }

    #[test]
    fn who_stays_alone_waits_one_time_in_eight() {
        let pace = Pace::default();
        assert_eq!(lone_reads(&pace, ALONE), 0);
        assert_eq!(lone_reads(&pace, 80), 70);
    }

    #[test]
    fn company_makes_reads_wait_again() {
        let pace = Pace::default();
        lone_reads(&pace, 20);
        pace.read();
        assert!(!pace.read(), "there is company already");
        pace.carried_out();
        assert_eq!(lone_reads(&pace, ALONE), 0);
    }
}
