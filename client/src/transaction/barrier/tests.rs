//! The barrier over a real SQLite file. Cases that need a broker, and PostgreSQL, are tested end to end.

use std::time::Duration;

use escrowmq_common::clock;
use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::database::{Dialect, Page, Row, State};
use super::local::{Local, Moment};
use super::verdict::Verdict;
use super::{AbortCause, Barrier, LocalTransaction};
use crate::queue::MessageQueue;
use crate::trace::Labels;
use crate::transaction::Half;

/// A shop with its barrier, in a folder of its own.
struct Shop {
    barrier: Barrier<Sqlite>,
    pool: SqlitePool,
    _folder: TempDir,
}

impl Shop {
    async fn open() -> Shop {
        Shop::with_connections(8).await
    }

    async fn with_connections(connections: u32) -> Shop {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("shop.db"))
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off);
        let pool =
            SqlitePoolOptions::new().max_connections(connections).connect_with(options).await.expect("a database");
        let barrier =
            Barrier::builder(pool.clone()).lock_wait(Duration::from_millis(50)).build().expect("good settings");
        barrier.create_table().await.expect("a table");
        barrier.create_table().await.expect("the table is there");
        for table in [
            "CREATE TABLE orders (id TEXT PRIMARY KEY)",
            "CREATE TABLE lines (of_order TEXT REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)",
        ] {
            sqlx::query(table).execute(&pool).await.expect("a table");
        }
        Shop { barrier, pool, _folder: folder }
    }

    /// The local transaction of `id`: places an order of that name.
    async fn order(&self, id: &str) -> Local<(), sqlx::Error> {
        let place = async |mut tx: LocalTransaction<Sqlite>| {
            sqlx::query("INSERT INTO orders VALUES (?)").bind(id).execute(&mut **tx).await.map(drop)
        };
        self.barrier.run_local(&row(id), Moment::now(), place).await
    }

    async fn has_order(&self, id: &str) -> bool {
        let found = sqlx::query("SELECT 1 FROM orders WHERE id = ?").bind(id).fetch_optional(&self.pool).await;
        found.expect("an answer").is_some()
    }

    async fn verdict(&self, id: &str) -> Verdict {
        self.barrier.verdict(&row(id)).await.expect("an answer")
    }
}

fn row(id: &str) -> Row {
    let half = Half {
        transaction_id: id.to_owned(),
        message_id: id.to_owned(),
        queue: MessageQueue::new("Orders", "broker-a", 1),
        position: 4711,
        table_offset: 3,
        labels: Labels::default(),
    };
    Row::committed("shop", &half)
}

#[tokio::test]
async fn a_committed_transaction_is_found_and_keeps_whom_to_tell() {
    let shop = Shop::open().await;
    assert!(matches!(shop.order("t").await, Local::Committed(())));
    assert_eq!(shop.verdict("t").await, Verdict::Committed);
    let mut connection = shop.pool.acquire().await.unwrap();
    let found = Sqlite::find(&mut connection, &shop.barrier.shared.statements, "t").await.unwrap().expect("a row");
    assert!((found.created_at - clock::wall_ms()).abs() < 60_000, "{}", found.created_at);
    assert_eq!(Row { created_at: 0, ..found }, row("t"));
    let half = row("t").half();
    assert_eq!((half.queue.broker(), half.position, half.table_offset), ("broker-a", 4711, 3));
}

#[tokio::test]
async fn planting_is_final() {
    let shop = Shop::open().await;
    assert_eq!(shop.verdict("t").await, Verdict::RolledBack);
    assert!(matches!(shop.order("t").await, Local::RolledBack(AbortCause::Planted)));
    assert_eq!(shop.verdict("t").await, Verdict::RolledBack);
    assert!(!shop.has_order("t").await);
}

