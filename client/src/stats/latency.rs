//! How long something takes, in buckets that a snapshot is made of.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two is cut into this many buckets: a percentile is at most a quarter above the true one.
const STEP_BITS: u32 = 2;
const STEPS: u64 = 1 << STEP_BITS;
/// Buckets up to 2^33 microseconds, more than two hours; longer durations count as that.
const BUCKETS: usize = 32 * STEPS as usize;

/// Durations since the start of a producer or consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Their sum: divided by the count it is the mean.
    pub total: Duration,
    /// Half of them were not longer; at most a quarter above the true value, as all percentiles here.
    pub p50: Duration,
    /// 99 of 100 were not longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// Records durations.
#[derive(Debug)]
pub(crate) struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    total_micros: AtomicU64,
    max_micros: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            total_micros: AtomicU64::new(0),
            max_micros: AtomicU64::new(0),
        }
    }
}

/// Where a duration is counted. Those below [`STEPS`] have a bucket each.
fn bucket(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let bucket = (u64::from(shift) * STEPS + (micros >> shift)) as usize;
    bucket.min(BUCKETS - 1)
}

/// The greatest duration that a bucket counts.
fn greatest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS + 1) << shift) - 1
}

impl Latencies {
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.total_micros.fetch_add(micros, Ordering::Relaxed);
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn latency(&self) -> Latency {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let count: u64 = counts.iter().sum();
        let max = self.max_micros.load(Ordering::Relaxed);
        let percentile = |percent: u64| {
            let wanted = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let reached = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            Duration::from_micros(reached.map_or(0, |bucket| greatest_of(bucket).min(max)))
        };
        Latency {
            count,
            total: Duration::from_micros(self.total_micros.load(Ordering::Relaxed)),
            p50: percentile(50),
            p99: percentile(99),
            max: Duration::from_micros(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_it_says() {
        for micros in (0..5000).chain([1 << 20, (1 << 33) - 1]) {
            let bucket = bucket(micros);
            assert!(micros <= greatest_of(bucket), "{micros}");
            assert!(bucket == 0 || micros > greatest_of(bucket - 1), "{micros}");
            assert!(greatest_of(bucket) <= micros + micros / 4 + 1, "{micros}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let latencies = Latencies::default();
        assert_eq!(latencies.latency(), Latency::default());
        for micros in 1..=100 {
            latencies.record(Duration::from_micros(micros * 100));
        }
        let latency = latencies.latency();
        assert_eq!((latency.count, latency.max), (100, Duration::from_millis(10)));
        assert_eq!(latency.total, Duration::from_millis(505));
        assert!((5000..=6250).contains(&(latency.p50.as_micros() as u64)), "{latency:?}");
        assert!((9900..=10_000).contains(&(latency.p99.as_micros() as u64)), "{latency:?}");
    }
}
