//! Marks in the user's own database, beside the rows that they stand for.
//!
//! ```text
//!  BEGIN -> insert the mark -> handler -> is the mark still there? -> COMMIT
//!               |                 |              |                      | error
//!               | it is there     '-- ROLLBACK --'                      v
//!               v                       |                        the message comes again, and
//!         ROLLBACK: done                v                        its mark says whether it was done
//!                              the message comes again
//! ```

use std::fmt::{self, Display};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::message::body_crc;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use sqlx::{Pool, Transaction};

use super::OnceError;
use super::error::unfinished;
use crate::consumer::Verdict;
use crate::error::StartError;
use crate::limit::{TABLE_BYTES_MAX, is_table_name};
use crate::sql::tables::{Checked, Column, Family, Table};
use crate::sql::{Dialect, Kind, Value, begin, is_contention};
use crate::transaction::barrier::LocalTransaction;
use crate::transaction::barrier::local::roll_back;

/// The usual table.
const TABLE: &str = "escrowmq_marks";
/// Between two times that old marks are deleted.
const CLEAN_EVERY: Duration = Duration::from_secs(60);
/// Marks that one statement deletes.
const PAGE: usize = 256;
/// Tables that marks may be divided among.
const SHARDS_MAX: u32 = 256;
/// A table of marks.
const COLUMNS: &[(&str, Column)] =
    &[("consumer_group", Column::Text(255)), ("message_key", Column::Text(512)), ("done_at", Column::Time)];

/// The name of a table.
fn shard(table: &str, shards: u32, number: u32) -> String {
    if shards == 1 { table.to_owned() } else { format!("{table}_{number}") }
}

fn tables<DB: Dialect>(table: &str, shards: u32) -> Family {
    let one = |number| Table {
        name: shard(table, shards, number),
        columns: COLUMNS,
        key: "consumer_group, message_key",
        index: Some(("by_age", "consumer_group, done_at")),
    };
    Family::new::<DB>(table, shards, &(0..shards).map(one).collect::<Vec<_>>(), Vec::new())
}

impl<E> OnceError<E> {
    fn database<DB: Dialect>(error: sqlx::Error) -> Self {
        OnceError::Database { is_contention: is_contention::<DB>(&error), error }
    }
}

/// Marks in a table of the user's database. Cheap to clone.
pub struct SqlStore<DB: Dialect> {
    pool: Pool<DB>,
    table: Arc<str>,
    shards: u32,
    /// Whether the tables are those that this is made for.
    checked: Arc<Checked>,
    /// When old marks were deleted last, by the monotonic clock.
    cleaned: Arc<Mutex<Duration>>,
    tasks: Tasks,
}

impl<DB: Dialect> Clone for SqlStore<DB> {
    fn clone(&self) -> Self {
        SqlStore {
            pool: self.pool.clone(),
            table: Arc::clone(&self.table),
            shards: self.shards,
            checked: Arc::clone(&self.checked),
            cleaned: Arc::clone(&self.cleaned),
            tasks: self.tasks.clone(),
        }
    }
}

impl<DB: Dialect> fmt::Debug for SqlStore<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &DB::NAME).field("table", &self.table).finish_non_exhaustive()
    }
}

impl<DB: Dialect> SqlStore<DB> {
    /// Marks in the table `escrowmq_marks`.
    pub fn new(pool: Pool<DB>) -> SqlStore<DB> {
        SqlStore {
            pool,
            table: TABLE.into(),
            shards: 1,
            checked: Arc::default(),
            cleaned: Arc::default(),
            tasks: Tasks::new(),
        }
    }

    /// The same in another table, optionally with its schema in front.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for a name that is no name of a table.
    pub fn table(mut self, table: &str) -> Result<SqlStore<DB>, StartError> {
        if !is_table_name(table) {
            let reason = format!(
                "{table:?} is no name of at most {TABLE_BYTES_MAX} letters, digits and underscores, with its schema in front or not"
            );
            return Err(StartError::setting("table", reason));
        }
        self.table = table.into();
        self.checked = Arc::default();
        Ok(self)
    }

    /// Divides the marks among so many tables by a hash of the key, so that none of them, and none of their indexes, grows too large:
    /// `escrowmq_marks_0` and so on. Default 1: `escrowmq_marks` alone.
    ///
    /// The number is kept with the tables, and another one is refused: a mark would be looked for in a table where it is not. Other
    /// tables have another [name](Self::table), and know nothing of what was done before.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] if it is 0 or above 256.
    pub fn shards(mut self, count: u32) -> Result<SqlStore<DB>, StartError> {
        if !(1..=SHARDS_MAX).contains(&count) {
            return Err(StartError::setting("shards", format!("must be from 1 to {SHARDS_MAX}")));
        }
        self.shards = count;
        self.checked = Arc::default();
        Ok(self)
    }

