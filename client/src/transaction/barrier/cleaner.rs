//! Rows go when their transaction is settled.
//!
//! ```text
//!  run_in_db, commit confirmed -> Settled (bounded) -> deleted in batches
//!  process died before that    -> sweep: old committed rows -> told again -> confirmed -> deleted
//!  planted rows                -> sweep: deleted by age
//! ```

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use escrowmq_common::code::remark::NO_SUCH_HALF;
use escrowmq_common::task::Shutdown;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::database::{Page, Row, State};
use super::{Barrier, BarrierDatabase};
use crate::groups::ProducerMember;
use crate::transaction::engine::Engine;
use crate::transaction::{Decision, Outcome, TransactionError, TransactionProducer};

/// Settled transactions whose rows are still to be deleted. More are left to the sweep.
const SETTLED_MAX: usize = 10_000;

/// Rows of one DELETE.
const BATCH_ROWS: usize = 256;

/// A batch waits for more rows for as long as this.
const LINGER: Duration = Duration::from_millis(250);

/// Attempts to delete a batch in a database that is locked; afterwards the sweep does it.
const DELETE_ATTEMPTS: usize = 5;

/// How long the last batch may take when the producer shuts down.
const LAST_BATCH_WAIT: Duration = Duration::from_secs(2);

/// Rows of one page of a sweep.
const PAGE_ROWS: usize = 200;

/// Pages of one sweep, for committed and for planted rows each. The next sweep goes on after them.
const PAGES_MAX: usize = 20;

/// Decisions told at the same time.
const TELLING_MAX: usize = 16;

/// The result of a [`sweep`](Barrier::sweep).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Committed rows that were deleted, since the broker confirmed their commit or has long forgotten it.
    pub settled: usize,
    /// Rows planted by checks that were deleted, since they are old enough.
    pub rolled_back: usize,
    /// Committed rows that were found to be rolled back at the broker by an operator. They stay, in state 3.
    pub contradicted: usize,
    /// Committed rows that stay, since their broker did not answer or confirms nothing.
    pub left: usize,
}

/// The cleaning that goes along with one producer.
#[derive(Debug)]
pub(super) struct Cleaner {
    engine: Weak<Engine>,
    settled: Settled,
}

/// Takes the ids of settled transactions.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    ids: mpsc::Sender<String>,
}

impl Settled {
    /// The row of this id may go. If there is no room, the sweep finds it.
    pub(super) fn push(&self, id: String) {
        if self.ids.try_send(id).is_err() {
            tracing::debug!("too many settled rows wait: one is left to the sweep");
        }
    }
}

/// Where a walk over committed rows goes on.
type Cursor = (i64, String);

fn beginning() -> Cursor {
    (0, String::new())
}

impl<DB: BarrierDatabase> Barrier<DB> {
    /// The cleaning that goes along with a producer; the first call starts it. It ends with the producer.
    pub(super) fn clean_along(&self, engine: &Arc<Engine>) -> Settled {
        let mut cleaners = self.shared.cleaners.lock();
        if let Some(found) = cleaners.iter().find(|cleaner| std::ptr::eq(cleaner.engine.as_ptr(), Arc::as_ptr(engine)))
        {
            return found.settled.clone();
        }
        cleaners.retain(|cleaner| cleaner.engine.strong_count() > 0);
        let (ids, arriving) = mpsc::channel(SETTLED_MAX);
        let settled = Settled { ids };
        cleaners.push(Cleaner { engine: Arc::downgrade(engine), settled: settled.clone() });
        let (barrier, shutdown) = (self.clone(), engine.shutdown.clone());
        engine.tasks.spawn("barrier rows", async move { barrier.delete_settled(arriving, shutdown).await });
        let (barrier, shutdown, engine_of) = (self.clone(), engine.shutdown.clone(), Arc::downgrade(engine));
        engine.tasks.spawn("barrier sweep", async move { barrier.sweep_often(engine_of, shutdown).await });
        settled
    }

