//! How long something takes, in buckets.

use std::time::Duration;

use super::Count;

/// Upper bounds of the buckets, in microseconds: from a write into memory to a disk that stalls.
const BOUNDS: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000];

/// Durations since start. Recording one is two additions to atomics.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one is for what is above all bounds.
    counts: [Count; BOUNDS.len() + 1],
    micros: Count,
}

impl Histogram {
    /// Something took so long.
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS.partition_point(|bound| *bound < micros)].add_one();
        self.micros.add(micros);
    }

    /// The buckets as Prometheus wants them: the upper bound in seconds, and how many were not above it.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (String, u64)> {
        let bounds = BOUNDS.iter().map(|bound| (*bound as f64 / 1e6).to_string()).chain(["+Inf".to_owned()]);
        bounds.zip(self.counts.iter()).scan(0, |sum, (bound, count)| {
            *sum += count.get();
            Some((bound, *sum))
        })
    }

    /// The sum of all, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.micros.get() as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_buckets_add_up() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 5_000_000, 5_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        let of = |bound: &str| buckets.iter().find(|(each, _)| each == bound).map(|(_, count)| *count);
        assert_eq!((of("0.0005"), of("0.001"), of("2.5")), (Some(2), Some(3), Some(3)));
        assert_eq!((of("5"), of("+Inf")), (Some(4), Some(5)));
        assert!((histogram.seconds() - 10.001_002).abs() < 1e-9);
    }
}
