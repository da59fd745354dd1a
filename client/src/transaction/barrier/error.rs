//! The errors of a transaction over a database and a broker.

use std::convert::Infallible;
use std::time::Duration;

use crate::transaction::{Outcome, TransactionError};

/// [`run_in_db`](crate::TransactionProducer::run_in_db) did not commit, or nobody knows.
///
/// | variant | your database | the message |
/// | --- | --- | --- |
/// | [`NotBegun`](RunInDbError::NotBegun) | not touched | not visible, ever |
/// | [`Aborted`](RunInDbError::Aborted) | rolled back | not visible, ever, unless `rollback` says otherwise |
/// | [`Unresolved`](RunInDbError::Unresolved) | committed or not | the same, as soon as the check has found out |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunInDbError<E = Infallible> {
    /// The half message was not stored for certain, so the local transaction did not begin. If the broker holds it all the
    /// same, the check rolls it back.
    #[error("the local transaction did not begin: {0}")]
    NotBegun(TransactionError),
    /// The local transaction is rolled back. Running all of it again is safe.
    #[error("the local transaction {transaction_id} was rolled back: {error:#}")]
    Aborted {
        /// The transaction's id.
        transaction_id: String,
        /// Why.
        error: AbortCause<E>,
        /// The result of the rollback. [`TransactionError::Unresolved`]: the broker did not confirm it, and the check rolls
        /// the message back. [`TransactionError::OppositeDecision`]: an operator had committed the message by hand.
        rollback: Box<Result<Outcome, TransactionError>>,
    },
    /// The connection was lost, or failed otherwise, while the database committed, and it did not say afterwards what became
    /// of it. The check asks it again and settles the message accordingly. Running all of it again may run it twice: look
    /// into your database first.
    #[error("it is unknown whether the local transaction {transaction_id} has committed: {error}")]
    Unresolved {
        /// The transaction's id.
        transaction_id: String,
        /// How COMMIT failed.
        error: sqlx::Error,
    },
}

/// Why a local transaction was rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbortCause<E = Infallible> {
    /// Your closure said no.
    #[error("{0:#}")]
    Closure(E),
    /// The database refused: to begin, to take the barrier's row, or to commit.
    #[error("database: {0}")]
    Database(sqlx::Error),
    /// A check came first and found no row, so the message was rolled back. It takes a local transaction that begins later
    /// than the broker's `transactionTimeOut` after its half; asked in another process, since in this one checks are answered
    /// "in progress" meanwhile.
    #[error("a check has rolled the message back before the local transaction began")]
    Planted,
    /// The half had been stored for too long, see [`begin_within`](super::BarrierBuilder::begin_within).
    #[error("the local transaction could not begin for {waited:?} after its half message was stored")]
    TooLate {
        /// The time since the half was sent.
        waited: Duration,
    },
    /// The closure said yes, and yet its transaction is not there to be committed: the database has rolled it back after an
    /// error that the closure did not pass on, or by a ROLLBACK of its own (what it wrote after that may have been committed by
    /// itself); or the closure has not given it back.
    #[error("the closure has ended the database transaction or kept it")]
    GivenUp,
}

impl<E> RunInDbError<E> {
    /// Whether making the same call again may succeed *and* cannot run the local transaction twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            RunInDbError::NotBegun(error) => error.is_retryable(),
            RunInDbError::Aborted { error, rollback, .. } => {
                let stays_hidden = !matches!(**rollback, Err(TransactionError::OppositeDecision { .. }));
                stays_hidden
                    && match error {
                        AbortCause::Database(_) | AbortCause::Planted | AbortCause::TooLate { .. } => true,
                        AbortCause::Closure(_) | AbortCause::GivenUp => false,
                    }
            }
            RunInDbError::Unresolved { .. } => false,
        }
    }

    /// Whether the local transaction may have committed, and the message become visible, without this call knowing.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, RunInDbError::Unresolved { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(
        error: AbortCause<&'static str>,
        rollback: Result<Outcome, TransactionError>,
    ) -> RunInDbError<&'static str> {
        RunInDbError::Aborted { transaction_id: "t".into(), error, rollback: Box::new(rollback) }
    }

    #[test]
    fn only_what_is_rolled_back_on_both_sides_is_offered_for_a_retry() {
        let committed_by_hand = TransactionError::OppositeDecision {
            transaction_id: "t".into(),
            decision: crate::Decision::Rollback,
            settled: Some(crate::Decision::Commit),
            decided_at: None,
            remark: String::new(),
        };
        assert!(aborted(AbortCause::Planted, Ok(Outcome::Unconfirmed)).is_retryable());
        assert!(!aborted(AbortCause::Planted, Err(committed_by_hand)).is_retryable());
        assert!(!aborted(AbortCause::Closure("no money"), Ok(Outcome::Unconfirmed)).is_retryable());
        let unresolved: RunInDbError =
            RunInDbError::Unresolved { transaction_id: "t".into(), error: sqlx::Error::WorkerCrashed };
        assert!(!unresolved.is_retryable() && unresolved.outcome_unknown());
    }

    #[test]
    fn an_abort_says_why() {
        let said = aborted(AbortCause::Closure("no money"), Ok(Outcome::Unconfirmed)).to_string();
        assert_eq!(said, "the local transaction t was rolled back: no money");
    }
}
