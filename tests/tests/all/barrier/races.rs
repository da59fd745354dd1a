//! Local transactions and checks at the same time, in different processes: an open local transaction is "in progress", one
//! that comes after a check fails, and whatever meets whatever, one of them wins.
//!
//! The local transactions are written by hand here, as the documentation of the table has it: a producer would keep the checks
//! of its own transactions away from the database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_client::{BarrierChecker, Decision, MessageExt, TransactionListener};
use escrowmq_common::clock;
use escrowmq_tests::{since, until};
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::shop::Shop;
use super::{GROUP, Scene, TOPIC, barrier, with_databases};

const CHECKS_EVERY_MS: u32 = 200;

const RACES: u64 = 60;

with_databases!(checks_meet_local_transactions);

/// The built-in checker, with its answers written down.
struct Recording<DB: Shop> {
    checker: BarrierChecker<DB>,
    answers: Arc<Mutex<Vec<(String, Decision)>>>,
}

impl<DB: Shop> TransactionListener for Recording<DB> {
    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        let asked = clock::monotonic();
        let decision = self.checker.check_local_transaction(message).await;
        assert!(since(asked) < Duration::from_secs(15), "a check took {:?}", since(asked));
        self.answers.lock().push((message.message_id(), decision));
        decision
    }
}

async fn checks_meet_local_transactions<DB: Shop>(scene: Scene<DB>) {
    let answers: Arc<Mutex<Vec<(String, Decision)>>> = Arc::default();
    let the_barrier = barrier(&scene.pool).build().expect("good settings");
    let listener = Recording { checker: the_barrier.checker(), answers: Arc::clone(&answers) };
    let producer = scene.client.transaction_producer(GROUP, listener).topics([TOPIC]);
    let _producer = producer.start().await.expect("a producer starts");
    let wire = scene.cluster.broker.wire();
    let answers_about = |id: &str| {
        let answers = answers.lock();
        answers.iter().filter(|(about, _)| about == id).map(|(_, decision)| *decision).collect::<Vec<_>>()
    };

    // Open when the checks come.
    wire.half(GROUP, TOPIC, "open", "open").await;
    let mut tx = scene.pool.begin().await.expect("a transaction");
    DB::write_row(&mut tx, "open").await.expect("nobody was faster");
    DB::order(&mut tx, "open").await.expect("an order");
    until("checks of the open one", async || (answers_about("open").len() >= 3).then_some(())).await;
    let in_progress = |decision: &Decision| matches!(decision, Decision::InProgress { .. });
    assert!(answers_about("open").iter().all(in_progress), "{:?}", answers_about("open"));
    assert!(scene.visible().await.is_empty());
    tx.commit().await.expect("committed");
    scene.settle().await;
    assert_eq!(answers_about("open").last(), Some(&Decision::Commit));
    assert_eq!(scene.agreed().await, BTreeSet::from(["open".to_owned()]));

    // After the check.
    wire.half(GROUP, TOPIC, "late", "late").await;
    scene.settle().await;
    assert_eq!(answers_about("late").last(), Some(&Decision::Rollback));
    let mut tx = scene.pool.begin().await.expect("a transaction");
    let late = DB::write_row(&mut tx, "late").await.expect_err("planted before");
    assert!(late.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation), "{late}");
    drop(tx);

    // At any time.
    let races = (0..RACES).map(async |number| {
        let id = format!("race-{number}");
        wire.half(GROUP, TOPIC, &id, &id).await;
        // Around the time of the first checks; how the two meet is the question, so this is no condition.
        tokio::time::sleep(Duration::from_millis(number * 37 % 700)).await;
        race(&scene, &id, Duration::from_millis(number * 13 % 100)).await
    });
    let raced = join_all(races).await;
    scene.settle().await;
    let agreed = scene.agreed().await;
    let won = raced.iter().filter(|won| **won).count();
    eprintln!("{}: {won} of {RACES} local transactions were faster than the check", DB::NAME);
    assert_eq!(agreed.len(), won + 1);
    assert!(won > 0 && won < raced.len(), "{won} of {RACES} won: nothing raced");
    scene.client.shutdown().await;
}

/// A local transaction that is open for a while. Whether it committed.
async fn race<DB: Shop>(scene: &Scene<DB>, id: &str, open_for: Duration) -> bool {
    let mut tx = scene.pool.begin().await.expect("a transaction");
    if DB::write_row(&mut tx, id).await.is_err() {
        return false;
    }
    DB::order(&mut tx, id).await.expect("an order");
    tokio::time::sleep(open_for).await;
    tx.commit().await.expect("committed");
    true
}
