//! Payments of orders. The payment, the mark that it was done, and the message that tells of it commit in one transaction, so that each
//! order is paid once and told once, however often its message comes.

use escrowmq_client::{Client, ConsumeFrom, Idempotent, Json, Message, Outbox, PushConsumer, SqlStore};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Postgres};

use crate::order_service::{self, Order};

/// Where payments are told.
pub const TOPIC: &str = "Payments";

/// The content of a message about a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// The order's number.
    pub order: i64,
}

/// Makes the tables and starts the consumer. A relay of `outbox` sends what it tells, here or in another process.
///
/// # Errors
///
/// The database or the cluster is away.
pub async fn start(client: &Client, pool: PgPool, outbox: Outbox<Postgres>) -> anyhow::Result<PushConsumer> {
    let payments = "CREATE TABLE IF NOT EXISTS payments (id BIGSERIAL PRIMARY KEY, of_order BIGINT NOT NULL, cents BIGINT NOT NULL)";
    sqlx::query(payments).execute(&pool).await?;
    let store = SqlStore::new(pool);
    store.create_tables().await?;

    let group = "payments";
    let handler = Idempotent::new(store, group).in_db_once(move |mut tx, message| {
        let outbox = outbox.clone();
        async move {
            let Json(order): Json<Order> = message.payload()?;
            let pay = "INSERT INTO payments (of_order, cents) VALUES ($1, $2)";
            sqlx::query(pay).bind(order.number).bind(order.cents).execute(&mut **tx).await?;
            let paid = Message::of(TOPIC, &Json(Paid { order: order.number }))?.sharding_key(&order.customer);
            outbox.add(&mut tx, paid).await?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        }
    });
    let consumer = client.push_consumer(group).subscribe(order_service::TOPIC, "*").consume_from(ConsumeFrom::First);
    Ok(consumer.start(handler).await?)
}
