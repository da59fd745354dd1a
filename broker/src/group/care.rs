//! A leader's care for the members of its group: it decides, by plain functions of what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Seat, Seats};
use crate::raft::{Members, Progress};
use crate::terms::LogIndex;

/// A learner that lacks no more entries than this has caught up: it gets them within a moment.
pub(super) const CAUGHT_UP: u64 = 1000;
/// A member that answered within this time is there.
pub(crate) const IN_CONTACT: Duration = Duration::from_secs(2);
/// The end of the address of a member that was alone, while seats of its `dLegerPeers` may join without a command: the group is
/// being founded around it. It is in the log, so it ends for good, whoever leads.
const OPEN: char = '+';

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Nothing.
    Nothing,
    /// Nothing now; learners catch up.
    Watch,
    /// Change the address of a member in the membership: a broker that was alone had none, and the group around it is whole.
    SetAddress(u64, String),
    /// Make these the voters.
    Voters(BTreeSet<u64>),
}

/// The seat of a member, from its address in the membership.
pub(super) fn seat_of(address: &str) -> Option<Seat> {
    address.strip_suffix(OPEN).unwrap_or(address).parse().ok()
}

/// An address for people, as in `dLegerPeers`.
pub(super) fn shown(address: &str) -> String {
    seat_of(address).map_or_else(|| address.to_owned(), |seat| seat.to_string())
}

/// The member whose address says that seats of `dLegerPeers` may join without a command.
pub(super) fn open_member(members: &Members) -> Option<u64> {
    members.addresses.iter().find(|(_, address)| address.ends_with(OPEN)).map(|(node, _)| *node)
}

/// The change by which no seat joins without a command any more; `None` if that is so.
pub(super) fn closing(members: &Members) -> Option<(u64, String)> {
    let node = open_member(members)?;
    let address = members.addresses.get(&node)?;
    Some((node, address.trim_end_matches(OPEN).to_owned()))
}

/// The members of a seat.
pub(super) fn of_seat<'a>(members: &'a Members, seat: &'a str) -> impl Iterator<Item = u64> + 'a {
    let is_there = move |address: &String| seat_of(address).is_some_and(|one| one.name == seat);
    members.addresses.iter().filter(move |(_, address)| is_there(address)).map(|(node, _)| *node)
}

/// Decides for the leader `own`, which has this seat.
pub(super) fn care(
    own: u64,
    own_seat: &Seat,
    seats: &Seats,
    members: &Members,
    last: LogIndex,
    progress: &BTreeMap<u64, Progress>,
) -> Care {
    if members.is_empty() || !members.is_committed {
        return Care::Watch;
    }
    if members.is_joint {
        // Somebody began a change and is gone.
        return Care::Voters(members.voters.clone());
    }
    if members.addresses.get(&own).is_some_and(String::is_empty) {
        return Care::SetAddress(own, format!("{own_seat}{OPEN}"));
    }
    let is_whole = || seats.all().iter().all(|seat| of_seat(members, &seat.name).next().is_some());
    if let Some((node, address)) = closing(members).filter(|_| is_whole()) {
        return Care::SetAddress(node, address);
    }
    let learners: Vec<u64> = members.addresses.keys().filter(|node| !members.voters.contains(*node)).copied().collect();
    let (mut voters, mut additions) = (members.voters.clone(), Vec::new());
    for learner in &learners {
        let Some(seat) = members.addresses.get(learner).and_then(|address| seat_of(address)) else { continue };
        if !progress.get(learner).is_some_and(|progress| has_caught_up(progress, last)) {
            continue;
        }
        let before: Vec<u64> = of_seat(members, &seat.name).filter(|node| voters.contains(node)).collect();
        if before.contains(&own) {
            continue;
        }
        if !before.is_empty() {
            voters.retain(|node| !before.contains(node));
            voters.insert(*learner);
        } else if seats.named(&seat.name).is_some() {
            additions.push(*learner);
        }
    }
    // An even number of voters waits for more of them than the odd one below it, and survives no more losses.
    if (voters.len() + additions.len()) % 2 == 0 {
        additions.pop();
    }
    voters.extend(additions);
    match (voters != members.voters, learners.is_empty()) {
        (true, _) => Care::Voters(voters),
        (false, true) => Care::Nothing,
        (false, false) => Care::Watch,
    }
}

/// Whether a member is there and can vote at once.
pub(super) fn has_caught_up(progress: &Progress, last: LogIndex) -> bool {
    is_in_contact(progress) && progress.matched.is_some_and(|matched| matched.get() + CAUGHT_UP >= last.get())
}

/// Whether a member is there.
pub(super) fn is_in_contact(progress: &Progress) -> bool {
    progress.contact.is_some_and(|ago| ago < IN_CONTACT)
}

/// What a leader does with a member that wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is a member already.
    Taken,
    /// Let these learners go, whose folders are lost, and take it.
    Take(BTreeSet<u64>),
    /// No.
    No(String),
}

/// Decides about the member `node` that asks for `seat`.
pub(super) fn admit(
    node: u64,
    seat: &Seat,
    seats: &Seats,
    members: &Members,
    removed: &[u64],
    progress: &BTreeMap<u64, Progress>,
) -> Admission {
    if removed.contains(&node) {
        return Admission::No(format!(
            "node {node} was a member and has been replaced: empty the folder of {}, then it joins again",
            seat.name
        ));
    }
    if members.addresses.contains_key(&node) {
        return Admission::Taken;
    }
    let holders: Vec<u64> = of_seat(members, &seat.name).collect();
    let is_awaited = open_member(members).is_some() && seats.named(&seat.name).is_some();
    if holders.is_empty() && !is_awaited {
        return Admission::No(format!(
            "the seat {} is not in the group: correct dLegerSelfId, or take the seat in with `escrowmq group add {seat}`",
            seat.name
        ));
    }
    let is_there = |node: &u64| progress.get(node).is_some_and(is_in_contact);
    if let Some(holder) = holders.iter().find(|holder| is_there(holder)) {
        return Admission::No(format!(
            "node {holder} has the seat {} and answers: end one of the two, or correct dLegerSelfId of one",
            seat.name
        ));
    }
    Admission::Take(holders.into_iter().filter(|holder| !members.voters.contains(holder)).collect())
}
