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

#![warn(clippy::cast_possible_truncation, reason = "a number of the store that is cut is a number that is lost")]

mod batch;
mod cursor;
pub(crate) mod decision;
mod error;
pub(crate) mod format;
pub(crate) mod half;
pub(crate) mod history;
pub(crate) mod listing;
mod memory;
pub(crate) mod meta;
pub(crate) mod offset;
mod open;
pub(crate) mod pin;
pub(crate) mod producer;
pub(crate) mod queue;
mod reader;
pub(crate) mod store;
pub(crate) mod table;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]
mod tests;
pub(crate) mod timer;
pub(crate) mod verify;

pub(crate) use batch::IndexBatch;
pub(crate) use decision::DecisionRow;
pub(crate) use error::IndexError;
pub(crate) use half::HalfRow;
pub(crate) use open::open_read_only;
pub(crate) use producer::ProducerRow;
pub(crate) use queue::{EntryFlags, PageBuilder, QueueEntry};
pub(crate) use reader::{IndexReader, Row, after_prefix};
pub(crate) use store::Index;
pub(crate) use timer::TimerRow;
