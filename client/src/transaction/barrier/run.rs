//! `run_in_db`: a half message around a local transaction.

use std::sync::Arc;

use escrowmq_common::message::properties::name;

use super::database::Row;
use super::error::RunInDbError;
use super::local::{Local, LocalTransaction, Moment};
use super::{Barrier, BarrierDatabase};
use crate::error::SendError;
use crate::groups::ProducerMember;
use crate::message::Message;
use crate::producer::SendResult;
use crate::transaction::handle::Transaction;
use crate::transaction::{Decision, Outcome, TransactionError, TransactionProducer};

/// A local transaction that is committed in the database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CommittedInDb<T> {
    /// The closure's return value.
    pub value: T,
    /// The half message, as the broker stored it.
    pub half: SendResult,
    /// The result of the commit. After [`TransactionError::Unresolved`] the message becomes visible later: the row
    /// answers the check. [`TransactionError::OppositeDecision`]: an operator had rolled the message back by hand.
    pub told: Result<Outcome, TransactionError>,
}

impl TransactionProducer {
    /// Stores `message` as a half and runs `local` in a transaction of the barrier's database: `Ok` commits both, `Err` rolls
    /// both back. The producer's checks must be answered by the [`checker`](Barrier::checker) of the same barrier.
    ///
    /// `Ok` means that the database has committed; the message is visible, or will be.
    ///
    /// If this future is dropped, or `local` panics, at whatever point, the check finds out what became of the local
    /// transaction.
    ///
    /// # Errors
    ///
    /// See [`RunInDbError`]. A message with a [`unique_id`](Message::unique_id) of yours is refused: the id is the key of the
    /// barrier's row, and has to be new each time. A key of your own that must not come twice belongs into your own table, in
    /// the same transaction.
    pub async fn run_in_db<DB, T, E, F, R>(
        &self,
        barrier: &Barrier<DB>,
        message: Message,
        local: F,
    ) -> Result<CommittedInDb<T>, RunInDbError<E>>
    where
        DB: BarrierDatabase,
        F: FnOnce(LocalTransaction<DB>) -> R,
        R: Future<Output = Result<T, E>>,
    {
        if message.get(name::UNIQUE_KEY).is_some() {
            let reason = "run_in_db gives the message its unique id: leave it out".to_owned();
            return Err(RunInDbError::NotBegun(TransactionError::Half(SendError::Invalid { reason })));
        }
        let engine = &self.engine;
        let _place = engine.enter().await.map_err(RunInDbError::NotBegun)?;
        let settled = barrier.clean_along(engine);
        let begun = Moment::now();
        let (open, sent) = engine.open(message).await.map_err(RunInDbError::NotBegun)?;
        // Ends the transaction for this process, whatever happens: dropped undecided, it is left to the check.
        let transaction = Transaction::new(Arc::new(open));
        let half = transaction.half().expect("it was just prepared");
        let row = Row::committed(engine.group(), &half);
        let transaction_id = row.id.clone();
        match barrier.run_local(&row, begun, local).await {
            Local::Committed(value) => {
                let told = transaction.finish(Decision::Commit, None).await;
                match &told {
                    Ok(Outcome::Committed { .. }) => settled.push(transaction_id),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(id = transaction_id, %error, "committed in the database, not confirmed by the broker");
                    }
                }
                Ok(CommittedInDb { value, half: sent, told })
            }
            Local::RolledBack(error) => {
                let rollback = Box::new(transaction.finish(Decision::Rollback, None).await);
                Err(RunInDbError::Aborted { transaction_id, error, rollback })
            }
            Local::InDoubt(error) => Err(RunInDbError::Unresolved { transaction_id, error }),
        }
    }
}
