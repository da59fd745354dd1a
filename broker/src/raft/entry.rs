//! A Raft entry: its log id, what it holds, and where it lies in the log.

use std::fmt;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::impls::BasicNode;
use parking_lot::Mutex;

use super::room::Claim;
use super::{CommittedLeader, LogId, Payload, index_of, log_id};
use crate::shard::Completions;
use crate::terms::LogIndex;

/// A sealed batch on its way into the log, with those who wait for it.
///
/// The completions leave it when it is appended. A proposal that is dropped before that (this node does not lead)
/// answers them through [`Completions`]'s drop: nothing was stored.
pub(crate) struct Proposal {
    /// The batch in its final bytes; log, peers and tail cache share them.
    pub(crate) batch: Bytes,
    completions: Mutex<Option<Completions>>,
    /// Its claim to room in the log, until it is appended or dropped.
    claim: Mutex<Option<Claim>>,
}

impl Proposal {
    pub(crate) fn new(batch: Bytes, completions: Option<Completions>) -> Self {
        Self { batch, completions: Mutex::new(completions), claim: Mutex::new(None) }
    }

    /// With a claim to room in the log.
    pub(crate) fn with_claim(mut self, claim: Claim) -> Self {
        self.claim = Mutex::new(Some(claim));
        self
    }

    /// It is being appended: what it claimed is used.
    pub(crate) fn drop_claim(&self) {
        drop(self.claim.lock().take());
    }

    pub(crate) fn take_completions(&self) -> Option<Completions> {
        self.completions.lock().take()
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.batch.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where an entry's record lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Log position of the payload's first byte.
    pub(crate) payload: u64,
    /// Log position behind the record.
    pub(crate) end: u64,
}

/// An entry of the Raft log.
#[derive(Debug)]
pub(crate) struct LogEntry {
    leader: CommittedLeader,
    index: LogIndex,
    pub(crate) payload: Payload,
    /// Known once the entry was read from the log.
    pub(crate) extent: Option<Extent>,
}

impl LogEntry {
    pub(crate) fn from_log(term: u64, index: LogIndex, payload: Payload, extent: Extent) -> Self {
        Self { leader: CommittedLeader::new(term), index, payload, extent: Some(extent) }
    }

    pub(crate) fn term(&self) -> u64 {
        self.leader.term
    }

    pub(crate) fn index(&self) -> LogIndex {
        self.index
    }

    pub(crate) fn id(&self) -> LogId {
        log_id(self.term(), self.index)
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id(), self.payload)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeader;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        let (leader, index) = (*log_id.committed_leader_id(), index_of(&log_id));
        Self { leader, index, payload, extent: None }
    }

    fn log_id_parts(&self) -> (&Self::CommittedLeaderId, u64) {
        (&self.leader, self.index.get())
    }

    fn set_log_id(&mut self, new: LogId) {
        self.leader = *new.committed_leader_id();
        self.index = index_of(&new);
    }

    fn get_membership(&self) -> Option<openraft::Membership<u64, BasicNode>> {
        match &self.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        }
    }
}
