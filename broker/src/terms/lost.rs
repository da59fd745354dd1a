//! Ranges of the log that an operator gave up.

use std::ops::Range;

use crate::terms::{Position, Stamp};

/// A range of the log that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// Log positions of the messages that are passed.
    pub positions: Range<Position>,
    /// Entries of queues that pointed there then.
    pub messages: u64,
    /// When it was given up.
    pub at: Stamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub why: String,
}
