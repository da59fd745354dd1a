//! The errors of a transaction.

use std::convert::Infallible;
use std::time::SystemTime;

use super::{Decision, Outcome};
use crate::error::{RequestError, SendError};

/// A transaction did not go as it should, or nobody knows.
///
/// There are three families, by what is known about your local transaction and the broker's side of it:
///
/// | variant | your local transaction | the broker's side |
/// | --- | --- | --- |
/// | [`Aborted`](TransactionError::Aborted) | said no | rolled back, see `rollback` |
/// | [`Half`](TransactionError::Half), [`HalfNotSafe`](TransactionError::HalfNotSafe) | did not run, or has to say no | nothing stored, or nothing that will be committed |
/// | [`Unresolved`](TransactionError::Unresolved) | ended | told, not confirmed: the check settles it |
///
/// `E` is the error of the closure given to [`run`](super::TransactionProducer::run); everywhere else there is none.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError<E = Infallible> {
    /// Your code said no. Running the transaction again is yours to decide; on the broker's side it is safe, because
    /// nothing of this one becomes visible as long as `rollback` is `Ok`.
    #[error("transaction {transaction_id} was aborted: {error:#}{}", doubt(rollback))]
    Aborted {
        /// The transaction's id.
        transaction_id: String,
        /// The error that your code ended with.
        error: E,
        /// The result of the rollback. [`Unresolved`](TransactionError::Unresolved): the broker did not confirm it, so
        /// the check must answer with a rollback, too (this process does so by itself; a listener that finds nothing in
        /// the database does). [`OppositeDecision`](TransactionError::OppositeDecision): somebody had committed it.
        rollback: Box<Result<Outcome, TransactionError>>,
    },
    /// A half message was not stored for certain, so the local transaction must not go on.
    ///
    /// [`outcome_unknown`](TransactionError::outcome_unknown) says which: if not, nothing was stored for this message and
    /// preparing it again is safe. If so, the broker may hold the half: prepare the same message again with the same
    /// [`unique_id`](crate::Message::unique_id) to find out, or roll back. As long as this process lives it answers the
    /// check with a rollback by itself; a listener elsewhere that finds nothing in the database must do the same.
    #[error("there is no half message to rely on: {0}")]
    Half(SendError),
    /// The broker stored a half message below the level it is configured for (codes 10, 11, 12), and the next crash may
    /// take it. It is never committed: `send`, `run` and `prepare` have rolled it back, and a
    /// [`Transaction`](super::Transaction) that it joined can only be rolled back. Trying again is safe.
    #[error("half message {message_id} was stored with code {code} only, and will not be committed")]
    HalfNotSafe {
        /// The transaction's id.
        transaction_id: String,
        /// The unique id of the message.
        message_id: String,
        /// The broker's code.
        code: i32,
    },
    /// The topic has no queue on the broker group that holds the transaction. Nothing was stored for this message, and the
    /// transaction is still open: commit it without the message, or roll it back. To have both in one transaction, put the
    /// topics on one broker group. Trying again helps only if that broker was away and the topic is there after all.
    #[error(
        "topic {topic} is not on broker {broker}, which holds transaction {transaction_id}; nothing was stored for it"
    )]
    OtherBrokerGroup {
        /// The transaction's id.
        transaction_id: String,
        /// The topic of the message that was to be prepared.
        topic: String,
        /// The broker group of the transaction's first message.
        broker: String,
    },
    /// The broker takes only transactions of one message that are in progress for as long as its checks last: it is not
    /// EscrowMQ, or one too old. Nothing was sent; trying again does not help.
    #[error("the broker at {addr} cannot {what}")]
    Unsupported {
        /// The broker's address.
        addr: String,
        /// The ability that was asked of it.
        what: &'static str,
    },
    /// The broker cannot confirm decisions and the producer was built to insist on it. Nothing was sent; trying again does
    /// not help.
    #[error("the broker at {addr} does not confirm decisions")]
    Unconfirmable {
        /// The broker's address.
        addr: String,
    },
    /// The transaction cannot be committed: it is unknown whether one of its messages is stored. Nothing was decided. Undo
    /// the local transaction; this process answers the check with a rollback by itself. Running all of it again is then
    /// safe.
    #[error("transaction {transaction_id} cannot be committed: message {message_id} may be missing")]
    Incomplete {
        /// The transaction's id.
        transaction_id: String,
        /// The unique id of the message whose `prepare` failed or was given up.
        message_id: String,
    },
    /// The decision was not confirmed: no answer came, or the broker was not reached. It may have taken effect, or will: the
    /// broker's check settles the transaction the same way as long as the listener answers checks truthfully. Running the
    /// local transaction again would run it twice.
    #[error("{decision:?} of transaction {transaction_id} was not confirmed: {last}")]
    Unresolved {
        /// The transaction's id.
        transaction_id: String,
        /// The decision that was made.
        decision: Decision,
        /// How the last attempt to tell the broker failed; of several, the last one that the broker may have heard.
        last: RequestError,
    },
    /// The opposite decision had been made before this one (by a check or an operator), and the first decision stands. A
    /// retry gets the same answer; the local transaction has to be brought in line with what stands.
    #[error("{decision:?} of transaction {transaction_id} came after the opposite decision: {remark}")]
    OppositeDecision {
        /// The transaction's id.
        transaction_id: String,
        /// The decision that was made here.
        decision: Decision,
        /// The decision that stands, if the broker said so.
        settled: Option<Decision>,
        /// When that was decided, by the broker's clock, if it said so.
        decided_at: Option<SystemTime>,
        /// The broker's own words.
        remark: String,
    },
    /// The transaction is decided (by a check or an operator), so it takes no further message and no more time. Nothing was
    /// stored or changed by this call; a retry gets the same answer.
    #[error("transaction {transaction_id} is decided already: {settled:?}; {remark}")]
    AlreadyDecided {
        /// The transaction's id.
        transaction_id: String,
        /// The decision that stands.
        settled: Decision,
        /// The broker's own words.
        remark: String,
    },
    /// The broker does not accept the decision (no such half message, wrong producer group): nothing was settled by it, and
    /// a retry gets the same answer.
    #[error("{decision:?} of transaction {transaction_id} was refused with code {code}: {remark}")]
    DecisionRefused {
        /// The transaction's id.
        transaction_id: String,
        /// The decision that was made here.
        decision: Decision,
        /// The broker's code.
        code: i32,
        /// The broker's own words.
        remark: String,
    },
}

