//! The tables of outbox, barrier and marks in each database: made by several at once, made again, refused where they are others. Needs
//! no broker.

use std::time::Duration;

use escrowmq_client::{Barrier, Outbox, SqlStore};
use escrowmq_tests::{MariaDb, Postgres};
use sqlx::Pool;

use crate::barrier::shop::Shop;
use crate::outbox::sqlite;

#[tokio::test]
async fn with_sqlite() {
    let (_folder, _, pool) = sqlite().await;
    tables(pool).await;
}

#[tokio::test]
async fn with_postgres() {
    let Some(server) = Postgres::start("idempotent::tables::with_postgres").await else { return };
    tables(Pool::<sqlx::Postgres>::connect(&server.url()).await.expect("a database")).await;
}

#[tokio::test]
async fn with_mariadb() {
    let Some(server) = MariaDb::start("idempotent::tables::with_mariadb").await else { return };
    tables(Pool::<sqlx::MySql>::connect(&server.url()).await.expect("a database")).await;
}

async fn tables<DB: Shop>(pool: Pool<DB>) {
    let marks = || SqlStore::new(pool.clone()).shards(3).expect("a number");
    let create = async || {
        Outbox::new(pool.clone()).create_tables().await?;
        Barrier::new(pool.clone()).create_table().await?;
        marks().create_tables().await
    };
    let (one, other) = tokio::join!(create(), create());
    one.expect("the tables");
    other.expect("the same tables");
    create().await.expect("they are there");
    assert_eq!(marks().clean("g", Duration::ZERO).await.expect("all of them are there"), 0);

    // By hand, too.
    let printed = [
        Outbox::<DB>::definition("escrowmq_outbox"),
        Barrier::<DB>::definition("escrowmq_barrier"),
        SqlStore::<DB>::definition("escrowmq_marks", 3),
        SqlStore::<DB>::definition("other_marks", 1),
    ];
    let execute = async |statement: &str| {
        let mut tx = pool.begin().await.expect("a transaction");
        <DB as Shop>::execute(&mut tx, statement).await.unwrap_or_else(|error| panic!("{statement}\n{error}"));
        tx.commit().await.expect("a commit");
    };
    for statement in printed.iter().flat_map(|text| text.split_terminator(";\n")) {
        execute(statement).await;
    }
    create().await.expect("they are the same");
    let other = SqlStore::new(pool.clone()).table("other_marks").expect("a name");
    other.create_tables().await.expect("they are the same");

    let refused = SqlStore::new(pool.clone()).create_tables().await.expect_err("they are three");
    assert!(refused.to_string().contains("divided into 3 tables, not into 1"), "{refused}");
    execute("UPDATE escrowmq_schema SET version = 2 WHERE table_name = 'escrowmq_outbox'").await;
    let refused = create().await.expect_err("they are newer");
    assert!(refused.to_string().contains("version 2"), "{refused}");
    marks().create_tables().await.expect("those are not newer");
}
