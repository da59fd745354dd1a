//! The outbox between real databases and a real broker: what a consumer can read is what the database has committed.
//!
//! Each test runs with SQLite, and with PostgreSQL and MariaDB where a server is installed. The outbox in Redis has tests of its own.

mod crash;
mod failing;
mod redis;
mod sending;
mod sharing;
mod stalling;
mod tool;

use std::collections::HashSet;
use std::time::Duration;

use escrowmq_client::{Client, Message, Outbox, OutboxState, Producer, Relay};
use escrowmq_tests::{Cluster, Settings, until_within};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Pool, Transaction};
use tempfile::TempDir;

use crate::barrier::shop::Shop;

pub(crate) const TOPIC: &str = "Orders";
const QUEUES: u32 = 4;

/// What the broker takes: less than the outbox.
const BODY_BYTES_MAX: usize = 65_536;

/// How long the outbox may take to be empty.
const SENDING: Duration = Duration::from_secs(90);

/// A cluster, and a shop whose orders are sent by an outbox.
pub(crate) struct Scene<DB: Shop> {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) pool: Pool<DB>,
    outbox: Outbox<DB>,
}

impl<DB: Shop> Scene<DB> {
    pub(crate) async fn open(url: String, pool: Pool<DB>) -> Scene<DB> {
        let (cluster, client) = cluster().await;
        let outbox = Outbox::new(pool.clone());
        outbox.create_tables().await.expect("the outbox's tables");
        outbox.create_tables().await.expect("they are there");
        DB::create_orders(&pool).await;
        Scene { cluster, client, url, pool, outbox }
    }

    async fn producer(&self, group: &str) -> Producer {
        producer(&self.client, group).await
    }

    async fn relay(&self, group: &str) -> Relay {
        self.relay_with(group, Duration::from_secs(2)).await
    }

    async fn relay_with(&self, group: &str, lease: Duration) -> Relay {
        self.outbox.relay(&self.producer(group).await).lease(lease).start().expect("a relay")
    }

    /// Places orders with these names, each with its message, in one transaction.
    async fn order(&self, names: &[String], message: impl Fn(&str) -> Message) {
        let tx = self.begin(names, message).await;
        self.outbox.commit(tx).await.expect("a commit");
    }

    /// The same, not committed.
    async fn begin(&self, names: &[String], message: impl Fn(&str) -> Message) -> Transaction<'static, DB> {
        let mut tx = self.pool.begin().await.expect("a transaction");
        for name in names {
            DB::order(&mut tx, name).await.expect("an order");
            self.outbox.add(&mut tx, message(name)).await.expect("its message");
        }
        tx
    }

    /// See [`read`].
    async fn visible(&self) -> Vec<Vec<String>> {
        self.read().await.0
    }

    async fn read(&self) -> (Vec<Vec<String>>, usize) {
        read(&self.cluster).await
    }

    /// How many rows are in a state.
    async fn count(&self, state: OutboxState) -> u64 {
        self.outbox.count().await.expect("a count").get(&state).copied().unwrap_or(0)
    }

    /// Waits until so many rows are in a state.
    async fn until_count(&self, state: OutboxState, count: u64) {
        let what = format!("{count} rows that are {state}");
        until_within(SENDING, &what, async || (self.count(state).await == count).then_some(())).await;
    }

    /// Waits until nothing waits, then asserts that a consumer reads each order once.
    async fn agreed(&self) -> Vec<Vec<String>> {
        self.until_count(OutboxState::Waiting, 0).await;
        let visible = self.visible().await;
        let mut read: Vec<String> = visible.concat();
        read.sort();
        let ordered: Vec<String> = DB::orders(&self.pool).await.into_iter().collect();
        assert_eq!(read, ordered);
        visible
    }
}

/// A cluster whose broker takes less than the outbox.
async fn cluster() -> (Cluster, Client) {
    // What failed comes again soon.
    let settings = Settings::default().with("messageDelayLevel", ["1s"; 18].join(" "));
    let cluster = Cluster::start(settings.with("maxMessageSize", BODY_BYTES_MAX)).await;
    let client = cluster.client_with_topic(TOPIC, QUEUES).await;
    (cluster, client)
}

/// A producer that gives up soon, so that the relay decides.
async fn producer(client: &Client, group: &str) -> Producer {
    let builder = client.producer(group).deadline(Duration::from_secs(2)).attempt_timeout(Duration::from_secs(1));
    builder.compress_above(usize::MAX).start().await.expect("a producer")
}

/// The bodies in each queue, in their order, without repeats under the same id, and the number of repeats: after a try that got no
/// answer in time there may be some.
async fn read(cluster: &Cluster) -> (Vec<Vec<String>>, usize) {
    let wire = cluster.broker.wire();
    let (mut queues, mut repeats) = (Vec::new(), 0);
    for queue in 0..QUEUES.cast_signed() {
        let (mut ids, mut bodies) = (HashSet::new(), Vec::new());
        for message in wire.read_queue(TOPIC, queue).await {
            if ids.insert(message.message_id()) {
                bodies.push(String::from_utf8_lossy(&message.body).into_owned());
            } else {
                repeats += 1;
            }
        }
        queues.push(bodies);
    }
    (queues, repeats)
}

pub(crate) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number:04}")).collect()
}

/// A new SQLite file; gone with the folder.
pub(crate) async fn sqlite() -> (TempDir, String, Pool<sqlx::Sqlite>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("shop.db").display());
    let options: SqliteConnectOptions = url.parse().expect("a URL");
    let options = options.journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(20));
    (folder, url, Pool::connect_with(options).await.expect("a database"))
}

/// The test `$run`, once for each database.
macro_rules! with_databases {
    ($run:ident) => {
        mod $run {
            #[tokio::test(flavor = "multi_thread")]
            async fn with_sqlite() {
                let (_folder, url, pool) = crate::outbox::sqlite().await;
                super::$run(crate::outbox::Scene::open(url, pool).await).await;
            }

            crate::outbox::tests_with_servers!($run);
        }
    };
}
pub(crate) use with_databases;

/// The test `$run`, once for each database that is a server.
macro_rules! with_servers {
    ($run:ident) => {
        mod $run {
            crate::outbox::tests_with_servers!($run);
        }
    };
}
pub(crate) use with_servers;

macro_rules! tests_with_servers {
    ($run:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn with_postgres() {
            let test = concat!(module_path!(), "::with_postgres");
            let Some(server) = escrowmq_tests::Postgres::start(test).await else { return };
            let pool = sqlx::PgPool::connect(&server.url()).await.expect("a database");
            super::$run(crate::outbox::Scene::open(server.url(), pool).await).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn with_mariadb() {
            let test = concat!(module_path!(), "::with_mariadb");
            let Some(server) = escrowmq_tests::MariaDb::start(test).await else { return };
            let pool = sqlx::MySqlPool::connect(&server.url()).await.expect("a database");
            super::$run(crate::outbox::Scene::open(server.url(), pool).await).await;
        }
    };
}
pub(crate) use tests_with_servers;
