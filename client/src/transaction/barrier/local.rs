//! The local transaction: the row, the user's closure, the commit.
//!
//! ```text
//!  BEGIN -> insert the row -> closure -> is the row still there? -> COMMIT
//!    |           |               |                 |                  | error
//!    `-----------'------ DB ROLLBACK --------------'                  v
//!                           |                               plant: committed | rolled back | nobody knows
//!                        aborted
//! ```
//!
//! Dying at any arrow leaves either no row, or a transaction that the database ends by itself, or a committed row.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use parking_lot::Mutex;
use sqlx::{Database, Transaction};

use super::database::Row;
use super::error::AbortCause;
use super::verdict::Verdict;
use super::{Barrier, BarrierDatabase};
use crate::sql::begin;

/// How long the end of a transaction that is to be rolled back is waited for. It cannot commit any more, so nothing but its
/// locks depends on it.
const ROLLBACK_WAIT: Duration = Duration::from_secs(5);

/// A transaction in the hands of the closure that [`run_in_db`](crate::TransactionProducer::run_in_db) or
/// [`in_db_once`](crate::Idempotent::in_db_once) runs: an
/// [`sqlx::Transaction`], executed on as `&mut **tx`. Dropping it hands it back; it is committed or rolled back then by what
/// the closure returned.
pub struct LocalTransaction<DB: Database> {
    /// There until it is handed back.
    transaction: Option<Transaction<'static, DB>>,
    back: Back<DB>,
}

/// Where a transaction is handed back to; there is none if the closure has kept it.
pub(crate) type Back<DB> = Arc<Mutex<Option<Transaction<'static, DB>>>>;

impl<DB: Database> LocalTransaction<DB> {
    /// Lends a transaction to a closure.
    pub(crate) fn lend(transaction: Transaction<'static, DB>) -> (LocalTransaction<DB>, Back<DB>) {
        let back = Back::<DB>::default();
        (LocalTransaction { transaction: Some(transaction), back: Arc::clone(&back) }, back)
    }
}

impl<DB: Database> fmt::Debug for LocalTransaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransaction").field("database", &DB::NAME).finish_non_exhaustive()
    }
}

impl<DB: Database> Deref for LocalTransaction<DB> {
    type Target = Transaction<'static, DB>;

    fn deref(&self) -> &Self::Target {
        self.transaction.as_ref().expect("it is handed back by drop alone")
    }
}

impl<DB: Database> DerefMut for LocalTransaction<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transaction.as_mut().expect("it is handed back by drop alone")
    }
}

impl<DB: Database> Drop for LocalTransaction<DB> {
    fn drop(&mut self) {
        *self.back.lock() = self.transaction.take();
    }
}

/// How a local transaction ended.
pub(super) enum Local<T, E> {
    Committed(T),
    RolledBack(AbortCause<E>),
    /// Its COMMIT was sent, and nobody knows what became of it.
    InDoubt(sqlx::Error),
}

/// A moment, for a bound that must hold on a machine that slept or whose clock somebody set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    monotonic: Duration,
    wall_ms: i64,
}

impl Moment {
    pub(super) fn now() -> Moment {
        Moment { monotonic: clock::monotonic(), wall_ms: clock::wall_ms() }
    }

    /// The time since then by the clock that says more: the monotonic one may stand still while the machine sleeps, the wall
    /// clock may be set back.
    fn elapsed(&self) -> Duration {
        let wall = u64::try_from(clock::wall_ms() - self.wall_ms).unwrap_or(0);
        clock::monotonic().saturating_sub(self.monotonic).max(Duration::from_millis(wall))
    }
}

impl<DB: BarrierDatabase> Barrier<DB> {
    /// Runs the local transaction of a half whose sending began at `begun`.
    pub(super) async fn run_local<T, E, F, R>(&self, row: &Row, begun: Moment, local: F) -> Local<T, E>
    where
        F: FnOnce(LocalTransaction<DB>) -> R,
        R: Future<Output = Result<T, E>>,
    {
        let transaction = match self.begin_local(row, begun).await {
            Ok(transaction) => transaction,
            Err(cause) => return Local::RolledBack(cause),
        };
        self.finish_local(row, transaction, local).await
    }

