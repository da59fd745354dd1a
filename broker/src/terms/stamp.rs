//! When something was, or will be.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// A time by the broker's clock, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything.
    pub const MAX: Self = Self(u64::MAX);

    /// The bare number of milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as the protocol carries it.
    pub const fn signed(self) -> i64 {
        self.0.cast_signed()
    }

    /// The form in rows that have no other for none: 0 is none, and no row speaks of the first millisecond of 1970.
    pub const fn to_stored(stamp: Option<Self>) -> u64 {
        match stamp {
            Some(Self(0)) => 1,
            Some(Self(millis)) => millis,
            None => 0,
        }
    }

    /// Reads what [`to_stored`](Self::to_stored) made.
    pub const fn from_stored(millis: u64) -> Option<Self> {
        if millis == 0 { None } else { Some(Self(millis)) }
    }

    /// This many milliseconds later, or the last time that there is.
    #[must_use]
    pub const fn saturating_add(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This many milliseconds earlier, or the first time that there is.
    #[must_use]
    pub const fn saturating_sub(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// The milliseconds from `start` to here; none when `start` is later.
    pub const fn since(self, start: Self) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<u64> for Stamp {
    type Output = Self;

    fn add(self, millis: u64) -> Self {
        Self(self.0 + millis)
    }
}
