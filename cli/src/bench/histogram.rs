//! Counts durations in fixed buckets, so that a percentile of a billion latencies costs a few KiB.

use std::time::Duration;

use serde_json::{Value, json};

/// Each power of two is cut into this many buckets: a reported value is at most 1/128 above the true one.
const STEPS: u64 = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Longer durations (73 minutes) count as this long in percentiles; the greatest one stays exact.
const LONGEST: u64 = 1 << 42;

/// A histogram of durations in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    total: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; bucket(LONGEST) + 1], count: 0, total: 0, max: 0 }
    }
}

/// Where a value is counted. Values below [`STEPS`] have a bucket each.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min(LONGEST);
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The greatest value that is counted in a bucket.
fn greatest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let base = bucket - shift * STEPS;
    ((base + 1) << shift) - 1
}

impl Histogram {
    /// Counts one duration.
    pub(super) fn add(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.total += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    /// Counts everything that another one has counted.
    pub(super) fn merge(&mut self, other: &Histogram) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
        self.count += other.count;
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The duration that `share` of a thousand do not exceed; zero if nothing was counted.
    pub(super) fn per_mille(&self, share: u64) -> Duration {
        let wanted = (self.count * share).div_ceil(1000).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(greatest_of(at).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// The longest duration, exact.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Percentiles in milliseconds; `null` if nothing was counted.
    pub(super) fn json(&self) -> Value {
        if self.count == 0 {
            return Value::Null;
        }
        let ms = |duration: Duration| super::report::rounded(duration.as_secs_f64() * 1e3, 4);
        json!({
            "p50": ms(self.per_mille(500)),
            "p90": ms(self.per_mille(900)),
            "p99": ms(self.per_mille(990)),
            "p999": ms(self.per_mille(999)),
            "max": ms(self.max()),
            "mean": super::report::rounded(self.total as f64 / self.count as f64 / 1e6, 4),
            "count": self.count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_close_to_it() {
        let mut value: u64 = 1;
        while value < LONGEST {
            for near in [value - 1, value, value + 1, value + value / 3] {
                let greatest = greatest_of(bucket(near));
                assert!(greatest >= near && greatest - near <= near / STEPS, "{near}: {greatest}");
            }
            value *= 2;
        }
        assert_eq!(bucket(u64::MAX), bucket(LONGEST));
    }

    #[test]
    fn buckets_follow_each_other() {
        for at in 0..bucket(LONGEST) {
            assert_eq!(bucket(greatest_of(at)), at);
            assert_eq!(bucket(greatest_of(at) + 1), at + 1);
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.per_mille(500), histogram.json()), (Duration::ZERO, Value::Null));
        for micros in 1..=1000 {
            histogram.add(micros * 1000);
        }
        let close = |found: Duration, micros: u64| {
            let wanted = Duration::from_micros(micros);
            assert!(found >= wanted && found <= wanted + wanted / 100, "{found:?} for {wanted:?}");
        };
        close(histogram.per_mille(500), 500);
        close(histogram.per_mille(990), 990);
        close(histogram.per_mille(999), 999);
        assert_eq!((histogram.max(), histogram.count), (Duration::from_millis(1), 1000));
        // A single slow one is no percentile, but it is the maximum.
        let mut slow = Histogram::default();
        slow.add(5_000_000_000);
        histogram.merge(&slow);
        close(histogram.per_mille(999), 1000);
        assert_eq!((histogram.max(), histogram.count), (Duration::from_secs(5), 1001));
        close(histogram.per_mille(1000), 5_000_000);
    }
}
