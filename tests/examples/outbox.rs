//! How fast a relay sends what waits in an outbox, with each database beside the broker on this machine.
//!
//! Arguments: rows (200,000), bytes of a body (256). Databases flush each commit. `tests/bench/outbox` runs it.

use std::time::Duration;

use escrowmq_client::{Message, Outbox, OutboxDatabase, OutboxState};
use escrowmq_tests::{Cluster, MariaDb, Postgres, Settings, since, until_within};
use sqlx::Pool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

const TOPIC: &str = "Orders";
const QUEUES: u32 = 8;
/// Rows of one of the transactions that fill the table, and of one that is measured.
const FILLING: usize = 5000;
/// Keys of the messages that have one.
const KEYS: usize = 1000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (rows, bytes) = (number(200_000), number(256));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = SqliteConnectOptions::new().filename(folder.path().join("shop.db")).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let pool = Pool::<sqlx::Sqlite>::connect_with(options.busy_timeout(Duration::from_secs(20))).await;
    measure("SQLite", pool.expect("a database"), rows, bytes).await;
    if let Some(server) = Postgres::start_with("outbox", &[]).await {
        let pool = Pool::<sqlx::Postgres>::connect(&server.url()).await;
        measure("PostgreSQL", pool.expect("a database"), rows, bytes).await;
    }
    if let Some(server) = MariaDb::start_with("outbox", &[]).await {
        let pool = Pool::<sqlx::MySql>::connect(&server.url()).await;
        measure("MariaDB", pool.expect("a database"), rows, bytes).await;
    }
}

async fn measure<DB: OutboxDatabase>(name: &str, pool: Pool<DB>, rows: usize, bytes: usize) {
    for (what, keys) in [("no keys", 0), ("1000 keys", KEYS)] {
        let cluster = Cluster::start(Settings::default()).await;
        let client = cluster.client_with_topic(TOPIC, QUEUES).await;
        let table = format!("outbox_{keys}");
        let outbox = Outbox::builder(pool.clone()).table(table).build().expect("good settings");
        outbox.create_tables().await.expect("tables");
        let began = escrowmq_common::clock::monotonic();
        for first in (0..rows).step_by(FILLING) {
            let mut tx = pool.begin().await.expect("a transaction");
            for number in first..rows.min(first + FILLING) {
                let message = Message::new(TOPIC, vec![b'x'; bytes]).key(number.to_string());
                let message = if keys == 0 { message } else { message.sharding_key((number % keys).to_string()) };
                outbox.add(&mut tx, message).await.expect("a message");
            }
            tx.commit().await.expect("a commit");
        }
        let added = rows as f64 / since(began).as_secs_f64();
        let producer = client.producer("relay").start().await.expect("a producer");
        let began = escrowmq_common::clock::monotonic();
        let relay = outbox.relay(&producer).start().expect("a relay");
        until_within(Duration::from_secs(600), "an empty outbox", async || {
            (relay.stats().sent >= rows as u64).then_some(())
        })
        .await;
        let sent = rows as f64 / since(began).as_secs_f64();
        let left = outbox.count().await.expect("a count").get(&OutboxState::Waiting).copied().unwrap_or(0);
        println!("{name:10}  {what:9}  {bytes} bytes: added {added:.0} rows/s, relayed {sent:.0} rows/s, {left} left");
        relay.shutdown().await;
        client.shutdown().await;
    }
}
