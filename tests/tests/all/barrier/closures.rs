//! `run_in_db` as a user sees it, with closures that say yes, no, and something else than the database says.

use std::collections::BTreeSet;

use escrowmq_client::{AbortCause, Message, Outcome, RunInDbError, TransactionError};
use escrowmq_tests::{Postgres, until};

use super::shop::Shop;
use super::{GROUP, Scene, TOPIC, barrier, with_databases};

/// Later than anything here.
const CHECKS_EVERY_MS: u32 = 3_600_000;

with_databases!(yes_and_no);

async fn yes_and_no<DB: Shop>(scene: Scene<DB>) {
    let the_barrier = barrier(&scene.pool).build().expect("good settings");
    let producer = scene.client.transaction_producer(GROUP, the_barrier.checker());
    let producer = producer.start().await.expect("a producer starts");
    let message = |body: &str| Message::new(TOPIC, body.to_owned());

    // In a task of its own, as servers run it.
    let (buyer, the_same) = (producer.clone(), the_barrier.clone());
    let spawned = escrowmq_common::task::Tasks::new().spawn("buyer", async move {
        let bought = buyer.run_in_db(&the_same, Message::new(TOPIC, "yes"), async |mut tx| {
            DB::order(&mut tx, "yes").await.map(|()| 17)
        });
        let bought = bought.await.expect("committed");
        assert_eq!(bought.value, 17);
        assert!(matches!(bought.told, Ok(Outcome::Committed { .. })), "{:?}", bought.told);
    });
    spawned.await.expect("no panic");
    assert_eq!(scene.agreed().await, BTreeSet::from(["yes".to_owned()]));

    let refused = producer.run_in_db(&the_barrier, message("no"), async |mut tx| {
        DB::order(&mut tx, "no").await.expect("an order");
        Err::<(), _>("no money")
    });
    match refused.await.expect_err("the closure said no") {
        RunInDbError::Aborted { error: AbortCause::Closure("no money"), rollback, .. } => {
            assert!(matches!(*rollback, Ok(Outcome::RolledBack { .. })), "{rollback:?}");
        }
        other => panic!("{other}"),
    }

    let named =
        producer.run_in_db(&the_barrier, message("named").unique_id("mine"), async |_| Ok::<(), sqlx::Error>(()));
    let error = named.await.expect_err("an id of its own");
    assert!(matches!(error, RunInDbError::NotBegun(TransactionError::Half(_))), "{error}");

    assert_eq!(scene.agreed().await, BTreeSet::from(["yes".to_owned()]));
    until("the settled row to go", async || DB::rows(&scene.pool).await.is_empty().then_some(())).await;
    // A row that is settled right before the end goes with the end.
    let last = producer.run_in_db(&the_barrier, message("last"), async |mut tx| DB::order(&mut tx, "last").await);
    last.await.expect("committed");
    producer.shutdown().await;
    assert_eq!(DB::rows(&scene.pool).await, []);
    scene.client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_has_given_up_is_not_committed() {
    let Some(server) = Postgres::start("barrier::closures::what_postgres_has_given_up_is_not_committed").await else {
        return;
    };
    let scene = Scene::<sqlx::Postgres>::open(&server.url(), CHECKS_EVERY_MS).await;
    let the_barrier = barrier(&scene.pool).build().expect("good settings");
    let producer = scene.client.transaction_producer(GROUP, the_barrier.checker());
    let producer = producer.start().await.expect("a producer starts");

    // The server of the test does not wait for its disk; the barrier's transactions do.
    let looked = producer.run_in_db(&the_barrier, Message::new(TOPIC, "durable"), async |mut tx| {
        sqlx::Postgres::order(&mut tx, "durable").await?;
        let level: Vec<sqlx::postgres::PgRow> = sqlx::query("SHOW synchronous_commit").fetch_all(&mut **tx).await?;
        sqlx::Row::try_get::<String, _>(&level[0], 0)
    });
    assert_eq!(looked.await.expect("committed").value, "on");

    for (name, behind_its_back) in [
        ("an error", "INSERT INTO missing VALUES (1)"),
        ("a lost connection", "SELECT pg_terminate_backend(pg_backend_pid())"),
        ("an end", "ROLLBACK"),
    ] {
        let swallowed = producer.run_in_db(&the_barrier, Message::new(TOPIC, name), async |mut tx| {
            sqlx::Postgres::order(&mut tx, "swallowed").await?;
            let _ = sqlx::Postgres::execute(&mut tx, behind_its_back).await;
            Ok::<(), sqlx::Error>(())
        });
        let error = swallowed.await.expect_err(name);
        assert!(matches!(error, RunInDbError::Aborted { .. }), "{name}: {error}");
    }

    // At the last moment: COMMIT itself fails.
    let mut tx = scene.pool.begin().await.expect("a transaction");
    let lines = "CREATE TABLE lines (of_order VARCHAR(64) REFERENCES orders (name) DEFERRABLE INITIALLY DEFERRED)";
    sqlx::Postgres::execute(&mut tx, lines).await.expect("a table");
    tx.commit().await.expect("committed");
    let deferred = producer.run_in_db(&the_barrier, Message::new(TOPIC, "deferred"), async |mut tx| {
        sqlx::Postgres::execute(&mut tx, "INSERT INTO lines VALUES ('missing')").await
    });
    let error = deferred.await.expect_err("the constraint does not hold");
    assert!(matches!(error, RunInDbError::Aborted { error: AbortCause::Database(_), .. }), "{error}");

    assert_eq!(scene.agreed().await, BTreeSet::from(["durable".to_owned()]));
    scene.client.shutdown().await;
}
