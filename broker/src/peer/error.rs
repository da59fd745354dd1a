//! How a call can fail, and what that says about the request.

use std::time::Duration;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The request was never sent.
    #[error("{member} cannot be reached: {why}; nothing was sent, and a retry is safe")]
    Unreachable {
        /// The member and its address.
        member: String,
        /// What stands in the way.
        why: String,
    },
    /// The connection ended after the request was sent, or while it was.
    #[error(
        "the connection to {member} ended before its answer: the request may have been carried out, and a retry may repeat it"
    )]
    Broken {
        /// The member and its address.
        member: String,
    },
    /// No answer by the deadline.
    #[error("no answer from {member} within {} ms: the request may have been carried out, and a retry may repeat it", after.as_millis())]
    TimedOut {
        /// The member and its address.
        member: String,
        /// The time that the call had.
        after: Duration,
    },
    /// Too much is in flight already.
    #[error("{member} has too many requests unanswered; nothing was sent, and a retry is safe when some are answered")]
    Busy {
        /// The member and its address.
        member: String,
    },
    /// One side refuses the other.
    #[error("{0}; nothing was sent, and a retry ends the same way until that is put right")]
    Refused(String),
    /// The request fits into no frame.
    #[error(
        "a request of {bytes} bytes is above the limit of {limit}; nothing was sent, and a retry ends the same way"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most that a request may have.
        limit: usize,
    },
}

impl CallError {
    /// Whether the request may have been carried out although nobody said so.
    pub(crate) fn outcome_unknown(&self) -> bool {
        match self {
            CallError::Broken { .. } | CallError::TimedOut { .. } => true,
            CallError::Unreachable { .. }
            | CallError::Busy { .. }
            | CallError::Refused(_)
            | CallError::TooLarge { .. } => false,
        }
    }
}
