//! The bytes of memberships and votes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::Membership;
use openraft::impls::BasicNode;
use serde::{Deserialize, Serialize};

use super::{LogId, StoredMembership, Vote, log_id};
use crate::terms::{Cursor, LogIndex, Malformed, decode_cold, encode_cold};

#[derive(Serialize, Deserialize)]
struct Members {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, String>,
}

#[derive(Serialize, Deserialize)]
struct StoredMembers {
    term: u64,
    index: u64,
    members: Members,
}

fn members_of(membership: &Membership<u64, BasicNode>) -> Members {
    Members {
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
    }
}

fn membership_of(members: Members) -> io::Result<Membership<u64, BasicNode>> {
    let nodes: BTreeMap<u64, BasicNode> =
        members.nodes.into_iter().map(|(id, address)| (id, BasicNode { addr: address })).collect();
    Membership::new(members.configs, nodes).map_err(|error| invalid(&error.to_string()))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("membership or vote: {why}"))
}

pub(super) fn encode(membership: &Membership<u64, BasicNode>) -> Vec<u8> {
    encode_cold(&members_of(membership))
}

pub(super) fn decode(bytes: &[u8]) -> io::Result<Membership<u64, BasicNode>> {
    membership_of(decode_cold(bytes).map_err(|why| invalid(&why))?)
}

/// The members and the entry that made them so, as the state machine keeps them.
pub(super) fn encode_stored(id: &LogId, membership: &Membership<u64, BasicNode>) -> Vec<u8> {
    let term = id.committed_leader_id().term;
    encode_cold(&StoredMembers { term, index: id.index(), members: members_of(membership) })
}

pub(super) fn decode_stored(bytes: &[u8]) -> io::Result<StoredMembership> {
    let stored: StoredMembers = decode_cold(bytes).map_err(|why| invalid(&why))?;
    Ok(StoredMembership::new(Some(log_id(stored.term, LogIndex(stored.index))), membership_of(stored.members)?))
}

pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Vec::with_capacity(17);
    out.extend_from_slice(&vote.leader_id.term.to_be_bytes());
    out.extend_from_slice(&vote.leader_id.voted_for.to_be_bytes());
    out.push(u8::from(vote.committed));
    out
}

pub(super) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    read_vote(&mut Cursor::new(bytes)).map_err(|error| invalid(&error.to_string()))
}

pub(super) fn read_vote(cursor: &mut Cursor<'_>) -> Result<Vote, Malformed> {
    let (term, node) = (cursor.u64("term")?, cursor.u64("node")?);
    let committed = cursor.u8("committed")? != 0;
    Ok(if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}
