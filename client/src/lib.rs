//! Rust SDK for EscrowMQ and Apache RocketMQ.
//!
//! One [`Client`] per process and cluster; producers and consumers are made from it and share its connections.
//!
//! ```no_run
//! use escrowmq_client::{Client, Message};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//!
//! let producer = client.producer("orders_producer").start().await?;
//! let sent = producer.send(Message::new("Orders", "order 17").tag("created").key("order-17")).await?;
//! println!("{} is in {} at {}", sent.message_id, sent.queue, sent.queue_offset);
//!
//! let consumer = client
//!     .push_consumer("orders_consumer")
//!     .subscribe("Orders", "created || paid")
//!     .start(|message| async move {
//!         println!("{} bytes with tag {:?}", message.body().len(), message.tag());
//!         Ok::<(), std::io::Error>(())
//!     })
//!     .await?;
//! # drop(consumer);
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! * [`Producer`]: `send`, `send_oneway`, `send_batch`; failed attempts go to other queues and brokers within a deadline
//!   and carry the same unique id. [`request`](Producer::request) waits for the [`reply`](Producer::reply) of whoever handles the
//!   message. A [`Profile`] says what counts as success; [`Producer::batching`] gathers messages into
//!   batches; [`ProducerBuilder::spill`] keeps in a local folder what could not be sent, and sends it in order later.
//! * [`TransactionProducer`]: half messages, settled by a decision whose [`Outcome`] is awaited. The local transaction is a
//!   [`TransactionListener`]'s, a closure's ([`run`](TransactionProducer::run)) or your own code's around a [`Transaction`]
//!   ([`prepare`](TransactionProducer::prepare), [`begin`](TransactionProducer::begin) for several messages); the broker's
//!   checks go to the listener, a [`Checker`] at least, or a [`Router`] to several. [`transaction`] shows each style, and
//!   with the features `sqlite`, `postgres` and `mysql` a barrier that commits a database and a message together.
//! * [`PushConsumer`]: an async handler, bounded buffers, offsets only after success, retries and dead letters through the
//!   broker, a share of the queues that clients in other languages agree with.
//! * Sends and handlers are spans of `tracing`, in the target `escrowmq_client::span`; with the feature `opentelemetry` a
//!   handler goes on with the trace of the sender, by the W3C context in the message. RocketMQ's own message trace is written
//!   if asked for ([`ClientBuilder::message_trace`]).
//! * [`Idempotent`]: handlers whose effect happens once, by marks in your database (`sqlite`, `postgres`, `mysql`), in Redis (`redis`)
//!   or in memory.
//! * [`PullConsumer`] and [`Admin`] for the rest; transactions that are open or parked at an EscrowMQ broker are listed,
//!   shown and decided with [`Admin::list_transactions`] and its neighbours.
//!
//! Errors say whether a retry may help (`is_retryable`) and whether the thing may have happened all the same
//! (`outcome_unknown`). Abilities of EscrowMQ alone (confirming decisions, keeping the delay of a transactional message,
//! several messages in one transaction, more time without using up checks) are found out from its answer to the heartbeat;
//! other brokers get the usual one-way decision, or a clear error.
//!
//! # Features
//!
//! | feature | default | adds | needs |
//! | --- | --- | --- | --- |
//! | `zstd` | yes | reads bodies that other producers compressed with Zstandard; without it they are a [`body_error`](MessageExt::body_error) | Rust alone |
//! | `sqlite` | | `Outbox`, `Barrier` and `Idempotent` with SQLite, which is compiled in | a C compiler |
//! | `postgres` | | the same with PostgreSQL | Rust alone |
//! | `mysql` | | the same with MySQL and MariaDB | Rust alone |
//! | `opentelemetry` | | traces that go on across processes | Rust alone |
//! | `redis` | | `RedisStore` for idempotent handlers, and the weaker `RedisOutbox` | Rust alone |
//! | `tower` | | handlers that are `tower` services | Rust alone |
//! | `sql` | | what the three databases in SQL share; they turn it on, and it is of no use alone | Rust alone |
//!
//! Without any of them it is Tokio, tracing and the protocol.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod admin;
mod batching;
mod brokers;
mod builder;
mod client;
mod consumer;
mod core;
mod error;
mod events;
mod gate;
mod groups;
mod heartbeat;
pub mod idempotent;
mod incoming;
mod limit;
mod members;
mod message;
mod names;
mod outage;
#[cfg(any(feature = "sql", feature = "redis"))]
pub mod outbox;
pub mod payload;
mod producer;
mod queue;
mod request_reply;
mod route;
mod routes;
#[cfg(feature = "redis")]
mod script;
#[cfg(unix)]
mod spill;
#[cfg(feature = "sql")]
mod sql;
mod stats;
mod trace;
pub mod transaction;

pub use admin::{Admin, BrokerAddress, DecideError, Decided, MessagePlace, TransactionQuery};
pub use batching::{BatchReceipt, Batches, BatchingBuilder, BatchingProducer};
pub use builder::ClientBuilder;
pub use client::Client;
pub use consumer::{
    ConsumeFrom, Deliveries, Delivery, Expired, IntoVerdict, Lag, PullConsumer, PullConsumerBuilder, PushConsumer,
    PushConsumerBuilder, SeekTo, StreamBuilder, Verdict,
};
pub use error::{RequestError, SendError, StartError};
pub use escrowmq_common::body::{
    Act, Asked, DecisionInfo, GroupTransactions, Parked, TransactionAction, TransactionInfo, TransactionPage,
    TransactionState,
};
pub use events::{ConnectionEvent, ConnectionEvents, ServerKind};
#[cfg(feature = "redis")]
#[doc(inline)]
pub use idempotent::RedisStore;
#[cfg(feature = "sql")]
#[doc(inline)]
pub use idempotent::SqlStore;
#[doc(inline)]
pub use idempotent::{Idempotent, KeepError, MarkStore, MemoryStore, OnceError, OnceFuture};
pub use message::{Message, MessageExt};
#[cfg(feature = "redis")]
#[doc(inline)]
pub use outbox::RedisOutbox;
#[cfg(any(feature = "sql", feature = "redis"))]
#[doc(inline)]
pub use outbox::{AddError, OnFailed, OutboxQuery, OutboxRow, OutboxState, Relay, RelayBuilder, RelayStats};
#[cfg(feature = "sql")]
#[doc(inline)]
pub use outbox::{CommitError, Outbox, OutboxBuilder, OutboxDatabase};
#[doc(inline)]
pub use payload::{FromPayload, Json, PayloadError, Text, ToPayload, TypedFuture, typed};
pub use producer::{BatchResult, Producer, ProducerBuilder, Profile, SendResult, StoreLevel};
pub use queue::MessageQueue;
pub use request_reply::{NoReply, ReplyError};
#[cfg(unix)]
pub use spill::{
    FailedMessage, Receipt, Spill, SpillError, SpillStats, Spilled, SpillingProducer, SpillingProducerBuilder,
};
pub use stats::{ClientStats, ConsumerStats, Latency, ProducerStats, ServerAway};
#[cfg(feature = "sql")]
#[doc(inline)]
pub use transaction::barrier::{
    AbortCause, Barrier, BarrierBuilder, BarrierChecker, BarrierDatabase, CommittedInDb, LocalTransaction,
    RunInDbError, Swept,
};
#[doc(inline)]
pub use transaction::{
    Checker, Committed, Decision, Durability, Half, Member, Outcome, Router, Transaction, TransactionError,
    TransactionListener, TransactionProducer, TransactionProducerBuilder, TransactionResult, TransactionScope,
};