    /// Creates the tables and their indexes if they are not there.
    ///
    /// # Errors
    ///
    /// The database's error; trying again is safe.
    pub async fn create_tables(&self) -> Result<(), sqlx::Error> {
        tables::<DB>(&self.table, self.shards).create(&self.pool).await
    }

    /// The definition of the tables in SQL, for a migration of yours. `table` may be qualified by a schema.
    pub fn definition(table: &str, shards: u32) -> String {
        tables::<DB>(table, shards).definition()
    }

    /// The table with the mark of a key.
    fn table_of(&self, group: &str, key: &str) -> String {
        shard(&self.table, self.shards, body_crc(format!("{group}/{key}").as_bytes()) % self.shards)
    }

    /// Looks once whether the tables are those that this is made for.
    async fn check_tables(&self) -> Result<(), sqlx::Error> {
        self.checked.check(&self.pool, || tables::<DB>(&self.table, self.shards)).await
    }

    /// Runs `work` unless there is a mark of this key.
    pub(super) async fn once<F, R, V, E>(
        &self,
        group: &str,
        key: &str,
        keep: Duration,
        work: F,
    ) -> Result<Verdict, OnceError<E>>
    where
        F: FnOnce(LocalTransaction<DB>) -> R,
        R: Future<Output = Result<V, E>>,
        V: Into<Verdict>,
        E: Display + 'static,
    {
        self.clean_sometimes(group, keep);
        let failed = OnceError::database::<DB>;
        self.check_tables().await.map_err(failed)?;
        let mut transaction = begin(&self.pool, DB::BEGIN).await.map_err(failed)?;
        match self.mark(&mut transaction, group, key).await {
            Ok(true) => {}
            Ok(false) => {
                roll_back(transaction).await;
                return Ok(Verdict::Done);
            }
            Err(error) => {
                roll_back(transaction).await;
                return Err(failed(error));
            }
        }
        let (lent, back) = LocalTransaction::lend(transaction);
        let said = work(lent).await;
        let transaction = back.lock().take();
        if let Some(unfinished) = unfinished(said) {
            if let Some(transaction) = transaction {
                roll_back(transaction).await;
            }
            return unfinished;
        }
        let Some(mut transaction) = transaction else { return Err(OnceError::GivenUp) };
        // A database may have given the transaction up already, after an error that the handler did not mind. PostgreSQL would
        // answer COMMIT with success then, and roll back.
        match self.is_marked(&mut transaction, group, key).await {
            Ok(true) => transaction.commit().await.map_err(failed).map(Verdict::from),
            Ok(false) => {
                roll_back(transaction).await;
                Err(OnceError::GivenUp)
            }
            Err(error) => {
                roll_back(transaction).await;
                Err(failed(error))
            }
        }
    }

