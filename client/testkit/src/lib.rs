//! A nameserver and a broker inside a test's process: real ones, with a clock that a test moves and faults that it causes.
//!
//! ```
//! use std::time::Duration;
//!
//! use escrowmq_client::Message;
//! use escrowmq_testkit::Kit;
//!
//! #[tokio::main(flavor = "current_thread")] // or `#[tokio::test]`
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let kit = Kit::builder().topic("Reminders", 2).start().await?;
//!     let client = kit.client().await?;
//!     let producer = client.producer("reminders").start().await?;
//!     producer.send(Message::new("Reminders", "pay!").key("order-17").delay_level(9)).await?;
//!     kit.advance(Duration::from_secs(4 * 60)).await;
//!     kit.assert_never_visible("Reminders", "order-17").await;
//!     kit.advance(Duration::from_secs(60)).await;
//!     kit.assert_delivered_once("Reminders", "order-17").await;
//!     Ok(())
//! }
//! ```
//!
//! * **Time**: [`advance`](Kit::advance) makes checks, delays, timers and retries due at once; [`now`](Kit::now) is the broker's time.
//! * **Faults**: [`drop_next_end_transaction`](Kit::drop_next_end_transaction), [`lose_next_answer`](Kit::lose_next_answer),
//!   [`break_connections`](Kit::break_connections), [`kill_broker`](Kit::kill_broker) and [`restart`](Kit::restart).
//! * **Looks and assertions**: [`messages`](Kit::messages), [`open_transactions`](Kit::open_transactions),
//!   [`assert_delivered_once`](Kit::assert_delivered_once), [`assert_never_visible`](Kit::assert_never_visible) and others.
//!
//! Real are the broker with its log and index, the nameserver, and TCP between them and the code under test, which is a client like any
//! other, in any language. What differs from a broker in production:
//!
//! * Its folder is temporary. Answers do not wait for the device (`flushDiskType` is `ASYNC_FLUSH`): set
//!   `.setting("flushDiskType", "SYNC_FLUSH")` where the code under test looks at the level that a receipt names. A power cut cannot be
//!   tested here: [`kill_broker`](Kit::kill_broker) ends the broker, not the machine.
//! * A nearly full disk is no reason to refuse messages.
//! * Connections go through a proxy in this process, which causes the faults. It costs time: measure nothing here.
//!
//! The broker brings RocksDB: the first build takes minutes and needs a C++ compiler and libclang. Put this package under
//! `[dev-dependencies]`, so that no program has it.

mod builder;
mod error;
mod faults;
mod host;
mod inspect;
mod kit;
mod proxy;

pub use builder::KitBuilder;
pub use error::StartError;
pub use faults::Call;
pub use kit::{Fault, Kit};
