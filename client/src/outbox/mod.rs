//! The outbox: messages that are written in your own transaction, and sent afterwards.
//!
//! A message that is added is sent if your transaction commits, and never if it does not. It is sent **at least once**: under the
//! same unique id on every try, so a consumer that keeps that id has its effect once. A broker stores it once where the topic has a
//! duplicate window (`duplicate.window.seconds`, off by default, and not with Apache RocketMQ) and the repeat comes within it.
//!
//! [`Outbox`] is in a database, and what this page is about. `RedisOutbox` (feature `redis`) is weaker, as its own page says.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use escrowmq_client::{Client, Message, Outbox};
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/shop").await?;
//! let outbox = Outbox::new(pool.clone());
//! outbox.create_tables().await?; // or Outbox::<sqlx::Postgres>::definition(..) in a migration of yours
//!
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//! let producer = client.producer("orders").start().await?;
//! let relay = outbox.relay(&producer).start()?; // here, or in a process of its own, or in several
//!
//! let mut tx = pool.begin().await?;
//! sqlx::query("INSERT INTO orders (number) VALUES (17)").execute(&mut *tx).await?;
//! outbox.add(&mut tx, Message::new("Orders", "order 17").sharding_key("customer-3")).await?;
//! outbox.commit(tx).await?; // both, or neither
//!
//! relay.shutdown().await;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # Promises
//!
//! * **No row without its message, no message without its row**, whatever process dies at whatever point: the row is part of your
//!   transaction, and goes only when a broker has confirmed its message.
//! * **Messages of one sharding key are sent in order**: in that of their ids, which is the order of the transactions that the
//!   database ran one after the other. Of two that ran at the same time either may come first. Others need no order.
//! * **Nothing that waits is missed.** Numbers of rows commit out of order, so relays look for all that waits and remember no
//!   place up to which everything was sent.
//! * **No row fails by time.** Brokers that are away, busy or without a route use up no attempt; the relay tries again, after 30 s
//!   at most, and says how old the oldest row is. A row that brokers refuse for what it is fails after
//!   [`max_attempts`](RelayBuilder::max_attempts), keeps the last error for a person, and holds its key back until that person
//!   has [requeued](Outbox::requeue) or [discarded](Outbox::discard) it ([`OnFailed`]).
//! * **Two relays do not send one row**, as long as each of them runs: work is shared by slots, and a slot is leased by the
//!   clock of the database. A process that stands still for longer than its lease, and then goes on, may send again what
//!   another one has sent meanwhile: under the same id, and possibly after newer ones of its key.
//!
//! # What it needs of you
//!
//! * Commits must be durable, as for the [barrier](crate::transaction::barrier).
//! * SQLite: a pool with `journal_mode(Wal)`, a busy timeout, and transactions that begin with `BEGIN IMMEDIATE`. One relay does
//!   all the work; others stand by.
//! * PostgreSQL: relays hear of new rows at once by LISTEN on a connection of their own. Behind a pooler that mixes sessions, and
//!   with the other databases, another process finds them within a second.
//! * MySQL and MariaDB: InnoDB.
//! * One set of tables for each cluster of brokers. Several outboxes in a database have a [`table`](OutboxBuilder::table) each.
//!
//! # The tables
//!
//! `escrowmq_outbox` has a row for each message: `id`, `state` (`waiting`, `held`, `failed`, `sent`), `tenant`, `topic`,
//! `order_key` (the sharding key), `unique_id`, `properties` (JSON), `body`, `bytes`, `attempts`, `last_error`, `created_at`,
//! `changed_at` (UTC). `escrowmq_outbox_slots` says which relay owns which slot until when, `escrowmq_outbox_relays` who is there, and
//! `escrowmq_schema` which version of the tables this is.

mod error;
mod lease;
#[cfg(feature = "redis")]
pub mod redis;
mod relay;
mod row;
mod rows;
mod sending;
#[cfg(feature = "sql")]
mod sql;
mod worker;

#[cfg(feature = "redis")]
#[doc(inline)]
pub use self::redis::RedisOutbox;
pub use error::AddError;
pub use relay::{OnFailed, Relay, RelayBuilder, RelayStats};
pub use row::{OutboxQuery, OutboxRow, OutboxState};
#[cfg(feature = "sql")]
pub use sql::{CommitError, Outbox, OutboxBuilder, OutboxDatabase};
