//! Consumers: a handler that only counts, and what it costs to have its effect once.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use bench_common::{Arguments, Tally};
use escrowmq_client::{Client, ConsumeFrom, Idempotent, MemoryStore, MessageExt, PushConsumer, SqlStore};
use escrowmq_tests::Postgres;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Connections to PostgreSQL: as many as a consumer runs handlers at the same time.
const CONNECTIONS: u32 = 20;

/// `--handler`: `plain` counts; `memory` does so behind marks in memory. `NAME-row` writes the message into a row of a database in a
/// transaction, `NAME-once` does the same in the transaction of an idempotent handler, where NAME is `sqlite` or `postgres`.
pub(crate) async fn consume(client: &Client, arguments: &Arguments) -> Value {
    let tally = Arc::new(Tally::new(arguments));
    let count = {
        let tally = Arc::clone(&tally);
        move |message: MessageExt| {
            tally.note(message.body());
            ready(Ok::<(), Infallible>(()))
        }
    };
    match arguments.text("handler") {
        "plain" => {
            let consumer = builder(client, arguments).start(count).await.expect("a consumer");
            until_all(consumer, &tally, arguments).await;
        }
        "memory" => {
            let store = MemoryStore::new().capacity(arguments.count("messages"));
            let handler = Idempotent::new(store, arguments.text("group")).once(count);
            let consumer = builder(client, arguments).start(handler).await.expect("a consumer");
            until_all(consumer, &tally, arguments).await;
        }
        handler => return in_database(client, arguments, &tally, handler).await,
    }
    tally.line()
}

fn builder(client: &Client, arguments: &Arguments) -> escrowmq_client::PushConsumerBuilder {
    client
        .push_consumer(arguments.text("group"))
        .subscribe(arguments.text("topic"), "*")
        .consume_from(ConsumeFrom::First)
}

async fn until_all(consumer: PushConsumer, tally: &Tally, arguments: &Arguments) {
    tally.all(arguments).await;
    consumer.shutdown().await;
}

/// Consumes with a handler that writes a row, and counts the rows afterwards. The two kinds of database have nothing in common that a
/// function could be generic over without naming each of sqlx's traits.
macro_rules! rows {
    ($pool:expr, $begin:literal, $columns:literal, $insert:literal, $is_once:expr, $client:expr, $arguments:expr, $tally:expr) => {{
        let (pool, tally) = ($pool, Arc::clone($tally));
        sqlx::query($columns).execute(&pool).await.expect("a table");
        let consumer = if $is_once {
            let store = SqlStore::new(pool.clone());
            store.create_tables().await.expect("tables");
            let handler = Idempotent::new(store, $arguments.text("group")).in_db_once(move |mut tx, message| {
                let tally = Arc::clone(&tally);
                async move {
                    sqlx::query($insert).bind(&message.body()[..]).execute(&mut **tx).await?;
                    tally.note(message.body());
                    Ok::<(), sqlx::Error>(())
                }
            });
            builder($client, $arguments).start(handler).await
        } else {
            let pool = pool.clone();
            let handler = move |message: MessageExt| {
                let (pool, tally) = (pool.clone(), Arc::clone(&tally));
                async move {
                    let mut tx = pool.begin_with($begin).await?;
                    sqlx::query($insert).bind(&message.body()[..]).execute(&mut *tx).await?;
                    tally.note(message.body());
                    tx.commit().await
                }
            };
            builder($client, $arguments).start(handler).await
        };
        until_all(consumer.expect("a consumer"), $tally, $arguments).await;
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM effects").fetch_one(&pool).await.expect("a count")
    }};
}

async fn in_database(client: &Client, arguments: &Arguments, tally: &Arc<Tally>, handler: &str) -> Value {
    let (database, way) = handler.split_once('-').unwrap_or_else(|| panic!("no handler {handler}"));
    let is_once = match way {
        "once" => true,
        "row" => false,
        _ => panic!("no handler {handler}"),
    };
    let effects = match database {
        "sqlite" => {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let options = SqliteConnectOptions::new().filename(folder.path().join("shop.db")).create_if_missing(true);
            let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
            // One writer at a time is all that it can do: more connections would only poll for its lock.
            let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("a database");
            rows!(
                pool,
                "BEGIN IMMEDIATE",
                "CREATE TABLE effects (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
                "INSERT INTO effects (body) VALUES (?)",
                is_once,
                client,
                arguments,
                tally
            )
        }
        "postgres" => {
            // Its own settings: each commit is flushed.
            let Some(server) = Postgres::start_with("clients", &[]).await else {
                return serde_json::json!({ "missing": "no PostgreSQL server is installed" });
            };
            let pool =
                PgPoolOptions::new().max_connections(CONNECTIONS).connect(&server.url()).await.expect("a database");
            rows!(
                pool,
                "BEGIN",
                "CREATE TABLE effects (id BIGSERIAL PRIMARY KEY, body BYTEA NOT NULL)",
                "INSERT INTO effects (body) VALUES ($1)",
                is_once,
                client,
                arguments,
                tally
            )
        }
        other => panic!("no database {other}"),
    };
    let mut line = tally.line();
    line["effects"] = effects.into();
    line
}
