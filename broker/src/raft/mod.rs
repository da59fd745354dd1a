//! Agreement on the log, by `openraft`; nothing outside this folder names it.
//!
//! ```text
//! propose -> core -> log_store (append, flush) -> core (commit) -> state (apply) -> StateMachine
//! ```
//!
//! A [`Member`] is one replica of a group. A single broker is a group of one voter and runs this same code. The core, the
//! batcher and apply are tasks of one [`Executor`](crate::executor::Executor): a step from one to the next is no thread
//! switch, and the load of connections cannot delay them. `change.rs` changes who is in the group, `members.rs` tells it,
//! `figures.rs` says how it does, `pace.rs` holds back a member that catches up, `sole.rs` makes a group of one out of what is
//! left of a larger one.
//!
//! Promises: an entry is applied only when it is committed, and committed only when it is as durable as the flush mode
//! says; a proposal is told its index when it is about to enter the log, or dropped: then nothing was stored; leadership is
//! told only after everything that earlier leaders committed is applied.
//! Leaves to others: the bytes (`log`), what entries mean and who waits for them (the [`StateMachine`]), and which
//! proposals there is room for: openraft takes an append that fails for the end of its storage.

//!
//! # What openraft leaves to us
//!
//! Known of the version that is pinned, and how we keep it from mattering:
//!
//! | openraft | here | shown by |
//! | --- | --- | --- |
//! | panics when a purge overtakes apply (its issue 2116) | `member.rs` purges up to the applied state, and no further | `tests/guards.rs` |
//! | drops a proposal of a member that does not lead without a word | a callback that is dropped answers its callers | `tests/guards.rs`, `shard/cluster/guards.rs` |
//! | keeps a proposal that was taken before the lease was lost until there is a majority | the proposer's own patience | `shard/cluster/guards.rs` |
//! | gives a stream of appends the time between heartbeats | `network.rs` brings a patience of its own | `tests/guards.rs` |
//! | forgets at a restart that it heard a leader a moment ago | `serve.rs` votes for nobody for a lease | `tests/guards.rs` |
//! | a leader ends that has no snapshot for a member | `state.rs` has one always | `shard/cluster/guards.rs` |
//! | a follower ends whose append fails | `serve.rs` claims room before it hands entries over, and says no without it | `shard/cluster/guards.rs` |
//!
//! Its own suite for storages runs in `tests/suite.rs`, which names what of it is left out, and why.

#![warn(clippy::cast_possible_truncation, reason = "a number of the store that is cut is a number that is lost")]

mod change;
mod committed;
mod contacts;
mod counts;
mod entry;
mod figures;
mod leadership;
mod lease;
mod links;
mod log_store;
mod member;
mod members;
mod membership;
mod network;
mod office;
mod pace;
mod runtime;
mod serve;
mod sole;
mod state;
mod timing;
mod wire;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]
mod tests;

pub(crate) use change::ChangeError;
pub(crate) use committed::{CommittedEntry, Content, committed_entry};
pub(crate) use counts::Traffic;
pub(crate) use figures::Reach;
pub(crate) use leadership::Leadership;
pub(crate) use lease::Lease;
pub(crate) use links::{Lane, Link, Links, NoLinks};
pub(crate) use log_store::kind;
pub(crate) use member::{ALONE, Ground, Hold, Identity, Member, MemberError, Purger};
pub(crate) use members::{Members, Progress};
pub(crate) use office::Office;
pub(crate) use pace::Pace;
pub(crate) use serve::Lack;
#[cfg(test)]
pub(crate) use serve::Server;
pub(crate) use sole::{make_sole, members_at_end};
pub(crate) use state::StateMachine;

use entry::{LogEntry, Proposal};
use openraft::impls::leader_id_std;

use crate::terms::LogIndex;

openraft::declare_raft_types!(
    /// The types of our Raft groups.
    pub(crate) TypeConfig:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        Entry = LogEntry,
        AsyncRuntime = runtime::ShardRuntime,
);

/// The id of a log entry.
type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// The members of the group, with the id of the entry that made them so.
type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// The payload of an entry.
type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;

/// The leader of an entry: its term.
type CommittedLeader = <leader_id_std::LeaderId<u64, u64> as openraft::vote::RaftLeaderId>::Committed;

/// The index of a log id.
fn index_of(id: &LogId) -> LogIndex {
    LogIndex(id.index())
}

/// The log id of a term and an index.
fn log_id(term: u64, index: LogIndex) -> LogId {
    LogId::new(CommittedLeader::new(term), index.get())
}
