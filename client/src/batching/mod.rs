//! A producer that gathers single messages into batches.
//!
//! ```text
//!  enqueue --> window (messages, bytes; waits for room) --> lane of the topic and key --> a batch at a time --> receipts
//! ```
//!
//! Promises: what is in flight is bounded, and an enqueue waits rather than taking more; each message has a receipt of its own, which
//! ends; messages of a sharding key are stored in the order in which they were enqueued. A lane that has nothing in flight sends at
//! once; what comes meanwhile goes together. [`lanes`] decides and is pure; [`sending`] sends.
//!
//! Left to others: attempts, deadlines and the unique id are those of the producer inside, and so is a spill.

mod lanes;
mod producer;
mod sending;
mod window;

pub use producer::{BatchReceipt, BatchingBuilder, BatchingProducer};
pub use sending::Batches;
pub(crate) use sending::{sealed, send_each};
