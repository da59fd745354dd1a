//! Errors of `add` and `commit`.

use crate::sql::{Dialect, is_contention};

/// A message was not added. The transaction that it was to be part of can be rolled back, or go on without it where the database
/// allows that after an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// No broker would take it. A retry ends the same way.
    #[error("{reason}")]
    Invalid {
        /// Which rule it breaks.
        reason: String,
    },
    /// The row would be too large. A retry ends the same way.
    #[error(
        "the row would have {bytes} bytes, the limit is {max}: put the content elsewhere, and a reference into the message"
    )]
    TooLarge {
        /// Bytes of body and properties.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The database's error.
    #[error("the message was not added: {error}")]
    Database {
        /// The database's error.
        #[source]
        error: sqlx::Error,
        /// See [`is_retryable`](AddError::is_retryable).
        retryable: bool,
    },
}

impl AddError {
    /// Whether the whole transaction may succeed if it is run again: it met a lock, a deadlock or a serialization failure.
    pub fn is_retryable(&self) -> bool {
        matches!(self, AddError::Database { retryable: true, .. })
    }
}

/// A transaction was not committed, or nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", if *outcome_unknown { "it is unknown whether the transaction has committed" } else { "the transaction was rolled back" })]
pub struct CommitError {
    /// The database's error.
    #[source]
    pub error: sqlx::Error,
    retryable: bool,
    outcome_unknown: bool,
}

impl CommitError {
    pub(super) fn of<DB: Dialect>(error: sqlx::Error) -> CommitError {
        let database = matches!(error, sqlx::Error::Database(_));
        CommitError { retryable: is_contention::<DB>(&error), outcome_unknown: !database, error }
    }

    /// Whether the whole transaction may succeed if it is run again: it met a lock, a deadlock or a serialization failure.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Whether the transaction may have committed all the same: the connection was lost. Its rows and its messages are both
    /// there, or neither.
    pub fn outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }
}
