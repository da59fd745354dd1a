//! Rates of a count that only grows, from samples taken now and then.

use std::collections::VecDeque;

use escrowmq_common::body::{BrokerStatsData, BrokerStatsItem};

use crate::terms::Stamp;

/// A count at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it was taken.
    pub(super) at: Stamp,
    /// How much.
    pub(super) sum: u64,
    /// In how many calls.
    pub(super) times: u64,
}

/// The samples of one span of time.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Milliseconds between two samples.
    step: u64,
    /// Most samples: the span is one step less.
    keep: usize,
    samples: VecDeque<Sample>,
}

impl Window {
    /// A span of `steps` steps of `step` milliseconds.
    pub(super) fn new(step: u64, steps: usize, first: Sample) -> Self {
        Self { step, keep: steps + 1, samples: VecDeque::from([first]) }
    }

    /// Takes a sample, if it is time.
    pub(super) fn offer(&mut self, now: Sample) {
        let last = self.samples.back().map_or(Stamp::ZERO, |last| last.at);
        if now.at < last.saturating_add(self.step) {
            return;
        }
        if self.samples.len() == self.keep {
            self.samples.pop_front();
        }
        self.samples.push_back(now);
    }

    /// The count of the last `steps` steps, up to `now`.
    pub(super) fn over(&self, steps: usize, now: Sample) -> BrokerStatsItem {
        let at = self.samples.len().saturating_sub(steps + 1);
        let Some(first) = self.samples.get(at) else {
            return BrokerStatsItem::default();
        };
        let (sum, times) = (now.sum.saturating_sub(first.sum), now.times.saturating_sub(first.times));
        // Shortly after the start a single message would look like a thousand per second.
        let seconds = now.at.since(first.at).max(self.step) as f64 / 1000.0;
        BrokerStatsItem {
            avgpt: if times == 0 { 0.0 } else { sum as f64 / times as f64 },
            sum: sum as i64,
            tps: sum as f64 / seconds,
        }
    }

    /// The count of the whole span, up to `now`.
    pub(super) fn whole(&self, now: Sample) -> BrokerStatsItem {
        self.over(self.keep - 1, now)
    }

    /// Whether nothing came in the whole span, which has passed.
    pub(super) fn is_quiet(&self, now: Sample) -> bool {
        self.samples.len() == self.keep && self.samples.front().is_some_and(|first| first.times == now.times)
    }
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
/// Samples of the shortest window, and how often they are taken, in milliseconds.
pub(super) const STEP: u64 = 10 * SECOND;

/// The three spans that tools ask for.
#[derive(Debug)]
pub(super) struct Spans {
    minute: Window,
    hour: Window,
    day: Window,
}

impl Spans {
    /// Counting begins at `first`.
    pub(super) fn new(first: Sample) -> Self {
        Self {
            minute: Window::new(STEP, 6, first),
            hour: Window::new(10 * MINUTE, 6, first),
            day: Window::new(60 * MINUTE, 24, first),
        }
    }

    pub(super) fn offer(&mut self, now: Sample) {
        self.minute.offer(now);
        self.hour.offer(now);
        self.day.offer(now);
    }

    pub(super) fn look(&self, now: Sample) -> BrokerStatsData {
        BrokerStatsData {
            stats_day: self.day.whole(now),
            stats_hour: self.hour.whole(now),
            stats_minute: self.minute.whole(now),
        }
    }

    /// Whether nothing came for a day.
    pub(super) fn is_quiet(&self, now: Sample) -> bool {
        self.day.is_quiet(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, sum: u64) -> Sample {
        Sample { at: Stamp(at), sum, times: sum }
    }

    #[test]
    fn a_window_forgets_what_is_older_than_its_span() {
        let mut window = Window::new(10, 6, sample(0, 0));
        for n in 1..=20 {
            window.offer(sample(n * 10, n));
            window.offer(sample(n * 10 + 3, n + 100));
        }
        let item = window.whole(sample(200, 20));
        assert_eq!(item.sum, 6);
        assert!((item.tps - 100.0).abs() < 1e-9, "{item:?}");
        assert!((item.avgpt - 1.0).abs() < 1e-9);
        assert_eq!(window.over(1, sample(205, 21)).sum, 2);
    }

    #[test]
    fn a_young_window_counts_from_its_first_sample() {
        let window = Window::new(10_000, 6, sample(5_000, 0));
        let item = window.whole(Sample { at: Stamp(5_001), sum: 8, times: 2 });
        assert_eq!(item.sum, 8);
        assert!((item.tps - 0.8).abs() < 1e-9 && (item.avgpt - 4.0).abs() < 1e-9);
        // A count or a clock that went back is no negative rate.
        assert_eq!(
            window.whole(Sample { at: Stamp::ZERO, sum: 0, times: 0 }),
            BrokerStatsItem { avgpt: 0.0, sum: 0, tps: 0.0 }
        );
    }

    #[test]
    fn quiet_means_nothing_for_the_whole_span() {
        let mut window = Window::new(10, 2, sample(0, 4));
        assert!(!window.is_quiet(sample(5, 4)));
        window.offer(sample(10, 4));
        window.offer(sample(20, 4));
        assert!(window.is_quiet(sample(25, 4)));
        assert!(!window.is_quiet(sample(25, 5)));
    }
}
