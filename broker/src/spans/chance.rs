//! Random numbers: which requests are recorded, and the ids of spans.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The distance of two states: odd, so that a counter comes by all of them.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Splitmix64 over a counter: one atomic addition for a number, and no number comes twice. Each process begins elsewhere.
#[derive(Debug)]
pub(super) struct Chance {
    state: AtomicU64,
    /// Numbers below it are hits.
    below: u128,
}

impl Chance {
    /// Hits `ratio` of the times.
    pub(super) fn new(ratio: f64) -> Self {
        let state = AtomicU64::new(RandomState::new().hash_one(std::process::id()));
        Self { state, below: (ratio.clamp(0.0, 1.0) * 2_f64.powi(64)) as u128 }
    }

    /// Whether it hits this time.
    pub(super) fn hits(&self) -> bool {
        u128::from(self.next()) < self.below
    }

    /// The id of a new trace.
    pub(super) fn trace_id(&self) -> [u8; 16] {
        ((u128::from(self.id()) << 64) | u128::from(self.id())).to_be_bytes()
    }

    /// The id of a new span.
    pub(super) fn span_id(&self) -> [u8; 8] {
        self.id().to_be_bytes()
    }

    /// An id is not zero: that is none.
    fn id(&self) -> u64 {
        match self.next() {
            0 => self.next(),
            id => id,
        }
    }

    fn next(&self) -> u64 {
        let mut mixed = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_as_many_as_the_ratio_says() {
        let hits = |ratio| {
            let chance = Chance::new(ratio);
            (0..100_000).filter(|_| chance.hits()).count()
        };
        assert_eq!((hits(0.0), hits(1.0)), (0, 100_000));
        let tenth = hits(0.1);
        assert!((9_000..11_000).contains(&tenth), "{tenth}");
    }
}
