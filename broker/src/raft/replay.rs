//! Records of the log as entries to apply, for tools that read a log without taking part in a group.

use std::io;

use bytes::Bytes;
use openraft::EntryPayload;

use super::log_store::entry_of;
use super::membership;
use crate::log::Record;
use crate::shard::apply::{CommittedEntry, Content};

/// The entry that a record holds. Whether it is committed is for the caller to know.
pub(crate) fn committed_entry(record: Record) -> io::Result<CommittedEntry> {
    let entry = entry_of(record)?;
    let id = entry.id();
    let extent = entry.extent.ok_or_else(|| io::Error::other("an entry that was not read from the log"))?;
    let content = match &entry.payload {
        EntryPayload::Blank => Content::Blank,
        EntryPayload::Normal(proposal) => Content::Batch(proposal.batch.clone()),
        EntryPayload::Membership(members) => Content::Membership(Bytes::from(membership::encode_stored(&id, members))),
    };
    Ok(CommittedEntry {
        term: entry.term(),
        index: entry.index(),
        payload_position: extent.payload,
        end: extent.end,
        content,
        completions: None,
    })
}
