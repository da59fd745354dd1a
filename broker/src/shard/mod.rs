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

#![warn(clippy::cast_possible_truncation, reason = "a number of the store that is cut is a number that is lost")]

mod agreed;
mod ahead;
mod applier;
mod arrivals;
mod awaiting;
mod base;
mod batch;
mod codec;
mod command;
mod completion;
mod counters;
mod durations;
mod give_up;
mod group;
mod half_queries;
mod intake;
mod lost;
mod message;
mod outcome;
mod producers;
mod proposer;
mod quarantine;
mod rebuild;
mod shared;
mod topic;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]
mod cluster;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]
mod cuts;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]
mod tests;

pub(crate) mod apply;
mod handle;
mod locate;
mod read;

pub(crate) use agreed::Agreed;
pub(crate) use applier::{Applier, FlushError};
pub(crate) use arrivals::Ticket;
pub(crate) use base::{INDEX, find_base, make_base, remove_base, restore as restore_base};
pub(crate) use batch::Batch;
#[cfg(test)]
pub(crate) use batch::OpenBatch;
pub(crate) use command::{
    Checked, CheckedHalf, Command, Extend, GiveUp, Lock, Moved, OffsetCommit, Once, Park, Prepare, Publish, Resume,
    Roll, Settings, Settle,
};
pub(crate) use completion::{Completion, SubmitError};
pub(crate) use give_up::GiveUpError;
pub(crate) use half_queries::HalfQuery;
pub(crate) use handle::Shard;
pub(crate) use intake::{Admission, Full};
pub(crate) use locate::Waiting;
pub(crate) use message::{Message, MessageList, Unit, WriteUnit};
pub(crate) use outcome::{Outcome, Prepared, Published, Refusal, Settled, SettledMember};
pub(crate) use producers::ProducerGroup;
pub(crate) use proposer::Proposer;
pub(crate) use quarantine::{QUARANTINE, Quarantine, QuarantineError, QuarantinedEntry};
pub(crate) use read::ReadError;
pub(crate) use rebuild::{RebuildError, rebuild_index};
pub(crate) use topic::{Queue, Topic, Topics};
