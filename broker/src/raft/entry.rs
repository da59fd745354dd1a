//! A Raft entry: its log id, its payload, and its place in the log.

use std::fmt;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::impls::BasicNode;
use parking_lot::Mutex;

use super::{CommittedLeader, LogId, Payload, index_of, log_id};
use crate::log::{Record, RoomClaim};
use crate::terms::{LogIndex, Position};

/// Called with the index of a proposal that is about to enter the log. Dropped without a call, it says that nothing was
/// stored and nothing will be.
pub(crate) type OnAppend = Box<dyn FnOnce(LogIndex) + Send>;

/// Bytes on their way into the log, and who is told their index.
pub(crate) struct Proposal {
    /// The final bytes; log, peers and tail cache share them.
    pub(super) payload: Bytes,
    on_append: Mutex<Option<OnAppend>>,
}

impl Proposal {
    /// Bytes proposed here.
    pub(super) fn new(payload: Bytes, on_append: OnAppend) -> Self {
        Self { payload, on_append: Mutex::new(Some(on_append)) }
    }

    /// Bytes that are in the log already, or come from another member.
    pub(super) fn stored(payload: Bytes) -> Self {
        Self { payload, on_append: Mutex::new(None) }
    }

    /// It is being appended under this index.
    pub(super) fn appending(&self, index: LogIndex) {
        let on_append = self.on_append.lock().take();
        if let Some(on_append) = on_append {
            on_append(index);
        }
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.payload.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where an entry's record lies, the same in the log of each member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the record begins.
    pub(super) position: Position,
    /// Log position of the payload's first byte.
    pub(super) payload: Position,
    /// Log position after the record.
    pub(super) end: Position,
    /// The record's checksum, which covers all records before it.
    pub(super) crc: u32,
}

impl Place {
    /// Where a record lies.
    pub(super) fn of(record: &Record) -> Self {
        Self { position: record.position, payload: record.payload_position(), end: record.end(), crc: record.crc }
    }
}

/// An entry of the Raft log.
#[derive(Debug)]
pub(crate) struct LogEntry {
    leader: CommittedLeader,
    index: LogIndex,
    pub(super) payload: Payload,
    /// Known if the entry was read from the log of this member, or of the leader that sent it. Unknown while it is proposed.
    pub(super) place: Option<Place>,
    /// Room in the log of a member that got the entry from its leader; held until the entry is appended or dropped.
    pub(super) room: Option<RoomClaim>,
}

impl LogEntry {
    /// An entry of a log.
    pub(super) fn stored(term: u64, index: LogIndex, payload: Payload, place: Place) -> Self {
        Self { leader: CommittedLeader::new(term), index, payload, place: Some(place), room: None }
    }

    pub(super) fn term(&self) -> u64 {
        self.leader.term
    }

    pub(super) fn index(&self) -> LogIndex {
        self.index
    }

    pub(super) fn id(&self) -> LogId {
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
        Self { leader, index, payload, place: None, room: None }
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
