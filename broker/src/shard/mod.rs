//! The one write path of a broker.
//!
//! ```text
//! handler -> Command -> intake (batch) -> log (append, flush) -> apply -> Outcome -> completion -> response
//!                                                                  |
//!                                                                  +-> index, queue ends, waiting pulls
//! ```
//!
//! Promises: nothing is changed but by a [`Command`] in the log; [`apply`] is deterministic; a completion is called
//! exactly once, after the outcome is as durable as the flush mode says and visible to readers; within one queue the
//! order of the log is the order of the queue.
//!
//! Left to others: the bytes on disk (`log`, `index`), agreement (`raft`), what a request means (`server`), and when
//! something is due (`transaction`, `schedule`, `delivery`).

mod ahead;
mod applier;
mod arrivals;
mod base;
mod batch;
mod codec;
mod command;
mod completion;
mod group;
mod intake;
mod lost;
mod message;
mod open;
mod outcome;
mod producers;
mod quarantine;
mod rebuild;
mod topic;
mod transactions;

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;

pub mod apply;
pub mod executor;
mod handle;
mod locate;
mod read;

pub use applier::{Applier, FlushError};
pub use arrivals::{Arrivals, Ticket, Wake};
pub use base::{find_base, make_base, remove_base};
pub use batch::{Batch, HEAD_BYTES, OpenBatch};
pub use command::{
    Checked, CheckedHalf, Command, Extend, GiveUp, Lock, Moved, OffsetCommit, Once, Park, Prepare, Publish, Resume,
    Roll, Settle,
};
pub(crate) use completion::fail_all;
pub use completion::{Completion, Completions, SubmitError};
pub use group::Groups;
pub use handle::{Shard, ShardSettings};
pub use intake::{Admission, Full, Intake, ReadyBatch};
pub use locate::Waiting;
pub use lost::{GiveUpError, Lost};
pub use message::{Message, MessageList, Unit, WriteUnit};
pub use open::{OpenShard, ShardError};
pub use outcome::{Outcome, Prepared, Published, Refusal, Settled, SettledMember};
pub use producers::{ProducerGroup, Producers};
pub use quarantine::{QUARANTINE, Quarantine, QuarantineError, QuarantinedEntry};
pub use read::{Located, QueueEntries, ReadError};
pub use rebuild::{RebuildError, rebuild_index};
pub use topic::{Queue, Topic, Topics};
pub use transactions::HalfQuery;
