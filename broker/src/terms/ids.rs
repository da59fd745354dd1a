//! The numbers that name things inside one shard. None of them turns into another, nor into a bare number, unless it is said.

use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::terms::Position;

/// A queue of this shard: dense, given out once, never reused, so that a deleted topic's entries can never show up in
/// a new topic of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u32);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue {}", self.0)
    }
}

/// The place of a record in the Raft log, counted in records: each is one more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// Of the first record ever written.
    pub const ZERO: Self = Self(0);
    /// Above every record.
    pub const MAX: Self = Self(u64::MAX);

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The index of the next record.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<u64> for LogIndex {
    type Output = Self;

    fn add(self, records: u64) -> Self {
        Self(self.0 + records)
    }
}

impl AddAssign<u64> for LogIndex {
    fn add_assign(&mut self, records: u64) {
        *self = *self + records;
    }
}

/// A half message, for ever: the log position that its message had when it was prepared. Of two halves the later one has the
/// higher id. The default is below every half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HalfId(pub u64);

impl HalfId {
    /// Below every half: a record has a header in front of its messages.
    pub const ZERO: Self = Self(0);
    /// Above every half.
    pub const MAX: Self = Self(u64::MAX);

    /// Of the half that is prepared with its message here.
    pub const fn at(position: Position) -> Self {
        Self(position.get())
    }

    /// Where its message was when it was prepared, and is unless it was moved.
    pub const fn position(self) -> Position {
        Position(self.0)
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The lowest id above this one, which need not be a half's.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The highest id below this one, which need not be a half's.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for HalfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a message in its queue: each is one more than the one before, and stays what it is when those before it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueOffset(pub u64);

impl QueueOffset {
    /// Of the first message that a queue ever had.
    pub const ZERO: Self = Self(0);
    /// Above every message.
    pub const MAX: Self = Self(u64::MAX);

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as the protocol's headers carry it.
    pub const fn signed(self) -> i64 {
        self.0.cast_signed()
    }

    /// The offset of the next message.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset of the message before; `None` of the first one.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The messages from `start` up to here; none when `start` is the higher offset.
    pub const fn since(self, start: Self) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

impl fmt::Display for QueueOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<u64> for QueueOffset {
    type Output = Self;

    fn add(self, messages: u64) -> Self {
        Self(self.0 + messages)
    }
}