    /// Writes a mark. Says whether there was none.
    async fn mark(
        &self,
        transaction: &mut Transaction<'static, DB>,
        group: &str,
        key: &str,
    ) -> Result<bool, sqlx::Error> {
        let spelling = DB::SPELLING;
        let (first, second) = ((spelling.parameter)(1), (spelling.parameter)(2));
        let insert = format!(
            "INSERT INTO {} (consumer_group, message_key, done_at) VALUES ({first}, {second}, {}){}",
            self.table_of(group, key),
            spelling.now,
            spelling.if_new
        );
        match DB::execute(transaction, &insert, &[Value::Text(group), Value::Text(key)]).await {
            Ok(rows) => Ok(rows == 1),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn is_marked(
        &self,
        transaction: &mut Transaction<'static, DB>,
        group: &str,
        key: &str,
    ) -> Result<bool, sqlx::Error> {
        let (first, second) = ((DB::SPELLING.parameter)(1), (DB::SPELLING.parameter)(2));
        let select = format!(
            "SELECT message_key FROM {} WHERE consumer_group = {first} AND message_key = {second}",
            self.table_of(group, key)
        );
        let values = [Value::Text(group), Value::Text(key)];
        Ok(!DB::select(transaction, &select, &values, &[Kind::Text]).await?.is_empty())
    }

    /// Starts to delete old marks if nobody here did lately.
    fn clean_sometimes(&self, group: &str, keep: Duration) {
        let now = clock::monotonic();
        {
            let mut cleaned = self.cleaned.lock();
            if !cleaned.is_zero() && now.saturating_sub(*cleaned) < CLEAN_EVERY {
                return;
            }
            *cleaned = now;
        }
        let (store, group) = (self.clone(), group.to_owned());
        self.tasks.spawn("idempotence marks", async move {
            if let Err(error) = store.clean(&group, keep).await {
                tracing::warn!(%error, "old marks of idempotent handlers are not deleted; it is tried again");
            }
        });
    }

    /// Deletes the marks of a group that are older than this. Answers how many there were.
    ///
    /// # Errors
    ///
    /// The database's error; trying again is safe.
    pub async fn clean(&self, group: &str, keep: Duration) -> Result<u64, sqlx::Error> {
        let mut deleted = 0;
        for number in 0..self.shards {
            deleted += self.clean_table(&shard(&self.table, self.shards, number), group, keep).await?;
        }
        Ok(deleted)
    }

    async fn clean_table(&self, table: &str, group: &str, keep: Duration) -> Result<u64, sqlx::Error> {
        let spelling = DB::SPELLING;
        let parameter = spelling.parameter;
        let before = (spelling.later)(&format!("-{}", keep.as_millis()));
        let select = format!(
            "SELECT message_key FROM {table} WHERE consumer_group = {} AND done_at < {before} ORDER BY done_at LIMIT {PAGE}",
            parameter(1)
        );
        let list: Vec<String> = (2..PAGE + 2).map(parameter).collect();
        let delete = format!(
            "DELETE FROM {table} WHERE consumer_group = {} AND message_key IN ({})",
            parameter(1),
            list.join(", ")
        );
        let mut deleted = 0;
        loop {
            let mut connection = self.pool.acquire().await?;
            let old = DB::select(&mut connection, &select, &[Value::Text(group)], &[Kind::Text]).await?;
            let old: Vec<String> = old.into_iter().map(|mut cells| cells[0].text()).collect();
            let Some(last) = old.last() else { return Ok(deleted) };
            let keys = old.iter().chain(std::iter::repeat(last)).take(PAGE).map(|key| Value::Text(key));
            let values: Vec<Value<'_>> = std::iter::once(Value::Text(group)).chain(keys).collect();
            deleted += DB::execute(&mut connection, &delete, &values).await?;
            if old.len() < PAGE {
                return Ok(deleted);
            }
        }
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use sqlx::Sqlite;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

    use super::*;

    async fn store(connections: u32) -> (tempfile::TempDir, SqlStore<Sqlite>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new().filename(folder.path().join("shop.db")).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(connections);
        let pool = pool.connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.expect("a database");
        sqlx::query("CREATE TABLE bills (name TEXT)").execute(&pool).await.expect("a table");
        let store = SqlStore::new(pool).table("main.marks").expect("a name");
        store.create_tables().await.expect("a table");
        store.create_tables().await.expect("it is there");
        (folder, store)
    }

    async fn bill(mut tx: LocalTransaction<Sqlite>, name: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO bills VALUES (?)").bind(name).execute(&mut **tx).await.map(drop)
    }

    async fn bills(store: &SqlStore<Sqlite>) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM bills").fetch_one(&store.pool).await.expect("a count")
    }

    const KEEP: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_key_has_its_effect_once() {
        let (_folder, store) = store(8).await;
        for _ in 0..3 {
            store.once("g", "k", KEEP, |tx| bill(tx, "a")).await.expect("done");
        }
        store.once("other", "k", KEEP, |tx| bill(tx, "a")).await.expect("done");
        store.once("g", "l", KEEP, |tx| bill(tx, "a")).await.expect("done");
        assert_eq!(bills(&store).await, 3);
        let calls = AtomicU32::new(0);
        let at_once = (0..16).map(|_| {
            store.once("g", "m", KEEP, async |tx| {
                calls.fetch_add(1, Ordering::Relaxed);
                bill(tx, "b").await
            })
        });
        for done in futures_util::future::join_all(at_once).await {
            done.expect("done");
        }
        assert_eq!((bills(&store).await, calls.into_inner()), (4, 1));
    }

    #[tokio::test]
    async fn what_fails_leaves_no_mark_and_comes_again() {
        let (_folder, store) = store(1).await;
        let said = store
            .once("g", "k", KEEP, async |tx| {
                bill(tx, "a").await.expect("a row");
                Err::<(), _>("no")
            })
            .await;
        assert!(matches!(said, Err(OnceError::Handler("no"))), "{said:?}");
        let said = store
            .once("g", "k", KEEP, async |tx| {
                bill(tx, "a").await.expect("a row");
                Ok::<_, sqlx::Error>(Verdict::again("not yet"))
            })
            .await;
        assert!(matches!(said, Ok(Verdict::Again { .. })), "{said:?}");
        let kept = std::sync::Mutex::new(None);
        let said = store
            .once("g", "k", KEEP, async |tx| {
                *kept.lock().expect("a lock") = Some(tx);
                Ok::<(), sqlx::Error>(())
            })
            .await;
        assert!(matches!(said, Err(OnceError::GivenUp)), "{said:?}");
        drop(kept.into_inner());
        let said = store
            .once("g", "k", KEEP, async |mut tx: LocalTransaction<Sqlite>| {
                sqlx::query("ROLLBACK").execute(&mut **tx).await.expect("rolled back");
                Ok::<(), sqlx::Error>(())
            })
            .await;
        assert!(matches!(said, Err(OnceError::GivenUp)), "{said:?}");
        assert_eq!(bills(&store).await, 0);
        // On the same connection.
        store.once("g", "k", KEEP, |tx| bill(tx, "a")).await.expect("done");
        assert_eq!(bills(&store).await, 1);
    }

    #[tokio::test]
    async fn sharded_marks_are_found_again_and_cleaned_and_keep_their_number() {
        let (_folder, store) = store(8).await;
        let said = store.clone().shards(4).expect("a number").create_tables().await;
        assert!(said.is_err_and(|error| error.to_string().contains("divided into 1 tables")));
        let sharded = store.clone().table("main.sharded").expect("a name").shards(4).expect("a number");
        sharded.create_tables().await.expect("tables");
        sharded.create_tables().await.expect("they are there");
        for _ in 0..2 {
            for number in 0..40 {
                sharded.once("g", &format!("k-{number}"), KEEP, |tx| bill(tx, "a")).await.expect("done");
            }
        }
        assert_eq!(bills(&store).await, 40);
        let mut marks = 0;
        for number in 0..4 {
            let count = format!("SELECT count(*) FROM sharded_{number}");
            let count: i64 = sqlx::query_scalar(&count).fetch_one(&store.pool).await.expect("a count");
            assert!(count > 0, "a table of its own for no mark");
            marks += count;
        }
        assert_eq!(marks, 40);
        let other = store.clone().table("main.sharded").expect("a name").shards(5).expect("a number");
        let said = other.once("g", "k-1", KEEP, |tx| bill(tx, "a")).await;
        assert!(said.is_err_and(|error| error.to_string().contains("divided into 4 tables")));
        sqlx::query("UPDATE sharded_1 SET done_at = datetime('now', '-1 hour')")
            .execute(&store.pool)
            .await
            .expect("old");
        assert!(sharded.clean("g", KEEP).await.expect("cleaned") > 0);
        assert!(store.clone().shards(0).is_err() && store.shards(257).is_err());
    }

    #[tokio::test]
    async fn tables_of_a_newer_version_are_refused() {
        let (_folder, store) = store(1).await;
        sqlx::query("UPDATE escrowmq_schema SET version = 2").execute(&store.pool).await.expect("a version");
        assert!(store.create_tables().await.is_err_and(|error| error.to_string().contains("version 2")));
        let said = store.once("g", "k", KEEP, |tx| bill(tx, "a")).await;
        assert!(matches!(said, Err(OnceError::Database { .. })), "{said:?}");
        assert_eq!(bills(&store).await, 0);
    }

    #[tokio::test]
    async fn old_marks_go_and_young_ones_stay() {
        let (_folder, store) = store(8).await;
        for number in 0..600 {
            let insert = "INSERT INTO marks VALUES ('g', ?, datetime('now', '-1 hour'))";
            sqlx::query(insert).bind(format!("old-{number}")).execute(&store.pool).await.expect("a row");
        }
        store.once("g", "young", Duration::from_secs(7200), |tx| bill(tx, "a")).await.expect("done");
        assert_eq!(store.clean("other", KEEP).await.expect("cleaned"), 0);
        assert_eq!(store.clean("g", KEEP).await.expect("cleaned"), 600);
        store.once("g", "young", KEEP, |tx| bill(tx, "a")).await.expect("done");
        assert_eq!(bills(&store).await, 1);
    }
}
