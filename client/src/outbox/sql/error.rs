//! Why a transaction was not committed.

use crate::sql::{Dialect, is_contention};

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
