//! A transaction in the user's hands.

use std::sync::Arc;
use std::time::Duration;

use super::open::Open;
use super::{Decision, Half, Outcome, TransactionError};
use crate::message::Message;
use crate::producer::SendResult;

/// An open transaction, to be ended by [`commit`](Transaction::commit) or [`rollback`](Transaction::rollback). Made by
/// [`TransactionProducer::prepare`](super::TransactionProducer::prepare) with its first message in it, or empty by
/// [`TransactionProducer::begin`](super::TransactionProducer::begin).
///
/// Dropping it decides nothing and never rolls back: from then on the broker's check asks the listener. As long as it is
/// held the producer answers the check itself: in progress, for as long as that lasts, so do not keep one that you forgot. A
/// shutdown of the producer does not wait for it; what is decided afterwards is still told while the client is there.
#[must_use = "a transaction that is dropped is left to the broker's check"]
#[derive(Debug)]
pub struct Transaction {
    open: Arc<Open>,
}

impl Transaction {
    pub(super) fn new(open: Arc<Open>) -> Transaction {
        Transaction { open }
    }

    /// The transaction's id, the same in a check: write it down in your database together with what you do there. It is the
    /// unique id of the first message.
    pub fn id(&self) -> &str {
        self.open.id()
    }

    /// The first message as the broker holds it, once it is prepared.
    pub fn half(&self) -> Option<Half> {
        self.open.half()
    }

    /// Stores one more message in the transaction, on the broker group that holds the first one. Nobody sees it before the
    /// commit, and it shares the fate of the others. At most 128 messages fit into a transaction.
    ///
    /// # Errors
    ///
    /// After an error whose outcome is known the message is not in the transaction, and the rest can be committed without
    /// it. After [`TransactionError::Half`] with an unknown outcome, or [`TransactionError::HalfNotSafe`], the whole can
    /// only be rolled back, unless the same message with the same [`unique_id`](Message::unique_id) is stored by another
    /// `prepare` in the first case. [`TransactionError::OtherBrokerGroup`] if the topic is not on that broker group;
    /// [`TransactionError::Unsupported`] if the broker takes only one message per transaction.
    pub async fn prepare(&self, message: Message) -> Result<SendResult, TransactionError> {
        let _place = self.open.engine().enter().await?;
        self.open.prepare(message).await
    }

    /// Commits: all messages become visible, or none. Call it after the commit of your own database.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Unresolved`] if no confirmation came: do not undo anything, the check settles it.
    /// [`TransactionError::OppositeDecision`] if it was rolled back before. [`TransactionError::Incomplete`] if a message
    /// may be missing; nothing was decided then.
    pub async fn commit(self) -> Result<Outcome, TransactionError> {
        self.end(Decision::Commit).await
    }

    /// Rolls back: nobody ever sees the messages.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Unresolved`] if no confirmation came: this process answers the check with a rollback, and a
    /// listener that finds nothing in the database does, too. [`TransactionError::OppositeDecision`] if it was committed
    /// before.
    pub async fn rollback(self) -> Result<Outcome, TransactionError> {
        self.end(Decision::Rollback).await
    }

    async fn end(self, decision: Decision) -> Result<Outcome, TransactionError> {
        let _place = self.open.engine().enter_if_free();
        self.finish(decision, None).await
    }

    /// Ends it with any decision; the caller holds a place.
    pub(super) async fn finish(&self, decision: Decision, remark: Option<String>) -> Result<Outcome, TransactionError> {
        self.open.finish(decision, remark).await
    }

    /// Puts the next check off until `retry_after` from now. Not needed while checks reach this process, which answers them
    /// by itself; it saves the broker the question, and holds when this process is cut off for a while.
    ///
    /// # Errors
    ///
    /// [`TransactionError::AlreadyDecided`] if the transaction is; [`TransactionError::Unsupported`] by brokers other than
    /// EscrowMQ; [`TransactionError::Unresolved`] if no answer came, and then asking again is safe.
    pub async fn keep_alive(&self, retry_after: Duration) -> Result<(), TransactionError> {
        self.open.keep_alive(retry_after).await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.open.abandon();
    }
}

/// The transaction as the closure of [`run`](super::TransactionProducer::run) gets it: everything but the decision, which
/// the closure returns. Cheap to clone; of no use any more once the closure has ended.
#[derive(Clone, Debug)]
pub struct TransactionScope {
    open: Arc<Open>,
}

impl TransactionScope {
    pub(super) fn new(open: Arc<Open>) -> TransactionScope {
        TransactionScope { open }
    }

    /// As [`Transaction::id`].
    pub fn id(&self) -> &str {
        self.open.id()
    }

    /// As [`Transaction::half`].
    pub fn half(&self) -> Option<Half> {
        self.open.half()
    }

    /// As [`Transaction::prepare`].
    pub async fn prepare(&self, message: Message) -> Result<SendResult, TransactionError> {
        // The closure's own place counts for this, too: waiting for another could wait for itself.
        self.open.prepare(message).await
    }

    /// As [`Transaction::keep_alive`].
    pub async fn keep_alive(&self, retry_after: Duration) -> Result<(), TransactionError> {
        self.open.keep_alive(retry_after).await
    }
}
