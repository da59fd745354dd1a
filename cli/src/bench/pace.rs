//! When the messages of an open loop are to be sent, whatever the broker does meanwhile.

/// Evenly spaced intended times. A message that cannot be sent in time keeps its intended time, so its wait counts into
/// its latency: a broker that stalls for a second makes a second's worth of messages late, not one.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    first: u64,
    interval: f64,
    taken: u64,
}

impl Pace {
    /// `rate` messages per second from `first` (in nanoseconds) on, shared by `of` senders of which this is number
    /// `nth`: their times interleave.
    pub(super) fn new(rate: f64, first: u64, nth: usize, of: usize) -> Pace {
        let between = 1e9 / rate;
        Pace { first: first + (between * nth as f64) as u64, interval: between * of as f64, taken: 0 }
    }

    /// When the next message is to be sent.
    pub(super) fn next(&self) -> u64 {
        // Counted from the start: rounding does not add up.
        self.first + (self.interval * self.taken as f64) as u64
    }

    /// The next message is on its way.
    pub(super) fn take(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_interleave_and_keep_the_rate() {
        let mut paces: Vec<Pace> = (0..3).map(|nth| Pace::new(3000.0, 1_000, nth, 3)).collect();
        let mut times = Vec::new();
        for pace in &mut paces {
            for _ in 0..1000 {
                times.push(pace.next());
                pace.take();
            }
        }
        times.sort_unstable();
        assert_eq!((times[0], times.len()), (1_000, 3000));
        // Three thousand messages take a second, and none is more than rounding off its place.
        for (at, time) in times.iter().enumerate() {
            assert!(time.abs_diff(1_000 + at as u64 * 1_000_000_000 / 3000) <= 2, "{at}: {time}");
        }
    }

    #[test]
    fn what_is_late_keeps_its_time() {
        let mut pace = Pace::new(1000.0, 0, 0, 1);
        // Nothing was sent for a long while: the times are the same as if it had been.
        let late: Vec<u64> = (0..5)
            .map(|_| {
                let next = pace.next();
                pace.take();
                next
            })
            .collect();
        assert_eq!(late, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000]);
    }
}