    /// Deletes the rows of settled transactions, in batches, until `shutdown`, and then those that are still waiting.
    async fn delete_settled(&self, mut arriving: mpsc::Receiver<String>, shutdown: Shutdown) {
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                received = arriving.recv_many(&mut batch, BATCH_ROWS) => if received == 0 { return },
            }
            let sends_at = Instant::now() + LINGER;
            while batch.len() < BATCH_ROWS {
                let room = BATCH_ROWS - batch.len();
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep_until(sends_at) => break,
                    received = arriving.recv_many(&mut batch, room) => if received == 0 { break },
                }
            }
            if shutdown.is_cancelled() {
                break;
            }
            self.delete_patiently(&mut batch).await;
        }
        let last = async {
            loop {
                while batch.len() < BATCH_ROWS
                    && let Ok(id) = arriving.try_recv()
                {
                    batch.push(id);
                }
                if batch.is_empty() {
                    return;
                }
                self.delete_patiently(&mut batch).await;
            }
        };
        if timeout(LAST_BATCH_WAIT, last).await.is_err() {
            tracing::debug!("settled rows are left to the sweep of another process");
        }
    }

    async fn delete_patiently(&self, batch: &mut Vec<String>) {
        for _ in 0..DELETE_ATTEMPTS {
            let error = match self.delete(State::Committed, batch).await {
                Ok(()) => break,
                Err(error) => error,
            };
            tracing::debug!(rows = batch.len(), %error, "settled rows are not deleted yet");
            tokio::time::sleep(LINGER).await;
        }
        batch.clear();
    }

    async fn delete(&self, state: State, ids: &[String]) -> Result<(), sqlx::Error> {
        let mut connection = self.shared.own.acquire().await?;
        DB::delete(&mut connection, &self.shared.statements, state, ids).await
    }

    async fn sweep_often(&self, engine: Weak<Engine>, shutdown: Shutdown) {
        let mut cursor = beginning();
        // Processes that started together do not sweep together.
        let share = RandomState::new().hash_one(()) % 512;
        let mut pause = self.shared.settings.sweep_every.mul_f64(0.5 + share as f64 / 1024.0);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = self.shared.settings.sweep_every;
            let Some(engine) = engine.upgrade() else { return };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                swept = self.sweep_from(&engine, &mut cursor) => match swept {
                    Ok(swept) if swept == Swept::default() => {}
                    Ok(swept) => tracing::info!(group = engine.group(), ?swept, "barrier swept"),
                    Err(error) => tracing::warn!(group = engine.group(), %error, "barrier not swept"),
                },
            }
        }
    }

    /// Cleans up after processes that died: tells the commit of old rows again, deletes those that the broker confirms, and
    /// deletes planted rows that are old enough. Rows of the producer's group alone, and a bounded number of them. A producer
    /// that runs local transactions does this by itself from time to time.
    ///
    /// # Errors
    ///
    /// The database's error; trying again is safe.
    pub async fn sweep(&self, producer: &TransactionProducer) -> Result<Swept, sqlx::Error> {
        self.sweep_from(&producer.engine, &mut beginning()).await
    }

    async fn sweep_from(&self, engine: &Engine, cursor: &mut Cursor) -> Result<Swept, sqlx::Error> {
        let mut swept = Swept::default();
        self.check_table().await?;
        self.sweep_committed(engine, cursor, &mut swept).await?;
        let age_ms = self.shared.settings.keep_rolled_back.as_millis() as i64;
        for _ in 0..PAGES_MAX {
            let rows = self.page(engine, State::RolledBack, age_ms, beginning()).await?;
            let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
            self.delete(State::RolledBack, &ids).await?;
            swept.rolled_back += ids.len();
            if ids.len() < PAGE_ROWS {
                break;
            }
        }
        Ok(swept)
    }

    async fn sweep_committed(
        &self,
        engine: &Engine,
        cursor: &mut Cursor,
        swept: &mut Swept,
    ) -> Result<(), sqlx::Error> {
        let age_ms = self.shared.settings.sweep_after.as_millis() as i64;
        // Brokers that did not answer are not asked again in this sweep, so that they do not hold up the others.
        let mut silent = HashSet::new();
        for _ in 0..PAGES_MAX {
            let rows = self.page(engine, State::Committed, age_ms, cursor.clone()).await?;
            let is_last = rows.len() < PAGE_ROWS;
            *cursor = match rows.last() {
                Some(last) if !is_last => (last.created_at, last.id.clone()),
                _ => beginning(),
            };
            let mut settled = Vec::new();
            let (asked, skipped): (Vec<Row>, Vec<Row>) =
                rows.into_iter().partition(|row| !silent.contains(&row.broker));
            swept.left += skipped.len();
            let told = stream::iter(asked).map(async |row| (tell_again(engine, &row).await, row));
            let mut told = told.buffer_unordered(TELLING_MAX);
            while let Some((told, row)) = told.next().await {
                match told {
                    Told::Settled => settled.push(row.id),
                    Told::Contradicted => {
                        tracing::error!(
                            id = row.id,
                            topic = row.topic,
                            "committed in the database and rolled back at the broker by an operator: the row stays, in state 3"
                        );
                        let mut connection = self.shared.own.acquire().await?;
                        DB::contradict(&mut connection, &self.shared.statements, &row.id).await?;
                        swept.contradicted += 1;
                    }
                    Told::Silent => {
                        silent.insert(row.broker);
                        swept.left += 1;
                    }
                    Told::Left => swept.left += 1,
                }
            }
            self.delete(State::Committed, &settled).await?;
            swept.settled += settled.len();
            if is_last {
                break;
            }
        }
        Ok(())
    }

    async fn page(&self, engine: &Engine, state: State, age_ms: i64, after: Cursor) -> Result<Vec<Row>, sqlx::Error> {
        let page = Page { group: engine.group(), state, age_ms, after, limit: PAGE_ROWS as i64 };
        let mut connection = self.shared.own.acquire().await?;
        DB::page(&mut connection, &self.shared.statements, &page).await
    }
}

