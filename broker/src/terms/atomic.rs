//! An index that threads share without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::terms::LogIndex;

/// The index of a record or none, which only rises.
#[derive(Debug)]
pub struct AtomicLogIndex {
    /// Of the record after it: so zero is none.
    next: AtomicU64,
}

impl AtomicLogIndex {
    /// Begins with this index.
    pub fn new(index: Option<LogIndex>) -> Self {
        Self { next: AtomicU64::new(index.map_or(0, |index| index.next().get())) }
    }

    /// The highest index so far. Whoever reads it sees what was done before it was raised.
    pub fn load(&self) -> Option<LogIndex> {
        self.next.load(Ordering::Acquire).checked_sub(1).map(LogIndex)
    }

    /// Goes up to `index`, unless it is there already.
    pub fn raise(&self, index: LogIndex) {
        self.next.fetch_max(index.next().get(), Ordering::AcqRel);
    }
}

impl Default for AtomicLogIndex {
    fn default() -> Self {
        Self::new(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_is_not_none_and_nothing_goes_back() {
        let index = AtomicLogIndex::default();
        assert_eq!(index.load(), None);
        for (raised, expected) in [(0, 0), (7, 7), (3, 7)] {
            index.raise(LogIndex(raised));
            assert_eq!(index.load(), Some(LogIndex(expected)));
        }
    }
}