impl<E> TransactionError<E> {
    /// Whether making the same call again may succeed *and* cannot run the local part twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            TransactionError::Half(error) => error.is_retryable(),
            TransactionError::HalfNotSafe { .. } => true,
            // More time is no local part.
            TransactionError::Unresolved { decision: Decision::InProgress { .. }, last, .. } => last.is_retryable(),
            TransactionError::Aborted { .. }
            | TransactionError::OtherBrokerGroup { .. }
            | TransactionError::Unsupported { .. }
            | TransactionError::Unconfirmable { .. }
            | TransactionError::Incomplete { .. }
            | TransactionError::Unresolved { .. }
            | TransactionError::OppositeDecision { .. }
            | TransactionError::AlreadyDecided { .. }
            | TransactionError::DecisionRefused { .. } => false,
        }
    }

    /// Whether what the call was to bring about may happen, or may have, without this call knowing.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            TransactionError::Aborted { rollback, .. } => {
                rollback.as_ref().as_ref().is_err_and(TransactionError::outcome_unknown)
            }
            TransactionError::Half(error) => error.outcome_unknown(),
            // Time that was never asked for was not given.
            TransactionError::Unresolved { decision: Decision::InProgress { .. }, last, .. } => last.outcome_unknown(),
            // Whether or not the broker heard of the decision: its check brings it about.
            TransactionError::Unresolved { .. } => true,
            TransactionError::HalfNotSafe { .. }
            | TransactionError::OtherBrokerGroup { .. }
            | TransactionError::Unsupported { .. }
            | TransactionError::Unconfirmable { .. }
            | TransactionError::Incomplete { .. }
            | TransactionError::OppositeDecision { .. }
            | TransactionError::AlreadyDecided { .. }
            | TransactionError::DecisionRefused { .. } => false,
        }
    }
}