#[tokio::test]
async fn a_half_left_behind_on_another_broker_is_not_delivered() {
    let shop = Shop::open().await;
    assert!(matches!(shop.order("t").await, Local::Committed(())));
    let on = async |broker: &str| {
        let half = Row { broker: broker.to_owned(), ..row("t") };
        shop.barrier.verdict(&half).await.expect("an answer")
    };
    assert_eq!(on("broker-b").await, Verdict::RolledBack);
    assert_eq!(on("").await, Verdict::Committed, "a broker that does not name itself is believed");
    assert_eq!(on("broker-a").await, Verdict::Committed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_does_not_wait_for_an_open_transaction_even_if_that_has_the_last_connection() {
    for says_yes in [true, false] {
        let shop = Shop::with_connections(1).await;
        let (opened, is_open) = oneshot::channel();
        let (end, ends) = oneshot::channel::<()>();
        let local = async |mut tx: LocalTransaction<Sqlite>| {
            sqlx::query("INSERT INTO orders VALUES ('t')").execute(&mut **tx).await.expect("an order");
            opened.send(()).expect("somebody waits");
            ends.await.expect("it is ended");
            says_yes.then_some(()).ok_or("no")
        };
        let check = async {
            is_open.await.expect("it opens");
            let started = clock::monotonic();
            assert_eq!(shop.verdict("t").await, Verdict::InProgress);
            let took = clock::monotonic().saturating_sub(started);
            assert!(took < Duration::from_secs(3), "a check took {took:?}");
            end.send(()).expect("it is open");
        };
        let subject = row("t");
        let (ended, ()) = tokio::join!(shop.barrier.run_local(&subject, Moment::now(), local), check);
        assert_eq!(matches!(ended, Local::Committed(())), says_yes);
        let expected = if says_yes { Verdict::Committed } else { Verdict::RolledBack };
        assert_eq!(shop.verdict("t").await, expected);
        assert_eq!(shop.has_order("t").await, says_yes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_local_transaction_and_a_check_at_the_same_time_exactly_one_wins() {
    let shop = Shop::open().await;
    let mut committed = 0;
    for round in 0..40 {
        let ids: Vec<String> = (0..8).map(|lane| format!("{round}/{lane}")).collect();
        let races = ids.iter().map(async |id| {
            let (ended, seen) = tokio::join!(shop.order(id), shop.verdict(id));
            (matches!(ended, Local::Committed(())), seen)
        });
        for (id, (has_committed, seen)) in ids.iter().zip(join_all(races).await) {
            committed += usize::from(has_committed);
            let expected = if has_committed { Verdict::Committed } else { Verdict::RolledBack };
            assert!(seen == expected || seen == Verdict::InProgress, "{id}: {seen:?} and {has_committed}");
            assert_eq!(shop.verdict(id).await, expected, "{id}");
            assert_eq!(shop.has_order(id).await, has_committed, "{id}");
        }
    }
    assert!(committed > 0, "no local transaction ever won");
}

#[tokio::test]
async fn a_failed_commit_is_looked_up_and_not_guessed() {
    let shop = Shop::open().await;
    let local = async |mut tx: LocalTransaction<Sqlite>| {
        // Fails at COMMIT, and leaves the transaction open then.
        sqlx::query("INSERT INTO lines VALUES ('missing')").execute(&mut **tx).await.map(drop)
    };
    let ended = shop.barrier.run_local(&row("t"), Moment::now(), local).await;
    assert!(matches!(ended, Local::RolledBack(AbortCause::Database(_)) | Local::InDoubt(_)));
    assert_eq!(shop.verdict("t").await, Verdict::RolledBack);
}

#[tokio::test]
async fn a_transaction_that_ended_behind_the_closures_back_does_not_count_as_committed() {
    let shop = Shop::open().await;
    let local = async |mut tx: LocalTransaction<Sqlite>| sqlx::query("ROLLBACK").execute(&mut **tx).await.map(drop);
    let ended = shop.barrier.run_local(&row("t"), Moment::now(), local).await;
    assert!(matches!(ended, Local::RolledBack(AbortCause::GivenUp)));
    assert_eq!(shop.verdict("t").await, Verdict::RolledBack);
}

#[tokio::test]
async fn a_transaction_that_the_closure_keeps_is_not_committed() {
    let shop = Shop::open().await;
    let ended = shop.barrier.run_local(&row("t"), Moment::now(), async |tx| Ok::<_, ()>(tx)).await;
    assert!(matches!(ended, Local::RolledBack(AbortCause::GivenUp)));
    drop(ended);
    assert_eq!(shop.verdict("t").await, Verdict::RolledBack);
}

#[tokio::test]
async fn a_closure_that_says_no_leaves_nothing() {
    let shop = Shop::open().await;
    let local = async |mut tx: LocalTransaction<Sqlite>| {
        sqlx::query("INSERT INTO orders VALUES ('t')").execute(&mut **tx).await.expect("an order");
        Err::<(), _>("no")
    };
    let ended = shop.barrier.run_local(&row("t"), Moment::now(), local).await;
    assert!(matches!(ended, Local::RolledBack(AbortCause::Closure("no"))));
    assert!(!shop.has_order("t").await);
    assert!(matches!(shop.order("t").await, Local::Committed(())), "no row is in the way");
}

#[tokio::test]
async fn a_local_transaction_does_not_begin_too_late() {
    let shop = Shop::open().await;
    let barrier = Barrier::builder(shop.pool.clone()).begin_within(Duration::ZERO).build().expect("good settings");
    let begun = Moment::now();
    let started = clock::monotonic();
    while clock::monotonic() == started {
        tokio::task::yield_now().await;
    }
    let ended = barrier.run_local(&row("t"), begun, async |_| Ok::<(), sqlx::Error>(())).await;
    assert!(matches!(ended, Local::RolledBack(AbortCause::TooLate { .. })));
}

#[tokio::test]
async fn pages_follow_each_other_and_walk_the_index() {
    let shop = Shop::open().await;
    let mut connection = shop.pool.acquire().await.unwrap();
    let statements = &shop.barrier.shared.statements;
    let ids: Vec<String> = (0..25).map(|number| format!("t{number:02}")).collect();
    for id in &ids {
        Sqlite::insert(&mut connection, statements, &row(id)).await.unwrap();
        Sqlite::insert(&mut connection, statements, &row(&format!("other/{id}")).rolled_back()).await.unwrap();
    }
    let mut found = Vec::new();
    let mut page = Page { group: "shop", state: State::Committed, age_ms: 0, after: (0, String::new()), limit: 10 };
    loop {
        let rows = Sqlite::page(&mut connection, statements, &page).await.unwrap();
        let Some(last) = rows.last() else { break };
        page.after = (last.created_at, last.id.clone());
        found.extend(rows.into_iter().map(|row| row.id));
    }
    assert_eq!(found, ids);
    Sqlite::delete(&mut connection, statements, State::RolledBack, &ids).await.unwrap();
    assert!(Sqlite::find(&mut connection, statements, "t00").await.unwrap().is_some(), "not in that state");
    Sqlite::delete(&mut connection, statements, State::Committed, &ids[1..]).await.unwrap();
    assert!(Sqlite::find(&mut connection, statements, "t01").await.unwrap().is_none());
    Sqlite::contradict(&mut connection, statements, "t00").await.unwrap();
    let kept = Sqlite::find(&mut connection, statements, "t00").await.unwrap().expect("a row");
    assert_eq!(kept.state, State::Contradicted);

    let plan =
        sqlx::query(&format!("EXPLAIN QUERY PLAN {}", statements.page)).fetch_all(&mut *connection).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|step| sqlx::Row::get(step, "detail")).collect();
    assert!(plan.iter().all(|step| step.starts_with("SEARCH") && step.contains("created_at>?")), "{plan:?}");
}

#[tokio::test]
async fn a_table_of_another_version_is_not_worked_on() {
    let shop = Shop::open().await;
    let version = async |version: u32| {
        let change = "UPDATE escrowmq_schema SET version = ? WHERE table_name = 'escrowmq_barrier'";
        sqlx::query(change).bind(version).execute(&shop.pool).await.expect("a version");
    };
    version(2).await;
    let Local::RolledBack(AbortCause::Database(refused)) = shop.order("t").await else { panic!("it has begun") };
    assert!(refused.to_string().contains("version 2"), "{refused}");
    let refused = shop.barrier.verdict(&row("t")).await.expect_err("nobody knows how to read it");
    assert!(refused.to_string().contains("version 2"), "{refused}");
    version(1).await;
    assert!(matches!(shop.order("t").await, Local::Committed(())), "the refused check has planted nothing");
}
