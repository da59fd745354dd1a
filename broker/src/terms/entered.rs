//! Where a stored message is.

use crate::terms::{QueueOffset, Stamp};

/// Where a message went that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Into its queue, with this offset.
    Queue(QueueOffset),
    /// It waits for its time.
    Waits {
        /// Its number among those that ever waited.
        number: u64,
        /// When it becomes visible.
        due: Stamp,
    },
}

impl Entered {
    /// From the number and the time that rows keep; only a message that waits has a time.
    pub fn from_parts(number: u64, due: Option<Stamp>) -> Self {
        match due {
            None => Self::Queue(QueueOffset(number)),
            Some(due) => Self::Waits { number, due },
        }
    }

    /// The number that rows keep, and that answers carry where the protocol has the queue offset.
    pub const fn number(self) -> u64 {
        match self {
            Self::Queue(offset) => offset.get(),
            Self::Waits { number, .. } => number,
        }
    }

    /// When it becomes visible; `None` if it is.
    pub const fn due(self) -> Option<Stamp> {
        match self {
            Self::Queue(_) => None,
            Self::Waits { due, .. } => Some(due),
        }
    }
}
