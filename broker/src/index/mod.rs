//! The state of the shard on disk: what the log means.
//!
//! One RocksDB column family, one letter per table (see [`table`]), **without RocksDB's own log**: whatever RocksDB has
//! flushed is a prefix of our write batches, and each batch carries the log id that it applied up to. After a crash the
//! index is older than the log by some batches, never torn, and the shard applies the log from there again.
//!
//! Promises: a [`Batch`](store::IndexBatch) becomes visible whole or not at all; rows read back are the rows written, or
//! an error that names the table. Leaves to others: what the rows mean (`shard::apply`), and when to
//! [flush](store::Index::flush): never before the log is durable up to what the index has applied.

pub mod decision;
pub mod format;
pub mod half;
pub mod meta;
pub mod offset;
pub mod pin;
pub mod queue;
pub mod store;
pub mod table;
pub mod timer;
pub mod verify;

pub use decision::DecisionRow;
pub use half::HalfRow;
pub use pin::PinOwner;
pub use queue::{EntryFlags, PageBuilder, QueueEntry};
pub use store::{Index, IndexBatch, IndexError};
pub use timer::TimerRow;
