//! Why a message has to come again.

use std::fmt::Display;
use std::time::Duration;

use super::StoreError;
use crate::consumer::{Verdict, judged};

/// Why a message has to come again. The consumer tries it again by itself, as it does after any error of a handler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError<E> {
    /// The handler said so. Nothing of it is in the transaction's database; what it did elsewhere may happen again.
    #[error("{0:#}")]
    Handler(E),
    /// Somebody else works on the message, or died while doing so. It comes again after the lease, and is done then or free.
    #[error("somebody else works on this message, for {left:?} at most unless the lease is renewed")]
    Busy {
        /// What is left of the lease.
        left: Duration,
    },
    /// The store of marks did not answer, so the handler was not called.
    #[error("the store of marks, before the handler: {error}")]
    Store {
        /// The store's error.
        error: StoreError,
    },
    /// The lease ended while the handler ran, since the store was away or this process stood still. The handler was stopped at its
    /// next await. It is unknown how much it has done; the message comes again, and somebody else may have done it meanwhile.
    #[error("the lease of this message ended before its handler did: the handler was stopped half way")]
    LeaseLost,
    /// The handler has succeeded and the store did not take the mark: the effect is there, and happens again when the message
    /// comes again.
    #[error("the handler has succeeded, and its mark is not written: {error}")]
    NotMarked {
        /// The store's error.
        error: StoreError,
    },
    /// The database failed.
    #[cfg(feature = "sql")]
    #[error("the database: {error}")]
    Database {
        /// The database's error.
        #[source]
        error: sqlx::Error,
        /// Whether somebody else was in the way: a lock, a deadlock, a serialization failure.
        is_contention: bool,
    },
    /// The handler kept the transaction or ended it, or the database gave it up unnoticed. Nothing of it is stored, unless the handler
    /// itself has committed it.
    #[cfg(feature = "sql")]
    #[error("the transaction was ended before the handler returned")]
    GivenUp,
}

/// How a handler ended that has not succeeded; `None` for a success.
pub(super) fn unfinished<V: Into<Verdict>, E: Display + 'static>(
    said: Result<V, E>,
) -> Option<Result<Verdict, OnceError<E>>> {
    match said.map(Into::into) {
        Ok(Verdict::Done) => None,
        Ok(verdict) => Some(Ok(verdict)),
        Err(error) => match judged(&error) {
            // Told here, where the type of the error is still known.
            verdict @ Verdict::Unreadable { .. } => Some(Ok(verdict)),
            _ => Some(Err(OnceError::Handler(error))),
        },
    }
}
