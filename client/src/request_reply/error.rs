//! How a request, or a reply, ends without success.

use std::time::Duration;

use crate::error::{RequestError, SendError};

/// A request got no reply.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoReply {
    /// The request was certainly not stored: nobody will ever handle it, and it may be made again.
    #[error("the request was not sent: {0}")]
    NotSent(SendError),
    /// No reply came in time. The request may have been handled, be in a handler, or be handled later; making it again
    /// may have it handled twice.
    #[error("no reply to request {message_id} within {after:?}; it may be handled all the same")]
    TimedOut {
        /// The unique id of the request.
        message_id: String,
        /// The timeout.
        after: Duration,
        /// Whether a broker said that it has stored the request.
        stored: bool,
    },
    /// The client was shut down while the reply was awaited. The request may be handled all the same.
    #[error("the client was shut down before the reply to request {message_id}; it may be handled all the same")]
    ShutDown {
        /// The unique id of the request.
        message_id: String,
    },
}

impl NoReply {
    /// Whether making the request again may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            NoReply::NotSent(error) => error.is_retryable(),
            NoReply::TimedOut { .. } => true,
            NoReply::ShutDown { .. } => false,
        }
    }

    /// Whether the request may be handled all the same.
    pub fn outcome_unknown(&self) -> bool {
        !matches!(self, NoReply::NotSent(_))
    }
}

/// A reply did not reach the client that asked. Sending it again is safe: a requester takes the first reply alone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// There is no way to reply: the message asks for none, or the reply breaks a rule. Nothing was sent.
    #[error("the reply cannot be sent: {reason}")]
    Invalid {
        /// Which rule it breaks.
        reason: String,
    },
    /// No broker of the cluster has a connection to the client that asked. It ended, or it is cut off at this moment.
    #[error("the client {client_id} that asked is not there any more: {last}")]
    RequesterGone {
        /// Its id.
        client_id: String,
        /// What the last broker said.
        last: RequestError,
    },
    /// The reply was certainly not passed on.
    #[error("the reply was not delivered: {last}")]
    NotDelivered {
        /// How the last attempt failed.
        last: RequestError,
    },
    /// Nobody knows whether the requester has the reply.
    #[error("it is unknown whether the reply was delivered: {last}")]
    OutcomeUnknown {
        /// How the last attempt failed.
        last: RequestError,
    },
    /// The producer or its client was shut down; nothing was sent.
    #[error("the producer is shut down")]
    ShutDown,
}

impl ReplyError {
    pub(super) fn invalid(reason: impl Into<String>) -> ReplyError {
        ReplyError::Invalid { reason: reason.into() }
    }

    /// Whether sending the reply again may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            ReplyError::NotDelivered { last } => last.is_retryable(),
            ReplyError::OutcomeUnknown { .. } | ReplyError::RequesterGone { .. } => true,
            ReplyError::Invalid { .. } | ReplyError::ShutDown => false,
        }
    }

    /// Whether the requester may have the reply all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, ReplyError::OutcomeUnknown { .. })
    }
}
