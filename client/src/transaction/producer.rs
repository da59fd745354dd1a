//! The transactional producer.

use std::future::Future;
use std::sync::Arc;

use super::engine::Engine;
use super::handle::{Transaction, TransactionScope};
use super::listener::caught;
use super::{Decision, Outcome, TransactionError};
use crate::groups::ProducerMember;
use crate::message::Message;
use crate::producer::SendResult;

/// A transactional message whose local transaction the listener ran and whose decision is on its way or settled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransactionResult {
    /// The half message, as the broker stored it.
    pub half: SendResult,
    /// The local transaction's decision.
    pub decision: Decision,
    /// How the transaction ended, as far as the broker confirmed it.
    pub outcome: Outcome,
}

/// A transaction whose closure said yes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Committed<T> {
    /// The closure's return value.
    pub value: T,
    /// The first half message, as the broker stored it.
    pub half: SendResult,
    /// Where it became visible. [`Outcome::Unconfirmed`] with brokers that confirm no decisions.
    pub outcome: Outcome,
}

/// Sends transactional messages. Cheap to clone; made by
/// [`Client::transaction_producer`](crate::Client::transaction_producer), which also takes the listener that the broker's
/// checks are answered by. In each style a check of a transaction that ended without a confirmed decision goes there.
#[derive(Clone, Debug)]
pub struct TransactionProducer {
    /// The base of all styles, also of those that live in folders of their own.
    pub(super) engine: Arc<Engine>,
}

impl TransactionProducer {
    pub(super) fn new(engine: Arc<Engine>) -> TransactionProducer {
        TransactionProducer { engine }
    }

    /// The producer's group: the one whose members the broker asks.
    pub fn group(&self) -> &str {
        self.engine.group()
    }

    /// Stores `message` as a half, runs the listener's local transaction, and settles the message by its decision. A panic
    /// of the listener means [`Decision::Unknown`]. If the future is dropped, the check decides.
    pub async fn send(&self, message: Message) -> Result<TransactionResult, TransactionError> {
        let _place = self.engine.enter().await?;
        let local = message.clone();
        let (open, sent) = self.engine.open(message).await?;
        let open = Transaction::new(Arc::new(open));
        let half = open.half().expect("it was just prepared");
        let (decision, remark) = match caught(self.engine.listener.execute(&local, &half)).await {
            Ok(decision) => (decision, None),
            Err(panic) => {
                tracing::error!(id = %half.transaction_id, panic, "local transaction panicked");
                (Decision::Unknown, Some(panic))
            }
        };
        let outcome = open.finish(decision, remark).await?;
        Ok(TransactionResult { half: sent, decision, outcome })
    }

    /// Stores `message` as a half and runs `local`: `Ok` commits, `Err` rolls back. The closure can put further messages into
    /// the transaction by the [`TransactionScope`] that it gets.
    ///
    /// If `local` panics, or this future is dropped, nothing is decided here: the check asks the listener.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Aborted`] with the closure's error, after the rollback was told;
    /// [`TransactionError::Half`] or [`TransactionError::HalfNotSafe`] if the closure did not run;
    /// [`TransactionError::Unresolved`] if the closure said yes and no confirmation came: it is never reported as aborted.
    pub async fn run<T, E, F, R>(&self, message: Message, local: F) -> Result<Committed<T>, TransactionError<E>>
    where
        F: FnOnce(TransactionScope) -> R,
        R: Future<Output = Result<T, E>>,
    {
        let _place = self.engine.enter().await.map_err(TransactionError::widen)?;
        let (open, half) = self.engine.open(message).await.map_err(TransactionError::widen)?;
        let open = Arc::new(open);
        // Ends the transaction for whoever keeps a clone of the scope, also if the closure panics.
        let transaction = Transaction::new(Arc::clone(&open));
        match local(TransactionScope::new(open)).await {
            Ok(value) => {
                let outcome = transaction.finish(Decision::Commit, None).await.map_err(TransactionError::widen)?;
                Ok(Committed { value, half, outcome })
            }
            Err(error) => {
                let transaction_id = transaction.id().to_owned();
                let rollback = Box::new(transaction.finish(Decision::Rollback, None).await);
                Err(TransactionError::Aborted { transaction_id, error, rollback })
            }
        }
    }

    /// Stores `message` as a half and hands over the open transaction: run your local transaction, then
    /// [`commit`](Transaction::commit) or [`rollback`](Transaction::rollback) it.
    pub async fn prepare(&self, message: Message) -> Result<Transaction, TransactionError> {
        let _place = self.engine.enter().await?;
        let (open, _) = self.engine.open(message).await?;
        Ok(Transaction::new(Arc::new(open)))
    }

    /// Begins a transaction of several messages, of which it has none yet: [`prepare`](Transaction::prepare) each, then
    /// decide about all of them at once. The first one chooses the broker group, and the topics of the others must be on it:
    /// begin with the topic that is on the fewest.
    /// Sends nothing by itself; the first `prepare` ends with [`TransactionError::Unsupported`] before anything is sent if
    /// the broker takes only one message per transaction.
    pub fn begin(&self) -> Transaction {
        Transaction::new(Arc::new(self.engine.begin(None, true)))
    }

    /// As [`begin`](TransactionProducer::begin), with a transaction id of your own instead of a new one. The first message
    /// gets it as its unique id.
    pub fn begin_with_id(&self, id: impl Into<String>) -> Transaction {
        Transaction::new(Arc::new(self.engine.begin(Some(id.into()), true)))
    }

    /// Refuses further sends, waits for the transactions in flight (not for a [`Transaction`] that somebody holds) and the
    /// checks being answered, and tells the brokers. A second call does nothing.
    pub async fn shutdown(&self) {
        self.engine.close().await;
    }
}
