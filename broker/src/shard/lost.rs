//! The parts of the log that operators have given up, as readers see them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::terms::{LostRange, Position};

/// All of them. Apply writes, everybody reads.
#[derive(Debug, Default)]
pub struct Lost {
    ranges: ArcSwap<Vec<LostRange>>,
}

impl Lost {
    /// Whether a message at this log position was given up.
    pub fn holds(&self, position: Position) -> bool {
        self.ranges.load().iter().any(|range| range.positions.contains(&position))
    }

    /// The ranges, in the order in which they were given up.
    pub fn ranges(&self) -> Arc<Vec<LostRange>> {
        self.ranges.load_full()
    }

    /// Messages that were given up, since the data folder was made.
    pub fn messages(&self) -> u64 {
        self.ranges.load().iter().map(|range| range.messages).sum()
    }

    pub(in crate::shard) fn set(&self, ranges: Vec<LostRange>) {
        self.ranges.store(Arc::new(ranges));
    }

    pub(in crate::shard) fn add(&self, range: LostRange) {
        let mut ranges = self.ranges.load().to_vec();
        ranges.retain(|known| known.positions.start != range.positions.start);
        ranges.push(range);
        self.set(ranges);
    }
}