    async fn begin_local<E>(&self, row: &Row, begun: Moment) -> Result<Transaction<'static, DB>, AbortCause<E>> {
        let shared = &*self.shared;
        self.check_table().await.map_err(AbortCause::Database)?;
        let begun_by = &shared.statements.begin;
        let mut transaction = begin(&shared.pool, begun_by).await.map_err(AbortCause::Database)?;
        // After the wait for a connection, and right before the insert: the row that a check may have planted for this one is
        // still there for days.
        let waited = begun.elapsed();
        if waited > shared.settings.begin_within {
            roll_back(transaction).await;
            return Err(AbortCause::TooLate { waited });
        }
        match DB::insert(&mut transaction, &shared.statements, row).await {
            Ok(()) => Ok(transaction),
            Err(error) => {
                roll_back(transaction).await;
                Err(match error {
                    sqlx::Error::Database(error) if error.is_unique_violation() => AbortCause::Planted,
                    error => AbortCause::Database(error),
                })
            }
        }
    }

    async fn finish_local<T, E, F, R>(&self, row: &Row, transaction: Transaction<'static, DB>, local: F) -> Local<T, E>
    where
        F: FnOnce(LocalTransaction<DB>) -> R,
        R: Future<Output = Result<T, E>>,
    {
        let (lent, back) = LocalTransaction::lend(transaction);
        let said = local(lent).await;
        let transaction = back.lock().take();
        let value = match said {
            Ok(value) => value,
            Err(error) => {
                if let Some(transaction) = transaction {
                    roll_back(transaction).await;
                }
                return Local::RolledBack(AbortCause::Closure(error));
            }
        };
        // The closure kept it, so it cannot be committed any more.
        let Some(mut transaction) = transaction else { return Local::RolledBack(AbortCause::GivenUp) };
        // A database may have given the transaction up already, after an error that the closure did not mind. PostgreSQL would
        // answer COMMIT with success then, and roll back.
        match DB::find(&mut transaction, &self.shared.statements, &row.id).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                roll_back(transaction).await;
                return Local::RolledBack(AbortCause::GivenUp);
            }
            Err(error) => {
                roll_back(transaction).await;
                return Local::RolledBack(AbortCause::Database(error));
            }
        }
        let Err(error) = transaction.commit().await else { return Local::Committed(value) };
        // The error does not say whether it has committed; only the row does.
        tracing::warn!(id = row.id, %error, "COMMIT of a local transaction failed: looking for its row");
        match self.verdict(row).await {
            Ok(Verdict::Committed) => Local::Committed(value),
            Ok(Verdict::RolledBack) => Local::RolledBack(AbortCause::Database(error)),
            Ok(Verdict::InProgress) => Local::InDoubt(error),
            Err(other) => {
                tracing::warn!(id = row.id, error = %other, "the row cannot be looked up");
                Local::InDoubt(error)
            }
        }
    }
}

/// Ends a transaction that never saw a COMMIT. If that fails, the database does it when the connection ends.
pub(crate) async fn roll_back<DB: Database>(transaction: Transaction<'static, DB>) {
    match tokio::time::timeout(ROLLBACK_WAIT, transaction.rollback()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "ROLLBACK of a local transaction failed"),
        Err(_) => tracing::debug!("ROLLBACK of a local transaction takes long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_says_more_counts() {
        let now = Moment::now();
        let hour = Duration::from_secs(3600);
        let slept = Moment { wall_ms: now.wall_ms - 3_600_000, ..now };
        assert!(slept.elapsed() >= hour);
        let set_back = Moment { wall_ms: now.wall_ms + 3_600_000, ..now };
        assert!(set_back.elapsed() < hour);
    }
}
