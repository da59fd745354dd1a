//! The built-in checker.

use escrowmq_common::message::properties::name;

use super::database::{Row, State};
use super::verdict::Verdict;
use super::{Barrier, BarrierDatabase};
use crate::message::MessageExt;
use crate::transaction::{Decision, TransactionListener};

/// Longer ids are none that `run_in_db` gave, and no database has to take them.
const ID_BYTES_MAX: usize = 255;

/// Answers checks from the barrier's table, and plants the row if there is none. Made by [`Barrier::checker`].
///
/// | the database | the answer |
/// | --- | --- |
/// | has the row | commit, or rollback if a check planted it |
/// | has none | rollback, after planting one |
/// | is locked by an open transaction | in progress, see [`ask_again_after`](super::BarrierBuilder::ask_again_after) |
/// | does not answer | unknown: the broker asks again, and parks the transaction in the end |
pub struct BarrierChecker<DB: BarrierDatabase> {
    barrier: Barrier<DB>,
}

impl<DB: BarrierDatabase> Clone for BarrierChecker<DB> {
    fn clone(&self) -> Self {
        BarrierChecker { barrier: self.barrier.clone() }
    }
}

impl<DB: BarrierDatabase> std::fmt::Debug for BarrierChecker<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BarrierChecker").field("barrier", &self.barrier).finish()
    }
}

impl<DB: BarrierDatabase> BarrierChecker<DB> {
    pub(super) fn new(barrier: Barrier<DB>) -> BarrierChecker<DB> {
        BarrierChecker { barrier }
    }

    async fn check(&self, message: &MessageExt) -> Decision {
        let half = row_of(message);
        if half.id.len() > ID_BYTES_MAX || !half.id.is_ascii() {
            tracing::warn!(id = half.id, "a check of a transaction that no barrier began: left to an operator");
            return Decision::Unknown;
        }
        match self.barrier.verdict(&half).await {
            Ok(Verdict::Committed) => Decision::Commit,
            Ok(Verdict::RolledBack) => Decision::Rollback,
            Ok(Verdict::InProgress) => {
                Decision::InProgress { retry_after: self.barrier.shared.settings.ask_again_after }
            }
            Err(error) => {
                tracing::warn!(id = half.id, %error, "the barrier's database does not answer a check");
                Decision::Unknown
            }
        }
    }
}

impl<DB: BarrierDatabase> TransactionListener for BarrierChecker<DB> {
    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        self.check(message).await
    }
}

/// The row that the local transaction of this half would have written.
fn row_of(message: &MessageExt) -> Row {
    Row {
        // The unique id, and not what the broker may have made of it: the property travels with the message.
        id: message.message_id(),
        state: State::Committed,
        group: message.property(name::PRODUCER_GROUP).unwrap_or_default().to_owned(),
        topic: message.topic().to_owned(),
        broker: message.queue().broker().to_owned(),
        queue_id: message.queue().id().into(),
        position: message.position(),
        counter: message.queue_offset(),
        created_at: 0,
    }
}
