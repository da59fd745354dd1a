//! Changes of the members that an operator asks of the leader: it decides, by plain functions of what is known.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::care::{CAUGHT_UP, has_caught_up, is_in_contact, of_seat, seat_of};
use super::question::Status;
use crate::config::Seat;
use crate::raft::{ChangeError, Members, Progress};
use crate::terms::LogIndex;

/// Orders that wait for the one before.
pub(super) const ORDERS_MAX: usize = 4;

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// Take the empty member in that waits at this seat; it gets the log and has no vote.
    Add(Seat),
    /// Give the member of this seat a vote.
    Promote(String),
    /// Let the members of this seat go.
    Remove(String),
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The change in words.
    pub(crate) done: String,
    /// What is not as it should be now.
    pub(crate) warning: Option<&'static str>,
}

/// Why the members were not changed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// Only the leader can. A retry at the leader is safe.
    #[error("this member does not lead the group; nothing was changed, ask the leader")]
    NotLeading,
    /// Too many are waiting. A retry is safe.
    #[error("too many changes of the members wait already; nothing was changed, try again")]
    Busy,
    /// It would be wrong. A retry ends the same way until that is put right.
    #[error("{0}; nothing was changed")]
    Refused(String),
    /// It was tried.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// A change for the task that cares for the members.
pub(super) struct Order {
    /// The change.
    pub(super) change: MemberChange,
    /// For the answer.
    pub(super) answer: oneshot::Sender<Result<Changed, OrderError>>,
}

/// What is wrong with this number of voters.
pub(super) fn warning(voters: &BTreeSet<u64>) -> Option<&'static str> {
    let is_even = voters.len().is_multiple_of(2);
    is_even.then_some(
        "the number of voters is even now: that survives no more losses than one voter less, and waits for more of them",
    )
}

fn refused<T>(why: String) -> Result<T, OrderError> {
    Err(OrderError::Refused(why))
}

/// Whether the members can be changed at all now.
fn check_settled(members: &Members) -> Result<(), OrderError> {
    if members.is_joint || !members.is_committed {
        return refused(
            "another change of the members is under way: wait until `escrowmq group status` shows none".into(),
        );
    }
    Ok(())
}

fn nobody<T>(seat: &str, members: &Members) -> Result<T, OrderError> {
    let seats: BTreeSet<String> =
        members.addresses.values().filter_map(|address| seat_of(address)).map(|seat| seat.name).collect();
    let seats: Vec<String> = seats.into_iter().collect();
    refused(format!("no member of the group has the seat {seat}; it has {}", seats.join(", ")))
}

/// Whether a seat can be added, before anybody there is asked.
pub(super) fn add(seat: &Seat, members: &Members) -> Result<(), OrderError> {
    check_settled(members)?;
    let taken = members.addresses.iter().find_map(|(node, address)| {
        let other = seat_of(address)?;
        (other.number() == seat.number() || other.address() == seat.address()).then(|| format!("{other} (node {node})"))
    });
    match taken {
        Some(other) => refused(format!(
            "{other} is a member already. A member that lost its folder comes back by itself; one that moves to another \
             address is removed first"
        )),
        None => Ok(()),
    }
}

/// Whether the member that answers at the seat can be taken in.
pub(super) fn can_join(seat: &Seat, answered: &Status) -> Result<(), OrderError> {
    let Status { seat: name, has_log, incarnation, .. } = answered;
    if *name != seat.name {
        return refused(format!(
            "the member at {} has the seat {name}: correct the command, or its dLegerSelfId",
            seat.address()
        ));
    }
    if *has_log || incarnation.is_some() {
        return refused(format!(
            "the member at {} belongs to a group: stop it, empty its folder and start it again",
            seat.address()
        ));
    }
    Ok(())
}

/// The voters when the member of this seat is one of them.
pub(super) fn promote(
    seat: &str,
    members: &Members,
    last: LogIndex,
    progress: &BTreeMap<u64, Progress>,
) -> Result<BTreeSet<u64>, OrderError> {
    check_settled(members)?;
    let nodes: Vec<u64> = of_seat(members, seat).collect();
    if nodes.iter().any(|node| members.voters.contains(node)) {
        return refused(format!("the seat {seat} has a vote already"));
    }
    let Some(node) = nodes.last() else { return nobody(seat, members) };
    let known = progress.get(node).copied().unwrap_or_default();
    if !is_in_contact(&known) {
        return refused(format!("the member of the seat {seat} does not answer: see that it runs, and try again"));
    }
    if !has_caught_up(&known, last) {
        let lag = last.get() - known.matched.map_or(0, LogIndex::get).min(last.get());
        return refused(format!(
            "the member of the seat {seat} lacks {lag} entries of {last}, and with a vote may lack {CAUGHT_UP} at most: wait \
             until it has caught up"
        ));
    }
    Ok(members.voters.iter().copied().chain([*node]).collect())
}

/// Who goes with a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    /// The members without a vote that go.
    pub(super) learners: BTreeSet<u64>,
    /// The voters that stay, if a voter goes.
    pub(super) voters: Option<BTreeSet<u64>>,
}

/// Who goes when the leader `own` removes a seat.
pub(super) fn remove(
    own: u64,
    seat: &str,
    members: &Members,
    progress: &BTreeMap<u64, Progress>,
) -> Result<Removal, OrderError> {
    check_settled(members)?;
    let nodes: BTreeSet<u64> = of_seat(members, seat).collect();
    if nodes.is_empty() {
        return nobody(seat, members);
    }
    if nodes.contains(&own) {
        return refused(if members.voters.len() == 1 {
            format!("{seat} is the last voter: a group without voters has no data")
        } else {
            format!("{seat} leads the group: hand the leadership over first, with `escrowmq group transfer`")
        });
    }
    let stay: BTreeSet<u64> = members.voters.difference(&nodes).copied().collect();
    if stay.len() == members.voters.len() {
        return Ok(Removal { learners: nodes, voters: None });
    }
    let is_there = |node: &&u64| **node == own || progress.get(node).is_some_and(is_in_contact);
    let there = stay.iter().filter(is_there).count();
    if there <= stay.len() / 2 {
        return refused(format!(
            "only {there} of the {} voters that would stay answer, which is no majority: bring them back first",
            stay.len()
        ));
    }
    Ok(Removal { learners: nodes.difference(&members.voters).copied().collect(), voters: Some(stay) })
}
