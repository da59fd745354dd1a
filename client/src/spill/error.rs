//! The errors of a producer that spills.

use super::receipt::Spilled;
use crate::error::SendError;

/// A message was neither sent nor kept, or is only kept where that is not enough.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// The send failed for a reason that waiting does not cure, or the producer is shut down. The message is not kept.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The spill has no room: the message is not kept. It has room again when brokers are back.
    #[error("{}message {message_id} is not kept, because the spill is full: {reason}; send it again later", before(.cause.as_deref()))]
    Full {
        /// The unique id that every attempt carried.
        message_id: String,
        /// How full.
        reason: String,
        /// Why it was not sent; `None` if it had to wait behind others.
        cause: Option<Box<SendError>>,
    },
    /// The spill's disk fails: the message is not kept, or nobody knows.
    #[error(
        "{}message {message_id} is not kept, because the spill cannot be written: {reason}{}",
        before(.cause.as_deref()),
        doubt(*.maybe_kept)
    )]
    Disk {
        /// The unique id that every attempt carried.
        message_id: String,
        /// What the system said.
        reason: String,
        /// Why it was not sent; `None` if it had to wait behind others.
        cause: Option<Box<SendError>>,
        /// It may be on disk all the same, and then the next start sends it.
        maybe_kept: bool,
    },
    /// [`Profile::Strict`](crate::Profile::Strict) alone: the message is kept locally and is sent later, under its unique id. Do not
    /// send it again.
    #[error("message {} is at no broker yet; it is kept locally and sent later: do not send it again", .0.message_id)]
    Spilled(Spilled),
}

impl SpillError {
    /// Whether sending again may succeed. A message that is kept needs no second send.
    pub fn is_retryable(&self) -> bool {
        match self {
            SpillError::Send(error) => error.is_retryable(),
            SpillError::Full { .. } | SpillError::Disk { .. } => true,
            SpillError::Spilled(_) => false,
        }
    }

    /// Whether a broker may have the message all the same, or get it later.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            SpillError::Send(error) => error.outcome_unknown(),
            SpillError::Full { cause, .. } => cause.as_ref().is_some_and(|cause| cause.outcome_unknown()),
            SpillError::Disk { cause, maybe_kept, .. } => {
                *maybe_kept || cause.as_ref().is_some_and(|cause| cause.outcome_unknown())
            }
            SpillError::Spilled(_) => true,
        }
    }
}

fn before(cause: Option<&SendError>) -> String {
    cause.map(|cause| format!("{cause}; and ")).unwrap_or_default()
}

fn doubt(maybe_kept: bool) -> &'static str {
    if maybe_kept { "; it may be on disk all the same, and is then sent after the next start" } else { "" }
}
