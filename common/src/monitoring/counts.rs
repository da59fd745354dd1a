//! What the hot path adds to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A count since start, or a gauge.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Adds this many.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// One less, of a gauge.
    pub fn take_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets, in microseconds: from an answer out of memory to a pull that is held for its longest time.
const BOUNDS: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// How long something takes, in buckets, since start. Recording is two additions to atomics.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what is above all bounds.
    counts: [Count; BOUNDS.len() + 1],
    micros: Count,
}

impl Histogram {
    /// Something took so long.
    pub fn record(&self, took: Duration) {
        self.record_many(took, 1);
    }

    /// Each of so many took so long.
    pub fn record_many(&self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < micros)].add(times);
        self.micros.add(micros.wrapping_mul(times));
    }

    /// For each bucket its upper bound in seconds, and how many are in it and in none below.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().map(Count::get))
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(Count::get).sum()
    }

    /// The sum of all, in seconds.
    pub fn seconds(&self) -> f64 {
        self.micros.get() as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        histogram.record_many(Duration::from_micros(500), 3);
        let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.000_25, 1), (0.0005, 3), (30.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 8);
        assert!((histogram.seconds() - 60.001_702).abs() < 1e-9, "{}", histogram.seconds());
    }
}
