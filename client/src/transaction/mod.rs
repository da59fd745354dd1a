//! Transactional messages: stored as halves, settled by what the local transaction decided.
//!
//! ```text
//!  half -> broker               (only full success goes on)
//!  local transaction            -> Commit | Rollback | Unknown | InProgress
//!  decision -> broker           (our broker: awaited and repeated until certain; others: one way)
//!  later, if the broker heard nothing certain:
//!  check <- broker, on any connection of any producer of the group
//!  listener looks the local transaction up -> the same decision -> broker
//! ```
//!
//! Promises: the local transaction runs only after the broker holds the half at its full level, and the broker knows whom
//! to ask before the half is there; a transaction of several messages is committed only if all of them are known to be
//! stored; a panic in the listener means [`Decision::Unknown`] and costs nobody else anything; an unconfirmed decision is an
//! error that says so, never a silent success; what is dropped is never rolled back, but left to the check.
//!
//! Left to others: what the local transaction is, and remembering it: the listener must be able to answer a check after a
//! restart. First decision wins at the broker, so a check that overtakes a decision does no harm if both say the same.
//!
//! Inside, `engine` sends halves, tells decisions and answers checks; `open` is one transaction and keeps the rule of when
//! it may be committed; the styles below are thin layers over both.
//!
//! # Styles
//!
//! A **listener**, as in Java, runs the local transaction and answers checks:
//!
//! ```no_run
//! # use escrowmq_client::{Client, Decision, Half, Message, MessageExt, TransactionListener};
//! struct Orders;
//!
//! impl TransactionListener for Orders {
//!     async fn execute_local_transaction(&self, message: &Message, half: &Half) -> Decision {
//!         match write_order(message.body(), &half.transaction_id).await {
//!             Ok(()) => Decision::Commit,
//!             Err(_) => Decision::Unknown, // it may be written all the same: the check finds out
//!         }
//!     }
//!
//!     async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
//!         match is_written(message.transaction_id().unwrap_or_default()).await {
//!             Some(true) => Decision::Commit,
//!             Some(false) => Decision::Rollback,
//!             None => Decision::Unknown, // the database does not answer
//!         }
//!     }
//! }
//! # async fn write_order(_: &[u8], _: &str) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn is_written(_: &str) -> Option<bool> { None }
//!
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let producer = client.transaction_producer("orders", Orders).topics(["Orders"]).start().await?;
//! let result = producer.send(Message::new("Orders", "order 17").key("order-17")).await?;
//! println!("{:?}", result.outcome);
//! # Ok(())
//! # }
//! ```
//!
//! A **closure** says yes by `Ok` and no by `Err`; a panic or a dropped future leaves it to the check:
//!
//! ```no_run
//! # use escrowmq_client::{Checker, Client, Decision, Message, MessageExt, TransactionError};
//! # async fn write_order(_: &str) -> Result<u64, std::io::Error> { Ok(17) }
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! # let checker = Checker::new(|_: MessageExt| async { Decision::Unknown });
//! let producer = client.transaction_producer("orders", checker).topics(["Orders"]).start().await?;
//! let ran = producer
//!     .run(Message::new("Orders", "order 17"), |transaction| async move {
//!         write_order(transaction.id()).await // the database remembers the id, for the check
//!     })
//!     .await;
//! match ran {
//!     Ok(committed) => println!("order {} is out: {:?}", committed.value, committed.outcome),
//!     Err(TransactionError::Aborted { error, .. }) => println!("no order, no message: {error}"),
//!     Err(TransactionError::Half(error)) => println!("no message, so the closure did not run: {error}"),
//!     Err(TransactionError::Unresolved { .. }) => println!("the order is written; the check will let the message out"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A **handle** is decided wherever it suits, and keeps its time while it is held:
//!
//! ```no_run
//! # use escrowmq_client::{Message, TransactionProducer};
//! # async fn write_order(_: &str) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn run(producer: TransactionProducer) -> Result<(), Box<dyn std::error::Error>> {
//! let transaction = producer.prepare(Message::new("Orders", "order 17")).await?;
//! transaction.keep_alive(std::time::Duration::from_secs(60)).await?;
//! match write_order(transaction.id()).await {
//!     Ok(()) => transaction.commit().await?,
//!     Err(_) => transaction.rollback().await?,
//! };
//! # Ok(())
//! # }
//! ```
//!
//! A **barrier**, with the features `sqlite`, `postgres` and `mysql`, runs a closure in a transaction of your own database and
//! answers the checks from a row there, so that there is no check code to write: `run_in_db`, in the module `barrier`.
//!
//! **Several messages**, on several topics of one broker group, in one transaction (EscrowMQ only); the listener is asked
//! once, about the first one:
//!
//! ```no_run
//! # use escrowmq_client::{Message, TransactionError, TransactionProducer};
//! # async fn run(producer: TransactionProducer) -> Result<(), Box<dyn std::error::Error>> {
//! let transaction = producer.begin();
//! transaction.prepare(Message::new("Orders", "order 17")).await?;
//! match transaction.prepare(Message::new("Invoices", "invoice of order 17")).await {
//!     Ok(_) => transaction.commit().await?,
//!     // The topics live on different broker groups: nothing was stored for the invoice, and the order is still open.
//!     Err(TransactionError::OtherBrokerGroup { .. }) => transaction.rollback().await?,
//!     // Whatever it was, an early return leaves the order to the check.
//!     Err(error) => return Err(error.into()),
//! };
//! # Ok(())
//! # }
//! ```
//!
//! A **router** gives each topic or tag a listener of its own. A client may have producers of several groups besides:
//!
//! ```no_run
//! # use escrowmq_client::{Checker, Client, Decision, MessageExt, Router};
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! # let orders = Checker::new(|_: MessageExt| async { Decision::Unknown });
//! # let (refunds, stock) = (orders, orders);
//! let router = Router::new().on("Orders", orders).on_tag("Orders", "refunded", refunds);
//! let shop = client.transaction_producer("shop", router).topics(["Orders"]).start().await?;
//! let warehouse = client.transaction_producer("warehouse", stock).topics(["Stock"]).start().await?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "sql")]
pub mod barrier;
mod builder;
mod check;
mod decision;
mod engine;
mod error;
mod handle;
mod listener;
mod open;
mod orphans;
mod producer;
mod router;
mod running;
mod tell;

pub use builder::TransactionProducerBuilder;
pub use decision::{Decision, Durability, Member, Outcome};
pub use error::TransactionError;
pub use handle::{Transaction, TransactionScope};
pub use listener::{Checker, TransactionListener};
pub use producer::{Committed, TransactionProducer, TransactionResult};
pub use router::Router;

pub use crate::producer::Half;
