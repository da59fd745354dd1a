//! Decisions about a transaction, and their outcome at the broker.

use std::time::Duration;

use escrowmq_common::code::word;
use escrowmq_common::message::TransactionType;

use crate::queue::MessageQueue;

/// An answer about a transaction: committed, rolled back, or not decided yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Consumers get its messages.
    Commit,
    /// Nobody ever gets them.
    Rollback,
    /// Not decided yet: the broker asks again later. Every such answer uses up one of the broker's attempts; after the
    /// last one the transaction is parked until an operator decides.
    Unknown,
    /// Not decided yet, and known to be under way: the broker asks again, no earlier than `retry_after` from now, and the
    /// attempt is not used up. Brokers other than EscrowMQ take it as [`Unknown`](Decision::Unknown).
    InProgress {
        /// The broker bounds it to one millisecond at least and one hour at most.
        retry_after: Duration,
    },
}

impl Decision {
    /// The number that decisions have in `END_TRANSACTION`.
    pub(crate) fn wire_type(self) -> i32 {
        match self {
            Decision::Commit => TransactionType::Commit.bits(),
            Decision::Rollback => TransactionType::Rollback.bits(),
            Decision::Unknown | Decision::InProgress { .. } => TransactionType::None.bits(),
        }
    }

    /// The word by which a broker names a decision that stands.
    pub(crate) fn from_wire(word: &str) -> Option<Decision> {
        match word {
            word::COMMIT => Some(Decision::Commit),
            word::ROLLBACK => Some(Decision::Rollback),
            _ => None,
        }
    }

    /// Whether it settles the transaction.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Decision::Commit | Decision::Rollback)
    }
}

/// How a transaction ended, as far as the broker confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The broker confirmed: consumers get its messages.
    #[non_exhaustive]
    Committed {
        /// The queue that the first message is in.
        queue: MessageQueue,
        /// Its number there; `None` while it waits for a delay, or if the broker did not say.
        queue_offset: Option<i64>,
        /// The failures that the commit survives; `None` if the broker did not say.
        level: Option<Durability>,
        /// The commit had been made before: by an answer to a check, by an operator, or by an earlier attempt of this
        /// call whose answer was lost. The place is that of the first commit.
        repeated: bool,
        /// The places of the other messages of the transaction, in the order in which they were prepared.
        members: Vec<Member>,
    },
    /// The broker confirmed: nobody ever gets its messages.
    #[non_exhaustive]
    RolledBack {
        /// The rollback had been made before, in one of the ways in which a commit can be.
        repeated: bool,
    },
    /// The listener did not know; the broker will ask.
    Undecided,
    /// The decision was sent to a broker that confirms none. If it was lost on the way, the broker will ask.
    Unconfirmed,
}

/// A message of a committed transaction, beyond the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its unique id.
    pub message_id: String,
    /// The queue it is in.
    pub queue: MessageQueue,
    /// Its number there; `None` while it waits for a delay.
    pub queue_offset: Option<i64>,
}

/// The failures that a decision survives, as far as the broker had got before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The end of the broker's process.
    Appended,
    /// A power cut.
    Flushed,
    /// The loss of the machine.
    Replicated,
}

impl Durability {
    pub(super) fn from_wire(word: &str) -> Option<Durability> {
        match word {
            word::APPENDED => Some(Durability::Appended),
            word::FLUSHED => Some(Durability::Flushed),
            word::REPLICATED => Some(Durability::Replicated),
            _ => None,
        }
    }
}
