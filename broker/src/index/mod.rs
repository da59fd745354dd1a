//! The state of the shard on disk: what the log means.
//!
//! One letter per table (see [`table`]). Rows are written to memory, and now and then all at once to RocksDB, one column
//! family **without a log of its own**: what is in its files is the state after some batch, and each batch carries the log
//! id that it applied up to. After a crash the index is older than the log by some batches, never torn, and the shard
//! applies the log from there again.
//!
//! ```text
//! apply --> layer in memory --(freeze)--> frozen layer --(log durable so far; one write, one flush)--> files of RocksDB
//!                  |                           |                                                            |
//! readers <--------+---------------------------+------------------------------------------------------------+
//! ```
//!
//! Promises: a [`Batch`](store::IndexBatch) becomes visible whole or not at all; rows read back are the rows written, or
//! an error that names the table. Leaves to others: what the rows mean (`shard::apply`), and when to
//! [spill](store::Index::spill): never before the log is durable up to what the index has applied.

mod batch;
mod cursor;
pub mod decision;
mod error;
pub mod format;
pub mod half;
pub mod history;
pub mod listing;
mod memory;
pub mod meta;
pub mod offset;
mod open;
pub mod pin;
pub mod producer;
pub mod queue;
mod reader;
pub mod store;
pub mod table;
#[cfg(test)]
mod tests;
pub mod timer;
pub mod verify;

pub use batch::IndexBatch;
pub use cursor::RowCursor;
pub use decision::DecisionRow;
pub use error::IndexError;
pub use half::HalfRow;
pub use open::open_read_only;
pub use producer::ProducerRow;
pub use queue::{EntryFlags, PageBuilder, QueueEntry};
pub use reader::{IndexFile, IndexReader, Row, Value, after_prefix};
pub use store::Index;
pub use timer::TimerRow;
