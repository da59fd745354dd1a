//! The decisions of a member whose folder is empty, and of one that is asked to found. Plain functions of what is known.

use std::collections::BTreeMap;

use super::identity::MemberFile;
use super::question::{Founding, Status};
use crate::config::{Seat, Seats};

/// What a member of an empty folder does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask all of them to promise a founding with these members.
    Found(BTreeMap<u64, String>),
    /// Ask the member with this seat and address, which leads, to be taken.
    Join(String),
    /// Ask again later, for these reasons.
    Wait(Vec<String>),
}

/// What the member of a seat has answered.
pub(super) type Answered = BTreeMap<String, Result<Status, String>>;

/// The seats in one order, so that lists can be compared.
pub(super) fn ordered(seats: &Seats) -> String {
    let mut seats: Vec<_> = seats.all().iter().collect();
    seats.sort_by_key(|seat| seat.number());
    seats.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
}

/// Decides for the member `own` without a log at the seat `seat`, which has asked all others once.
pub(super) fn decide(own: &MemberFile, seat: &Seat, seats: &Seats, answered: &Answered) -> Next {
    let statuses = || answered.values().filter_map(|answer| answer.as_ref().ok());
    let founded: Vec<&Status> = statuses().filter(|status| status.incarnation.is_some() && status.has_log).collect();
    if !founded.is_empty() {
        return join(&founded);
    }
    let mut reasons = Vec::new();
    let mut members = BTreeMap::from([(own.node, seat.to_string())]);
    for other in seats.all().iter().filter(|other| other.name != seat.name) {
        match answered.get(&other.name) {
            None => reasons.push(format!("{other} was not asked yet")),
            Some(Err(why)) => reasons.push(format!("{other}: {why}")),
            Some(Ok(status)) => match blank(own, seats, status) {
                Ok(()) => {
                    members.insert(status.node, other.to_string());
                }
                Err(why) => reasons.push(format!("{other} {why}")),
            },
        }
    }
    let first = seats.all().iter().min_by_key(|seat| seat.number());
    match first {
        _ if !reasons.is_empty() => Next::Wait(reasons),
        Some(first) if first.name == seat.name => Next::Found(members),
        Some(first) => Next::Wait(vec![format!("{first} founds the group")]),
        None => Next::Wait(vec!["dLegerPeers is empty".to_owned()]),
    }
}

/// Whether a member may be one of a new founding.
fn blank(own: &MemberFile, seats: &Seats, status: &Status) -> Result<(), String> {
    if status.peers != ordered(seats) {
        return Err(format!("has other members in its dLegerPeers ({}): give all members the same", status.peers));
    }
    match (status.incarnation, status.founder) {
        (None, _) => Ok(()),
        // Our own, from before a crash: it was not carried out, or we would have a log.
        (Some(_), Some(founder)) if founder == own.node => Ok(()),
        (Some(_), Some(founder)) => Err(format!(
            "has promised a founding by node {founder}, which is not finished. If the folder of that node is lost, empty the \
             folder of this member, too: its log is empty"
        )),
        (Some(_), None) => Err("has joined a group and has no log yet".to_owned()),
    }
}

fn join(founded: &[&Status]) -> Next {
    let first = founded[0];
    if let Some(other) = founded.iter().find(|status| status.incarnation != first.incarnation) {
        return Next::Wait(vec![format!(
            "{} and {} belong to two different groups of this name: empty the folder of the one that is wrong",
            first.seat, other.seat
        )]);
    }
    let newest = founded.iter().filter(|status| status.leader.is_some()).max_by_key(|status| status.term);
    match newest.and_then(|status| status.leader.as_ref()) {
        Some((_, address)) if !address.is_empty() => Next::Join(address.clone()),
        _ => Next::Wait(vec![format!("the group is founded ({} is a member), and it has no leader now", first.seat)]),
    }
}

/// What a member becomes by a promise; the error says why it does not give it.
pub(super) fn promise(own: &MemberFile, has_log: bool, asked: &Founding) -> Result<MemberFile, String> {
    let seat = &own.seat;
    let is_meant = |address: &String| address.parse::<Seat>().is_ok_and(|named| named.name == *seat);
    if !asked.members.get(&own.node).is_some_and(is_meant) {
        return Err(format!("the folder of {seat} is another one than that which was to be a founder"));
    }
    let promised = MemberFile { incarnation: Some(asked.incarnation), founder: Some(asked.founder), ..own.clone() };
    match own.incarnation {
        Some(known) if known == asked.incarnation => Ok(own.clone()),
        _ if has_log => Err(format!("{seat} belongs to a group that is founded")),
        None => Ok(promised),
        // Who asks again has not carried out what it asked for before.
        Some(_) if own.founder == Some(asked.founder) => Ok(promised),
        Some(_) => Err(format!("{seat} has promised another founding")),
    }
}

/// Whether a folder without a log is that of a founder which crashed before it founded.
pub(super) fn is_unfinished_founder(own: &MemberFile) -> bool {
    own.founder == Some(own.node)
}
