//! How a call can fail, and what that says about the request.

use std::time::Duration;

use thiserror::Error;

use crate::frame::FrameError;

/// Why a call has no answer.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// No connection; nothing was sent.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address that was tried.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// The address is no `host:port`; nothing was sent.
    #[error("'{address}' is no address of the form host:port")]
    BadAddress {
        /// The address that was given.
        address: String,
    },
    /// The connection was closed, or its out buffer full, before the request was handed to it; nothing was sent.
    #[error("not sent to {address}: {reason}")]
    NotSent {
        /// The peer.
        address: String,
        /// Why.
        reason: &'static str,
    },
    /// The request does not fit into a frame; nothing was sent.
    #[error("request cannot be sent: {0}")]
    Frame(#[from] FrameError),
    /// No answer in time. The request may have been carried out, or still be.
    #[error("no answer from {address} within {} ms", after.as_millis())]
    Timeout {
        /// The peer.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended before the answer came. The request may have been carried out.
    #[error("connection to {address} was lost before its answer")]
    ConnectionLost {
        /// The peer.
        address: String,
    },
}

impl CallError {
    /// Whether the request may have been carried out although nobody said so.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            CallError::Timeout { .. } | CallError::ConnectionLost { .. } => true,
            CallError::Connect { .. }
            | CallError::BadAddress { .. }
            | CallError::NotSent { .. }
            | CallError::Frame(_) => false,
        }
    }

    /// Whether the same request may succeed later or elsewhere. If the outcome is unknown as well, repeating it may carry
    /// it out twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            CallError::Connect { .. }
            | CallError::NotSent { .. }
            | CallError::Timeout { .. }
            | CallError::ConnectionLost { .. } => true,
            CallError::BadAddress { .. } | CallError::Frame(_) => false,
        }
    }
}
