//! Orders over HTTP. An order and its message are in the world together, or neither is, in one of two ways:
//!
//! * `POST /orders` by the **outbox**: it needs the database alone, also while all brokers are away. The message follows a moment later.
//! * `POST /orders/escrow` by the **barrier**: the broker holds the message in escrow while the order is written, and consumers see it with
//!   the commit.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use escrowmq_client::{
    AbortCause, Barrier, Client, Message, Outbox, Producer, Relay, RunInDbError, TransactionProducer,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool, Postgres};

/// Where orders are told.
pub const TOPIC: &str = "Orders";

/// An order, as it comes by HTTP and leaves by its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by the customer's side, so that a request that is repeated is the same order.
    pub number: i64,
    /// Orders of one customer are told in order.
    pub customer: String,
    /// The price.
    pub cents: i64,
}

impl Order {
    fn message(&self) -> Result<Message, Failure> {
        let message = Message::of(TOPIC, &escrowmq_client::Json(self)).map_err(|error| Failure::refused(&error))?;
        Ok(message.key(format!("order-{}", self.number)).sharding_key(&self.customer))
    }

    /// Writes the order. Answers whether it is new.
    async fn write(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let insert = "INSERT INTO orders (number, customer, cents) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let insert = sqlx::query(insert).bind(self.number).bind(&self.customer).bind(self.cents);
        Ok(insert.execute(connection).await?.rows_affected() == 1)
    }
}

/// The service.
#[derive(Debug)]
pub struct Shop {
    pool: PgPool,
    outbox: Outbox<Postgres>,
    barrier: Barrier<Postgres>,
    escrow: TransactionProducer,
    sender: Producer,
    relay: Relay,
}

impl Shop {
    /// Makes the tables and starts the producers and the relay.
    ///
    /// # Errors
    ///
    /// The database or the cluster is away.
    pub async fn start(client: &Client, pool: PgPool) -> anyhow::Result<Arc<Shop>> {
        let orders = "CREATE TABLE IF NOT EXISTS orders (number BIGINT PRIMARY KEY, customer TEXT NOT NULL, cents BIGINT NOT NULL)";
        sqlx::query(orders).execute(&pool).await?;
        let outbox = Outbox::new(pool.clone());
        outbox.create_tables().await?;
        let barrier = Barrier::new(pool.clone());
        barrier.create_table().await?;
        let escrow = client.transaction_producer("shop_escrow", barrier.checker()).topics([TOPIC]).start().await?;
        let sender = client.producer("shop").topics([TOPIC]).start().await?;
        let relay = outbox.relay(&sender).start()?;
        Ok(Arc::new(Shop { pool, outbox, barrier, escrow, sender, relay }))
    }

    /// The routes.
    pub fn router(self: &Arc<Shop>) -> Router {
        let routes = Router::new().route("/orders", post(place)).route("/orders/escrow", post(place_in_escrow));
        routes.with_state(Arc::clone(self))
    }

    /// Ends the relay and the producers. Rows that were not sent yet are sent after the next start.
    pub async fn shutdown(&self) {
        self.relay.shutdown().await;
        self.sender.shutdown().await;
        self.escrow.shutdown().await;
    }
}

/// By the outbox.
async fn place(State(shop): State<Arc<Shop>>, Json(order): Json<Order>) -> Result<StatusCode, Failure> {
    let mut tx = shop.pool.begin().await.map_err(|error| Failure::later(&error))?;
    if !order.write(&mut tx).await.map_err(|error| Failure::later(&error))? {
        return Ok(StatusCode::OK); // a repeated request: its message was told with the first one
    }
    shop.outbox.add(&mut tx, order.message()?).await.map_err(|error| Failure::later(&error))?;
    // Also if it is unknown whether this has committed, the request may be repeated: the order's number tells.
    shop.outbox.commit(tx).await.map_err(|error| Failure::later(&error))?;
    Ok(StatusCode::CREATED)
}

/// By the barrier.
async fn place_in_escrow(State(shop): State<Arc<Shop>>, Json(order): Json<Order>) -> Result<StatusCode, Failure> {
    let written = shop.escrow.run_in_db(&shop.barrier, order.message()?, async |mut tx| {
        if order.write(&mut tx).await? { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    });
    match written.await {
        Ok(_) => Ok(StatusCode::CREATED),
        Err(RunInDbError::Aborted { error: AbortCause::Closure(sqlx::Error::RowNotFound), .. }) => Ok(StatusCode::OK),
        Err(error) => Err(Failure::later(&error)),
    }
}

/// Why there is no order, or perhaps none.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    reason: String,
}

impl Failure {
    /// A repeated request may succeed, and is safe.
    fn later(error: &dyn std::error::Error) -> Failure {
        Failure { status: StatusCode::SERVICE_UNAVAILABLE, reason: error.to_string() }
    }

    fn refused(error: &dyn std::error::Error) -> Failure {
        Failure { status: StatusCode::UNPROCESSABLE_ENTITY, reason: error.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, self.reason).into_response()
    }
}
