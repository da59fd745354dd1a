//! Why a message was not added.

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
    /// The pipeline is no `MULTI`: its commands could be executed without each other. Call `atomic()` on it before.
    #[cfg(feature = "redis")]
    #[error(
        "the pipeline is not atomic, so the message could be there without what is written beside it: call `atomic()` first"
    )]
    NotAtomic,
    /// The database's error.
    #[cfg(feature = "sql")]
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
        #[cfg(feature = "sql")]
        if let AddError::Database { retryable, .. } = self {
            return *retryable;
        }
        false
    }
}
