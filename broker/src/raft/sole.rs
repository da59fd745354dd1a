//! A log whose group is gone, or was left: its member becomes the only one.
//!
//! The member does what a leader of the whole group would do: it enters a term of its own, with its vote for itself, and appends a
//! membership that names it alone. Both are durable in that order, and either alone is harmless: a newer term is what every election
//! brings. Whoever calls this keeps the members of before away from this one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::Membership;
use openraft::impls::BasicNode;

use super::log_store::{kind, payload_of};
use super::members::{Members, members_applied};
use super::{StateMachine, StoredMembership, Vote, membership};
use crate::log::{Log, LogReader, NewRecord, RecordId};
use crate::terms::LogIndex;

/// Entries read at once, in bytes; at least one entry.
const READ_BYTES: u64 = 1 << 20;

/// The members as the end of the log has them: by the last membership in it, or by the one that was applied. `None` if there
/// never was one. They may not be committed. Reads what is not applied yet; blocks.
pub(crate) fn members_at_end(log: &LogReader, machine: &impl StateMachine) -> io::Result<Option<Members>> {
    let mut members = members_applied(machine)?;
    let end = log.last().map_or(LogIndex::ZERO, |last| last.index.next());
    let mut from = machine.applied().map_or(LogIndex::ZERO, |(_, index)| index.next()).max(log.first_index());
    while from < end {
        let records = log.read_entries(from, end, READ_BYTES)?;
        let Some(last) = records.last() else { break };
        from = last.index.next();
        for record in records.into_iter().filter(|record| record.kind == kind::MEMBERSHIP) {
            let openraft::EntryPayload::Membership(found) = payload_of(record)? else { continue };
            members = Some(Members::of(&StoredMembership::new(None, found), false));
        }
    }
    Ok(members)
}

/// Makes `node` the only member of the group whose log this is. Durable when it returns; after an error, and after a crash, it can
/// be done again. Blocks.
pub(crate) fn make_sole(log: &Log, node: u64) -> io::Result<RecordId> {
    let no_log = || io::Error::new(io::ErrorKind::NotFound, "the log is empty: there is nothing to go on from");
    let last = log.last().or(log.purged()).ok_or_else(no_log)?;
    let voted = log.vote().map(|bytes| membership::decode_vote(&bytes)).transpose()?;
    let term = voted.map_or(0, |vote| vote.leader_id.term).max(last.term) + 1;
    // Whether it was written the wait below says.
    log.save_vote(membership::encode_vote(&Vote::new(term, node)), |_| ());
    // Without an address, like every broker alone.
    let members = BTreeMap::from([(node, BasicNode { addr: String::new() })]);
    let alone = Membership::new(vec![BTreeSet::from([node])], members);
    let alone = alone.map_err(|error| io::Error::other(error.to_string()))?;
    let payload = Bytes::from(membership::encode(&alone));
    let entry = RecordId { term, index: last.index.next() };
    let record = NewRecord { term, index: entry.index, kind: kind::MEMBERSHIP, payload, crc: None };
    log.append(vec![record], |_| ()).map_err(io::Error::other)?;
    log.sync_wait()?;
    Ok(entry)
}