/// The broker's reaction to a commit that was told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Settled,
    Contradicted,
    /// It may not even have heard it.
    Silent,
    /// It has heard it, and the row must stay all the same.
    Left,
}

async fn tell_again(engine: &Engine, row: &Row) -> Told {
    let told = engine.tell(&[row.half()], Decision::Commit, None).await;
    let meaning = meaning_of(&told);
    if let (Told::Left, Err(error)) = (meaning, &told) {
        tracing::warn!(id = row.id, %error, "the commit of an old barrier row is refused: the row stays");
    }
    meaning
}

fn meaning_of(told: &Result<Outcome, TransactionError>) -> Told {
    match told {
        Ok(Outcome::Committed { .. }) => Told::Settled,
        Err(TransactionError::DecisionRefused { remark, .. }) if remark.starts_with(NO_SUCH_HALF) => Told::Settled,
        Err(TransactionError::OppositeDecision { .. }) => Told::Contradicted,
        Err(TransactionError::Unresolved { .. }) => Told::Silent,
        Ok(_) | Err(_) => Told::Left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RequestError;

    #[test]
    fn a_row_goes_only_when_its_transaction_is_known_to_be_settled() {
        let refused = |remark: &str| {
            let (transaction_id, remark) = ("t".to_owned(), remark.to_owned());
            Err(TransactionError::DecisionRefused { transaction_id, decision: Decision::Commit, code: 1, remark })
        };
        assert_eq!(meaning_of(&refused("Find prepared transaction message failed, no half at 7")), Told::Settled);
        assert_eq!(meaning_of(&refused("The producer group wrong, want A, is B")), Told::Left);
        assert_eq!(meaning_of(&Ok(Outcome::Unconfirmed)), Told::Left);
        let last = RequestError::TimedOut { addr: "a".into(), after: Duration::from_secs(3) };
        let unresolved = TransactionError::Unresolved { transaction_id: "t".into(), decision: Decision::Commit, last };
        assert_eq!(meaning_of(&Err(unresolved)), Told::Silent);
        let opposite = TransactionError::OppositeDecision {
            transaction_id: "t".into(),
            decision: Decision::Commit,
            settled: Some(Decision::Rollback),
            decided_at: None,
            remark: String::new(),
        };
        assert_eq!(meaning_of(&Err(opposite)), Told::Contradicted);
    }
}