impl TransactionError {
    /// The same error where a closure could have failed, too.
    pub(crate) fn widen<E>(self) -> TransactionError<E> {
        match self {
            TransactionError::Aborted { error, .. } => match error {},
            TransactionError::Half(error) => TransactionError::Half(error),
            TransactionError::HalfNotSafe { transaction_id, message_id, code } => {
                TransactionError::HalfNotSafe { transaction_id, message_id, code }
            }
            TransactionError::OtherBrokerGroup { transaction_id, topic, broker } => {
                TransactionError::OtherBrokerGroup { transaction_id, topic, broker }
            }
            TransactionError::Unsupported { addr, what } => TransactionError::Unsupported { addr, what },
            TransactionError::Unconfirmable { addr } => TransactionError::Unconfirmable { addr },
            TransactionError::Incomplete { transaction_id, message_id } => {
                TransactionError::Incomplete { transaction_id, message_id }
            }
            TransactionError::Unresolved { transaction_id, decision, last } => {
                TransactionError::Unresolved { transaction_id, decision, last }
            }
            TransactionError::OppositeDecision { transaction_id, decision, settled, decided_at, remark } => {
                TransactionError::OppositeDecision { transaction_id, decision, settled, decided_at, remark }
            }
            TransactionError::AlreadyDecided { transaction_id, settled, remark } => {
                TransactionError::AlreadyDecided { transaction_id, settled, remark }
            }
            TransactionError::DecisionRefused { transaction_id, decision, code, remark } => {
                TransactionError::DecisionRefused { transaction_id, decision, code, remark }
            }
        }
    }
}

/// The end of an abort's message, where the rollback did not go as the abort.
fn doubt(rollback: &Result<Outcome, TransactionError>) -> String {
    match rollback {
        Ok(_) => String::new(),
        Err(error) => format!("; its rollback: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unresolved(decision: Decision) -> TransactionError {
        let last = RequestError::TimedOut { addr: "a".into(), after: std::time::Duration::from_secs(3) };
        TransactionError::Unresolved { transaction_id: "t".into(), decision, last }
    }

    fn aborted(rollback: Result<Outcome, TransactionError>) -> TransactionError<&'static str> {
        TransactionError::Aborted { transaction_id: "t".into(), error: "no money", rollback: Box::new(rollback) }
    }

    #[test]
    fn a_transaction_whose_local_part_ran_is_never_offered_for_a_retry() {
        let error = unresolved(Decision::Commit);
        assert!(!error.is_retryable() && error.outcome_unknown());
        let late = unresolved(Decision::InProgress { retry_after: std::time::Duration::from_secs(1) });
        assert!(late.is_retryable(), "asking for more time again does nothing twice");
        assert!(late.outcome_unknown());
        let TransactionError::Unresolved { last, decision, transaction_id } = late else { unreachable!() };
        let last = last.before_sending(crate::error::LOOK_UP);
        let unasked: TransactionError = TransactionError::Unresolved { transaction_id, decision, last };
        assert!(unasked.is_retryable() && !unasked.outcome_unknown(), "no broker was asked for time");
    }

    #[test]
    fn an_abort_is_as_certain_as_its_rollback() {
        let certain = aborted(Ok(Outcome::RolledBack { repeated: false }));
        assert!(!certain.outcome_unknown() && !certain.is_retryable());
        assert_eq!(certain.to_string(), "transaction t was aborted: no money");
        let doubtful = aborted(Err(unresolved(Decision::Rollback)));
        assert!(doubtful.outcome_unknown());
        assert!(doubtful.to_string().contains("not confirmed"), "{doubtful}");
    }

    #[test]
    fn widening_keeps_what_an_error_says() {
        let narrow = unresolved(Decision::Commit);
        let said = narrow.to_string();
        assert_eq!(narrow.widen::<String>().to_string(), said);
    }
}
