//! Decisions on half messages, and reasons to park them.

/// The most halves of one transaction: they are settled in one write.
pub const TRANSACTION_HALVES_MAX: usize = 128;
const _: () = assert!(TRANSACTION_HALVES_MAX <= u8::MAX as usize, "a row counts its further halves in a byte");

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Decision {
    /// The message enters its queue.
    Commit = 1,
    /// The message is never seen.
    Rollback = 2,
}

impl Decision {
    /// The stored form.
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Commit),
            2 => Some(Self::Rollback),
            _ => None,
        }
    }
}

/// Why a half is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ParkReason {
    /// The last check was sent and no decision came.
    ChecksExhausted = 1,
    /// No instance of the producer group came back in time.
    NoChecker = 2,
    /// Its topic was deleted.
    TopicDeleted = 3,
    /// Its bytes could not be read, or its check could not be built.
    Unreadable = 4,
    /// An operator parked it.
    Operator = 5,
}

impl ParkReason {
    /// The stored form.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::ChecksExhausted,
            2 => Self::NoChecker,
            3 => Self::TopicDeleted,
            4 => Self::Unreadable,
            5 => Self::Operator,
            _ => return None,
        })
    }

    /// The name in listings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChecksExhausted => "checks exhausted",
            Self::NoChecker => "no checker",
            Self::TopicDeleted => "topic deleted",
            Self::Unreadable => "unreadable",
            Self::Operator => "operator",
        }
    }
}
