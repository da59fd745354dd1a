//! The barrier between real databases and a real broker: what a consumer can read is exactly what the database has.
//!
//! Each test runs with SQLite, and with PostgreSQL and MariaDB where a server is installed.

mod closures;
mod crash;
mod races;
pub(crate) mod shop;

use std::collections::BTreeSet;

use escrowmq_client::{Barrier, BarrierBuilder, Client};
use escrowmq_tests::metrics::metric;
use escrowmq_tests::processes::free_port;
use escrowmq_tests::{Cluster, MariaDb, Postgres, Settings, until_within};
use sqlx::Pool;
use tempfile::TempDir;

use shop::Shop;

const TOPIC: &str = "Orders";
const GROUP: &str = "barrier-shop";
const QUEUES: u32 = 2;

/// How long everything in doubt may take to settle.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(60);

/// A cluster and a shop that sells through it.
struct Scene<DB: Shop> {
    cluster: Cluster,
    client: Client,
    pool: Pool<DB>,
    url: String,
    metrics: u16,
}

impl<DB: Shop> Scene<DB> {
    /// With checks that come after this many milliseconds, and as often.
    async fn open(url: &str, checks_every_ms: u32) -> Scene<DB> {
        let metrics = free_port();
        let settings = Settings::default()
            .with("transactionTimeOut", checks_every_ms)
            .with("transactionCheckInterval", checks_every_ms)
            .with("transactionCheckMax", 1000)
            .with("metricsPort", metrics);
        let cluster = Cluster::start(settings).await;
        let client = cluster.client_with_topic(TOPIC, QUEUES).await;
        let pool = Pool::<DB>::connect(url).await.expect("the database takes connections");
        barrier(&pool).build().expect("good settings").create_table().await.expect("the barrier's table");
        DB::create_orders(&pool).await;
        Scene { cluster, client, pool, url: url.to_owned(), metrics }
    }

    /// Waits until the broker has no half in doubt.
    async fn settle(&self) {
        let open = async || (metric(self.metrics, "halves_open").await? == 0).then_some(());
        until_within(SETTLING, "decisions on everything", open).await;
    }

    /// The bodies of all messages that a consumer can read; each must be there once.
    async fn visible(&self) -> BTreeSet<String> {
        let wire = self.cluster.broker.wire();
        let mut visible = BTreeSet::new();
        for queue in 0..QUEUES.cast_signed() {
            for message in wire.read_queue(TOPIC, queue).await {
                let body = String::from_utf8_lossy(&message.body).into_owned();
                assert!(visible.insert(body.clone()), "{body} is visible twice");
            }
        }
        visible
    }

    /// Asserts that broker and database agree, and answers what they agree on.
    async fn agreed(&self) -> BTreeSet<String> {
        let (visible, ordered) = (self.visible().await, DB::orders(&self.pool).await);
        let only =
            |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect::<Vec<_>>();
        assert_eq!(visible, ordered, "only visible: {:?}", only(&visible, &ordered));
        ordered
    }
}

/// A barrier that asks again soon.
fn barrier<DB: Shop>(pool: &Pool<DB>) -> BarrierBuilder<DB> {
    let soon = std::time::Duration::from_millis(100);
    Barrier::builder(pool.clone()).lock_wait(soon).ask_again_after(soon)
}

/// A new SQLite file; gone with the folder.
fn sqlite_file() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("shop.db").display());
    (folder, url)
}

/// The test `$run`, once for each database.
macro_rules! with_databases {
    ($run:path) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn with_sqlite() {
            let (_folder, url) = super::sqlite_file();
            $run(super::Scene::<sqlx::Sqlite>::open(&url, CHECKS_EVERY_MS).await).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn with_postgres() {
            let Some(server) = super::Postgres::start(concat!(module_path!(), "::with_postgres")).await else { return };
            $run(super::Scene::<sqlx::Postgres>::open(&server.url(), CHECKS_EVERY_MS).await).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn with_mariadb() {
            let Some(server) = super::MariaDb::start(concat!(module_path!(), "::with_mariadb")).await else { return };
            $run(super::Scene::<sqlx::MySql>::open(&server.url(), CHECKS_EVERY_MS).await).await;
        }
    };
}
use with_databases;
