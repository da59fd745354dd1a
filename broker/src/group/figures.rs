//! How a member and its group do, in numbers, for pages and tools.

use std::sync::Arc;
use std::time::Duration;

use super::care::{CAUGHT_UP, IN_CONTACT};
use super::clocks::Asked;
use super::status::{self, Role};
use super::{Inner, Several};
use crate::raft::{Reach, Traffic};
use crate::terms::{LogIndex, Position};

/// Another member.
pub(crate) struct OtherMember {
    /// Its seat.
    pub(crate) seat: String,
    /// Its Raft id.
    pub(crate) node: u64,
    /// Where other members reach it.
    pub(crate) address: String,
    /// What only a leader knows of it.
    pub(crate) followed: Option<Followed>,
    /// By how many milliseconds its wall clock is ahead, if it said so when it was asked last.
    pub(crate) clock_ahead: Option<i64>,
}

/// What a leader knows of another member.
pub(crate) struct Followed {
    /// Entries of the leader's log that it is not known to have.
    pub(crate) lag_entries: u64,
    /// Their bytes; if some of them are purged, those that are left.
    pub(crate) lag_bytes: u64,
    /// Where the entries that it is known to have end.
    pub(crate) acknowledged: Position,
    /// Whether it answered within moments.
    pub(crate) in_contact: bool,
    /// Whether it also lacks no more than what it gets within a moment.
    pub(crate) in_sync: bool,
    /// What was sent to it, if anything.
    pub(crate) traffic: Option<Arc<Traffic>>,
    /// Bytes of it in the last second.
    pub(crate) sent_per_second: u64,
}

/// See the module.
pub(crate) struct Figures {
    /// Whether this member leads. A broker that is alone does.
    pub(crate) leads: bool,
    /// The other members, in the order of their ids.
    pub(crate) others: Vec<OtherMember>,
    /// The members that vote.
    pub(crate) voters: u64,
    /// The members without a vote.
    pub(crate) learners: u64,
    /// Voters that did not answer the leader within moments; only a leader knows.
    pub(crate) voters_out_of_reach: Option<u64>,
    /// The address of the leader, if another member leads.
    pub(crate) followed_leader: Option<String>,
    /// How far this member is.
    pub(crate) reach: Reach,
    /// Bytes of its log behind the last entry that it knows to be committed.
    pub(crate) uncommitted_bytes: u64,
    /// Where that entry ends; `None` if it is purged.
    pub(crate) committed_end: Option<Position>,
    /// Terms in which it has seen a leader, since start.
    pub(crate) leaders_seen: u64,
    /// For how long it has known of no majority.
    pub(crate) majority_silence: Duration,
    /// For how long it has heard of no leader. A leader does not hear itself.
    pub(crate) leader_silence: Duration,
    /// Bytes that leaders sent in the last second.
    pub(crate) received_per_second: u64,
    /// Handshakes of other members that were refused, since start.
    pub(crate) handshakes_refused: u64,
}

pub(super) fn figures(inner: &Inner) -> Figures {
    let (status, member) = (status::status(inner), &inner.member);
    let (reach, end) = (member.reach(), inner.log.end());
    // An entry that cannot be read is a matter of `fsck`; the figure is the smaller one then.
    let end_of = |index: LogIndex| inner.log.end_of(index).ok().flatten();
    let asked = inner.several.as_ref().map(|several: &Several| several.asked.lock().clone()).unwrap_or_default();
    let others: Vec<_> = status
        .members
        .iter()
        .filter(|other| other.node != inner.node)
        .map(|other| OtherMember {
            seat: other.seat.clone(),
            node: other.node,
            address: other.address.clone(),
            followed: status.last.map(|last| {
                let acknowledged = other.matched.and_then(end_of);
                let lag_entries =
                    other.matched.map_or(last.get() + 1, |matched| last.get().saturating_sub(matched.get()));
                let in_contact = other.contact.is_some_and(|ago| ago < IN_CONTACT);
                Followed {
                    lag_entries,
                    lag_bytes: end
                        .get()
                        .saturating_sub(acknowledged.unwrap_or_else(|| inner.log.first_position()).get()),
                    acknowledged: acknowledged.unwrap_or_default(),
                    in_contact,
                    in_sync: in_contact && lag_entries <= CAUGHT_UP,
                    traffic: member.traffic(other.node),
                    sent_per_second: member.sent_per_second(other.node),
                }
            }),
            clock_ahead: asked.get(&other.node).and_then(|asked| match asked {
                Asked::Ahead(ahead) => Some(*ahead),
                Asked::Silent => None,
            }),
        })
        .collect();
    let is_voter = |node: u64| status.members.iter().any(|other| other.node == node && other.role != Role::Learner);
    let is_lost = |other: &&OtherMember| {
        is_voter(other.node) && other.followed.as_ref().is_some_and(|followed| !followed.in_contact)
    };
    let voters = status.members.iter().filter(|member| member.role != Role::Learner).count();
    let leader = status.members.iter().find(|other| other.role == Role::Leader && other.node != inner.node);
    let committed_end = end_of(reach.committed);
    Figures {
        leads: inner.several.is_none() || member.leadership().borrow().led().is_some(),
        voters: voters as u64,
        learners: (status.members.len() - voters) as u64,
        voters_out_of_reach: status.last.map(|_| others.iter().filter(is_lost).count() as u64),
        followed_leader: leader.map(|leader| leader.address.clone()),
        others,
        reach,
        uncommitted_bytes: committed_end.map_or(0, |committed| end.get().saturating_sub(committed.get())),
        committed_end,
        leaders_seen: member.leaders_seen(),
        majority_silence: member.majority_silence(),
        leader_silence: member.leader_silence(),
        received_per_second: member.received_per_second(),
        handshakes_refused: inner.several.as_ref().map_or(0, |several| several.peers.counts().refused),
    }
}
