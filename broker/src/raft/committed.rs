//! Committed entries, as a state machine gets them and as tools read them from a log without taking part in a group.

use std::io;

use bytes::Bytes;
use openraft::EntryPayload;

use super::entry::LogEntry;
use super::log_store::entry_of;
use super::membership;
use crate::log::Record;
use crate::terms::{LogIndex, Position};

/// The payload of an entry.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// The bytes that were proposed.
    Proposed(Bytes),
    /// Nothing: a leader's first entry.
    Blank,
    /// A membership of the group, in this folder's own encoding: the state machine keeps it and hands it back.
    Membership(Bytes),
}

/// A committed entry on its way into the state.
#[derive(Debug)]
pub(crate) struct CommittedEntry {
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: LogIndex,
    /// Log position of the payload's first byte.
    pub payload_position: Position,
    /// Log position after the record.
    pub end: Position,
    /// The payload.
    pub content: Content,
}

impl CommittedEntry {
    /// From an entry that was read from the log.
    pub(super) fn of(entry: &LogEntry) -> io::Result<Self> {
        let place = entry.place.ok_or_else(|| io::Error::other("an entry that was not read from the log"))?;
        let content = match &entry.payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Normal(proposal) => Content::Proposed(proposal.payload.clone()),
            EntryPayload::Membership(members) => {
                Content::Membership(Bytes::from(membership::encode_stored(&entry.id(), members)))
            }
        };
        Ok(Self { term: entry.term(), index: entry.index(), payload_position: place.payload, end: place.end, content })
    }

    /// Bytes of what was proposed; 0 for other entries.
    pub(super) fn proposed_bytes(&self) -> usize {
        match &self.content {
            Content::Proposed(payload) => payload.len(),
            Content::Blank | Content::Membership(_) => 0,
        }
    }
}

/// The entry that a record holds. The caller knows whether it is committed.
pub(crate) fn committed_entry(record: Record) -> io::Result<CommittedEntry> {
    CommittedEntry::of(&entry_of(record)?)
}
