//! Where bytes of the log are: a logical byte offset that never changes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A logical byte offset since the beginning of the broker group's log.
///
/// It counts record bytes only: no segment headers, no preallocated space. A record's position is the
/// same on every replica and stays the same when old segments are deleted. The default is the log's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// The position of the first record ever written.
    pub const ZERO: Position = Position(0);

    /// Above every byte.
    pub const MAX: Position = Position(u64::MAX);

    /// The bare byte offset.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as the protocol carries it.
    pub const fn signed(self) -> i64 {
        self.0.cast_signed()
    }

    /// The position `bytes` further on.
    #[must_use]
    pub const fn advance(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
    }

    /// The position `bytes` further on, or the last one that there is.
    #[must_use]
    pub const fn saturating_advance(self, bytes: u64) -> Position {
        Position(self.0.saturating_add(bytes))
    }

    /// The position `bytes` before this one; `None` if the log does not reach back that far.
    pub fn back(self, bytes: u64) -> Option<Position> {
        self.0.checked_sub(bytes).map(Position)
    }

    /// The number of bytes from `start` to here; zero when `start` is the higher position.
    pub const fn since(self, start: Position) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
