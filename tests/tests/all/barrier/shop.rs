//! An application with a table of orders, in each of the databases.

use std::collections::BTreeSet;

use escrowmq_client::{BarrierDatabase, OutboxDatabase};
use sqlx::{Pool, Row, Transaction};

/// The tests' own use of a database, besides the barrier's.
pub(crate) trait Shop: BarrierDatabase + OutboxDatabase {
    /// Makes the table of orders.
    async fn create_orders(pool: &Pool<Self>);

    /// Places an order.
    fn order(tx: &mut Transaction<'static, Self>, key: &str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// All orders.
    async fn orders(pool: &Pool<Self>) -> BTreeSet<String>;

    /// Makes a table that keeps what is written twice.
    async fn create_effects(pool: &Pool<Self>);

    /// Writes into it.
    fn effect(tx: &mut Transaction<'static, Self>, name: &str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// What is in it, sorted.
    async fn effects(pool: &Pool<Self>) -> Vec<String>;

    /// Writes the row of a local transaction, as the documentation of the table has it.
    async fn write_row(tx: &mut Transaction<'static, Self>, id: &str) -> Result<(), sqlx::Error>;

    /// Ids and states of the barrier's rows.
    async fn rows(pool: &Pool<Self>) -> Vec<(String, i64)>;

    /// Runs a statement.
    fn execute(
        tx: &mut Transaction<'static, Self>,
        statement: &str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

macro_rules! shop {
    ($database:ty) => {
        impl Shop for $database {
            async fn create_orders(pool: &Pool<Self>) {
                let table = "CREATE TABLE orders (name VARCHAR(64) NOT NULL PRIMARY KEY)";
                sqlx::query(table).execute(pool).await.expect("a table of orders");
            }

            async fn order(tx: &mut Transaction<'static, Self>, key: &str) -> Result<(), sqlx::Error> {
                <$database>::execute(tx, &format!("INSERT INTO orders VALUES ('{key}')")).await
            }

            async fn orders(pool: &Pool<Self>) -> BTreeSet<String> {
                let orders = sqlx::query("SELECT name FROM orders").fetch_all(pool).await.expect("orders");
                orders.iter().map(|order| order.get(0)).collect()
            }

            async fn create_effects(pool: &Pool<Self>) {
                let table = "CREATE TABLE effects (name VARCHAR(64) NOT NULL)";
                sqlx::query(table).execute(pool).await.expect("a table of effects");
            }

            async fn effect(tx: &mut Transaction<'static, Self>, name: &str) -> Result<(), sqlx::Error> {
                <$database>::execute(tx, &format!("INSERT INTO effects VALUES ('{name}')")).await
            }

            async fn effects(pool: &Pool<Self>) -> Vec<String> {
                let rows = sqlx::query("SELECT name FROM effects ORDER BY name").fetch_all(pool).await;
                rows.expect("effects").iter().map(|row| row.get(0)).collect()
            }

            async fn write_row(tx: &mut Transaction<'static, Self>, id: &str) -> Result<(), sqlx::Error> {
                let columns =
                    "id, state, producer_group, topic, broker, queue_id, half_position, half_counter, created_at";
                let values = format!("'{id}', 1, '{}', '{}', 'broker-a', 0, 0, 0, 0", super::GROUP, super::TOPIC);
                <$database>::execute(tx, &format!("INSERT INTO escrowmq_barrier ({columns}) VALUES ({values})")).await
            }

            async fn rows(pool: &Pool<Self>) -> Vec<(String, i64)> {
                let rows = sqlx::query("SELECT id, state FROM escrowmq_barrier").fetch_all(pool).await.expect("rows");
                let id = |row| Row::try_get_unchecked(row, 0).expect("an id");
                rows.iter().map(|row| (id(row), row.get(1))).collect()
            }

            async fn execute(tx: &mut Transaction<'static, Self>, statement: &str) -> Result<(), sqlx::Error> {
                sqlx::query(statement).execute(&mut **tx).await.map(drop)
            }
        }
    };
}

shop!(sqlx::Sqlite);
shop!(sqlx::Postgres);
shop!(sqlx::MySql);
