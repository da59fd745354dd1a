//! What a leader does for its members.

use std::collections::BTreeMap;
use std::time::Duration;

use super::deciding::{seat, seats};
use crate::group::care::{Admission, Care, admit, care};
use crate::raft::{Members, Progress};
use crate::terms::LogIndex;

/// Members by id and number of their seat.
pub(super) fn members(voters: &[u64], all: &[(u64, u64)]) -> Members {
    Members {
        voters: voters.iter().copied().collect(),
        is_joint: false,
        addresses: all.iter().map(|(node, number)| (*node, seat(*number).to_string())).collect(),
        is_committed: true,
    }
}

pub(super) fn progress(all: &[(u64, u64)]) -> BTreeMap<u64, Progress> {
    let of = |matched| Progress { matched: Some(LogIndex(matched)), contact: Some(Duration::ZERO) };
    all.iter().map(|(node, matched)| (*node, of(*matched))).collect()
}

fn next(members: &Members, progress: &BTreeMap<u64, Progress>) -> Care {
    care(10, &seat(0), &seats(), members, LogIndex(5_000), progress)
}

#[test]
fn a_learner_takes_the_place_of_its_seat_when_it_has_caught_up() {
    let group = members(&[10, 11, 12], &[(10, 0), (11, 1), (12, 2), (22, 2)]);
    assert_eq!(next(&group, &progress(&[(22, 3_999)])), Care::Watch);
    assert_eq!(next(&group, &progress(&[(22, 4_000)])), Care::Voters([10, 11, 22].into()));
    let mut silent = progress(&[(22, 5_000)]);
    silent.get_mut(&22).unwrap().contact = Some(Duration::from_secs(3));
    assert_eq!(next(&group, &silent), Care::Watch);
    assert_eq!(next(&Members { is_committed: false, ..group }, &progress(&[(22, 5_000)])), Care::Watch);
    assert_eq!(next(&members(&[10, 11, 22], &[(10, 0), (11, 1), (22, 2)]), &progress(&[])), Care::Nothing);
}

#[test]
fn what_another_leader_began_is_ended() {
    let group = Members { is_joint: true, ..members(&[10, 11, 22], &[(10, 0), (11, 1), (12, 2), (22, 2)]) };
    assert_eq!(next(&group, &progress(&[])), Care::Voters([10, 11, 22].into()));
}

#[test]
fn a_broker_that_was_alone_gets_an_address_and_then_two_voters_at_once() {
    let mut alone = members(&[10], &[(10, 0)]);
    alone.addresses.insert(10, String::new());
    let open = format!("{}+", seat(0));
    assert_eq!(next(&alone, &progress(&[])), Care::SetAddress(10, open.clone()));
    alone.addresses.insert(10, open.clone());
    assert_eq!(next(&alone, &progress(&[])), Care::Nothing);
    let mut whole = members(&[10], &[(10, 0), (11, 1), (12, 2)]);
    whole.addresses.insert(10, open);
    assert_eq!(next(&whole, &progress(&[])), Care::SetAddress(10, seat(0).to_string()), "nobody else joins by itself");
    let group = members(&[10], &[(10, 0), (11, 1), (12, 2)]);
    assert_eq!(next(&group, &progress(&[(11, 5_000), (12, 1)])), Care::Watch, "two voters are worse than one");
    assert_eq!(next(&group, &progress(&[(11, 5_000), (12, 5_000)])), Care::Voters([10, 11, 12].into()));
    let stranger = members(&[10], &[(10, 0), (11, 7), (12, 8)]);
    assert_eq!(next(&stranger, &progress(&[(11, 5_000), (12, 5_000)])), Care::Watch, "dLegerPeers has no such seats");
}

#[test]
fn who_may_join() {
    let group = members(&[10, 11, 12], &[(10, 0), (11, 1), (12, 2), (22, 2)]);
    let ask =
        |node, number, progress: &BTreeMap<u64, Progress>| admit(node, &seat(number), &seats(), &group, &[9], progress);
    let quiet = progress(&[]);
    assert_eq!(ask(22, 2, &quiet), Admission::Taken);
    assert_eq!(ask(32, 2, &quiet), Admission::Take([22].into()), "the learner before it lost its folder, too");
    assert_eq!(ask(31, 1, &quiet), Admission::Take([].into()));
    let no = |admission, why: &str| match admission {
        Admission::No(said) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    };
    no(ask(9, 1, &quiet), "empty the folder");
    no(ask(31, 1, &progress(&[(11, 1)])), "node 11 has the seat n1 and answers");
    no(ask(31, 7, &quiet), "group add n7-127.0.0.1:8");
}

#[test]
fn a_seat_that_was_removed_stays_out_until_it_is_added() {
    let mut two = members(&[10, 11], &[(10, 0), (11, 1)]);
    let ask = |members: &Members, node| admit(node, &seat(2), &seats(), members, &[], &progress(&[]));
    assert!(matches!(ask(&two, 32), Admission::No(why) if why.contains("group add n2-")), "its seat is in dLegerPeers");
    // A group that waits for the others of a broker that was alone is open to them.
    two.addresses.insert(10, format!("{}+", seat(0)));
    assert_eq!(ask(&two, 32), Admission::Take([].into()));
    two.addresses.insert(32, seat(2).to_string());
    assert_eq!(ask(&two, 32), Admission::Taken, "it was added");
}
