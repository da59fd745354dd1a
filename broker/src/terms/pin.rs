//! The owners of bytes that no queue holds.

use crate::terms::{HalfId, Stamp};

const HALF: u8 = 1;
const TIMER: u8 = 2;

/// The owner of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinOwner {
    /// An undecided half message.
    Half {
        /// Its id.
        half: HalfId,
    },
    /// A message that waits for its time.
    Timer {
        /// When it is due.
        due: Stamp,
    },
}

impl PinOwner {
    /// The stored form: kind and number.
    pub fn parts(self) -> (u8, u64) {
        match self {
            Self::Half { half } => (HALF, half.get()),
            Self::Timer { due } => (TIMER, due.get()),
        }
    }

    /// From the stored form.
    pub fn from_parts(kind: u8, number: u64) -> Option<Self> {
        match kind {
            HALF => Some(Self::Half { half: HalfId(number) }),
            TIMER => Some(Self::Timer { due: Stamp(number) }),
            _ => None,
        }
    }
}
