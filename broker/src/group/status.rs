//! The group as one member sees it, and the hand-over of its leadership.

use std::io;
use std::time::Duration;

use super::Inner;
use super::care::{IN_CONTACT, seat_of};
use super::door::seat_name;
use crate::raft::Leadership;
use crate::terms::LogIndex;

/// A member that leads, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its Raft id.
    pub(crate) node: u64,
    /// Its seat.
    pub(crate) seat: String,
    /// Where other members reach it, as `host:port`. Empty for a broker alone.
    pub(crate) address: String,
}

/// What a member is to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It gets the log and has no vote.
    Learner,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberStatus {
    /// Its Raft id.
    pub(crate) node: u64,
    /// Its seat.
    pub(crate) seat: String,
    /// Where other members reach it.
    pub(crate) address: String,
    /// What it is.
    pub(crate) role: Role,
    /// The last entry that it is known to have; known to the leader alone.
    pub(crate) matched: Option<LogIndex>,
    /// How long ago a request was sent that it answered; known to the leader alone.
    pub(crate) contact: Option<Duration>,
}

/// The group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupStatus {
    /// Its name.
    pub(crate) name: String,
    /// The seat of the member that says this.
    pub(crate) seat: String,
    /// Its Raft id.
    pub(crate) node: u64,
    /// Its term.
    pub(crate) term: u64,
    /// The group's incarnation; none for a broker that has always been alone.
    pub(crate) incarnation: Option<u64>,
    /// The last entry of the leader's log; known to the leader alone.
    pub(crate) last: Option<LogIndex>,
    /// Whether a change of the voters is under way.
    pub(crate) is_joint: bool,
    /// All members, in the order of their ids.
    pub(crate) members: Vec<MemberStatus>,
}

/// Why the leadership was not handed over. A retry is safe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandOverError {
    /// Only the leader can.
    #[error("this member does not lead the group: ask its leader")]
    NotLeading,
    /// There is nobody.
    #[error("no other voter of the group {}answers: the leadership stays here", to.as_ref().map(|seat| format!("at the seat '{seat}' ")).unwrap_or_default())]
    Nobody {
        /// The seat that was named.
        to: Option<String>,
    },
    /// The member has ended.
    #[error("the leadership cannot be handed over: {0}")]
    Ended(io::Error),
}

fn leader_of(inner: &Inner, seen: Leadership) -> Option<u64> {
    match seen {
        Leadership::Leading { .. } => Some(inner.node),
        Leadership::Following { leader, .. } => leader,
    }
}

fn named(inner: &Inner, node: u64, address: &str) -> Leader {
    let seat = if address.is_empty() && node == inner.node { inner.seat.clone() } else { seat_name(address) };
    Leader { node, seat, address: seat_of(address).map(|seat| seat.address()).unwrap_or_default() }
}

#[cfg(test)]
pub(super) fn leader(inner: &Inner) -> Option<Leader> {
    let node = leader_of(inner, *inner.member.leadership().borrow())?;
    let members = inner.member.members();
    let members = members.borrow();
    members.addresses.get(&node).map(|address| named(inner, node, address))
}

pub(super) fn status(inner: &Inner) -> GroupStatus {
    let (seen, members) = (*inner.member.leadership().borrow(), inner.member.members().borrow().clone());
    let leader = leader_of(inner, seen);
    let progress = inner.member.progress();
    let of = |(node, address): (&u64, &String)| {
        let Leader { node, seat, address } = named(inner, *node, address);
        let role = match (leader == Some(node), members.voters.contains(&node)) {
            (true, _) => Role::Leader,
            (false, true) => Role::Voter,
            (false, false) => Role::Learner,
        };
        let known = progress.as_ref().and_then(|(_, all)| all.get(&node)).copied().unwrap_or_default();
        MemberStatus { node, seat, address, role, matched: known.matched, contact: known.contact }
    };
    GroupStatus {
        name: inner.name.clone(),
        seat: inner.seat.clone(),
        node: inner.node,
        term: seen.term(),
        incarnation: inner.several.as_ref().and_then(|several| several.door.bound()),
        last: progress.as_ref().map(|(last, _)| *last),
        is_joint: members.is_joint,
        members: members.addresses.iter().map(of).collect(),
    }
}

pub(super) async fn hand_over(inner: &Inner, to: Option<&str>) -> Result<Leader, HandOverError> {
    let status = status(inner);
    let (Some(_), Some(_)) = (inner.member.leadership().borrow().led(), status.last) else {
        return Err(HandOverError::NotLeading);
    };
    let others = status.members.into_iter().filter(|member| {
        let is_meant = to.is_none_or(|seat| seat == member.seat);
        is_meant && member.role == Role::Voter && member.contact.is_some_and(|ago| ago < IN_CONTACT)
    });
    let Some(best) = others.max_by_key(|member| member.matched) else {
        return Err(HandOverError::Nobody { to: to.map(str::to_owned) });
    };
    inner.member.hand_over(best.node).await.map_err(HandOverError::Ended)?;
    Ok(Leader { node: best.node, seat: best.seat, address: best.address })
}
