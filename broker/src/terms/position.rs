//! Where bytes of the log are: a logical byte offset that never changes.

use std::fmt;

/// A logical byte offset since the beginning of the broker group's log.
///
/// It counts record bytes only: no segment headers, no preallocated space. A record's position is the
/// same on every replica and stays the same when old segments are deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The position of the first record ever written.
    pub const ZERO: Position = Position(0);

    /// The bare byte offset.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on.
    #[must_use]
    pub const fn advance(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
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
