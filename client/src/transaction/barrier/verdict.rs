//! The database's verdict on a transaction: read the row, or plant one.

use std::time::Duration;

use super::database::{Row, State};
use super::{Barrier, BarrierDatabase};

/// Looks at the row before and after a planting that failed because it was there; it can go in between when a sweep
/// deletes it.
const LOOKS: usize = 3;

/// The state of a local transaction, as far as it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has committed.
    Committed,
    /// It has not and never will.
    RolledBack,
    /// It may be open, or somebody else keeps the database from answering: ask again.
    InProgress,
}

impl<DB: BarrierDatabase> Barrier<DB> {
    /// Finds out what became of the local transaction of `half`, a row in state committed: if there is none, it is rolled back
    /// by planting, and cannot commit from then on.
    ///
    /// The broker's name in `half` may be empty if it is unknown. A row that names another broker is about another half of the
    /// same transaction, stored there by an attempt whose answer was lost: that one is not to be delivered.
    pub(super) async fn verdict(&self, half: &Row) -> Result<Verdict, sqlx::Error> {
        match self.look_or_plant(half).await {
            Err(sqlx::Error::Database(error)) if DB::is_contention(&*error) => {
                tracing::debug!(id = half.id, %error, "the barrier's row cannot be had now");
                Ok(Verdict::InProgress)
            }
            other => other,
        }
    }

    async fn look_or_plant(&self, half: &Row) -> Result<Verdict, sqlx::Error> {
        let shared = &*self.shared;
        self.check_table().await?;
        let mut connection = shared.own.acquire().await?;
        for _ in 0..LOOKS {
            // Most rows are there, and reading waits for nobody.
            if let Some(row) = DB::find(&mut connection, &shared.statements, &half.id).await? {
                return Ok(judge(&row, half));
            }
            let lock_wait = shared.settings.lock_wait.max(Duration::from_millis(1));
            if DB::plant(&mut connection, &shared.statements, &half.rolled_back(), lock_wait).await? {
                tracing::info!(id = half.id, "no local transaction: rolled back by a planted row");
                return Ok(Verdict::RolledBack);
            }
        }
        Ok(Verdict::InProgress)
    }
}

fn judge(row: &Row, half: &Row) -> Verdict {
    match row.state {
        State::RolledBack => Verdict::RolledBack,
        State::Committed | State::Contradicted if is_stray(row, half) => Verdict::RolledBack,
        State::Committed | State::Contradicted => Verdict::Committed,
    }
}

fn is_stray(row: &Row, half: &Row) -> bool {
    !half.broker.is_empty() && half.broker != row.broker
}
