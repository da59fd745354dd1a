//! Agreement on the log, by `openraft`; nothing outside this folder names it.
//!
//! ```text
//! intake -> propose -> core -> log_store (append, flush) -> core (commit) -> state (apply) -> completions
//! ```
//!
//! A single broker is a Raft group of one voter and runs this same code. The core, the batcher and apply are tasks of the
//! shard's executor ([`crate::shard::executor`]): a step from one to the next is no thread switch, and the load of
//! connections cannot delay them.
//!
//! Promises: an entry is applied only when it is committed, and committed only when it is as durable as the flush mode
//! says; a proposal's completions are called exactly once. Leaves to others: the bytes (`log`), the meaning (`shard`).

mod entry;
mod log_store;
mod membership;
mod network;
mod node;
mod replay;
mod room;
mod runtime;
mod state;

pub(crate) use log_store::kind;
pub(crate) use node::{Node, Purger, StartError};
pub(crate) use replay::committed_entry;

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

/// The log id of a term and an index.
/// The index of a log id.
fn index_of(id: &LogId) -> LogIndex {
    LogIndex(id.index())
}

fn log_id(term: u64, index: LogIndex) -> LogId {
    LogId::new(CommittedLeader::new(term), index.get())
}
