//! Keeps messages that could not be sent in a local folder, and sends them when brokers are back.
//!
//! ```text
//!  send --> a broker has it ----------------------------> Receipt::Stored
//!    |  brokers away, busy, no route, no answer
//!    |  or: one of its key waits already
//!    v
//!  writer (a thread): segment files, one flush for all that came together --> Receipt::Spilled
//!    |
//!    v
//!  drain (a task): pages of each topic, in order --> a broker has it: done
//!                                               `--> refused for good: the failure log
//! ```
//!
//! Promises: what was told to be [`Receipt::Spilled`] is sent, by this process or by the next one that opens the folder, or it is in
//! the failure log. Messages of a sharding key are sent in the order in which their sends were awaited. A message carries one unique
//! id in all attempts, and may be sent again: after an attempt that ended without an answer, after a kill between the answer and
//! the note of it, and after a power cut, which notes of what is done may not outlive. So it is stored at least once.
//!
//! Messages that wait for long keep no others' bytes: a segment of which at least half is done is moved, which means that the
//! rest of it is written to the current segment, flushed, and then deleted there. A process that dies in between leaves records twice,
//! and the next start knows them by their numbers.
//!
//! Where it is decided: [`format`], [`record`] and [`waiting`] are pure; [`store`] and [`segment`] have the files, [`writer`] their
//! thread. Left to others: attempts and their deadline are the producer's.

mod builder;
mod drain;
mod error;
mod failed;
mod format;
mod outlet;
mod producer;
mod receipt;
mod record;
mod segment;
mod store;
#[cfg(test)]
mod tests;
mod waiting;
mod writer;

pub use builder::{Spill, SpillingProducerBuilder};
pub use error::SpillError;
pub use failed::FailedMessage;
pub use producer::{SpillStats, SpillingProducer};
pub use receipt::{Receipt, Spilled};

/// Permissions of new files: the owner writes, the group reads. And of the folder.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Messages that may wait: each takes some hundred bytes of memory while its body is on disk.
const RECORDS_MAX: usize = 1_000_000;
