//! What an operator may ask of a leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::caring::{members, progress};
use super::deciding::{member, seat, status};
use crate::group::care::{Care, care};
use crate::group::orders::{OrderError, Removal, add, can_join, promote, remove, warning};
use crate::group::tests::deciding::seats;
use crate::raft::{Members, Progress};
use crate::terms::LogIndex;

const LAST: LogIndex = LogIndex(5_000);

fn no<T: std::fmt::Debug>(answer: Result<T, OrderError>, why: &str) {
    match answer {
        Err(OrderError::Refused(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{other:?}"),
    }
}

fn three() -> Members {
    members(&[10, 11, 12], &[(10, 0), (11, 1), (12, 2), (13, 3)])
}

fn all_there() -> BTreeMap<u64, Progress> {
    progress(&[(10, 5_000), (11, 5_000), (12, 5_000), (13, 4_000)])
}

#[test]
fn a_seat_is_added_once_and_only_with_an_empty_member() {
    assert_eq!(add(&seat(4), &three()), Ok(()));
    no(add(&seat(3), &three()), "n3-127.0.0.1:4 (node 13) is a member already");
    no(add(&"n7-127.0.0.1:2".parse().unwrap(), &three()), "n1-127.0.0.1:2 (node 11) is a member already");
    no(add(&seat(4), &Members { is_committed: false, ..three() }), "another change");
    assert_eq!(can_join(&seat(4), &status(&member(4, 14), false)), Ok(()));
    no(can_join(&seat(4), &status(&member(5, 14), false)), "has the seat n5");
    no(can_join(&seat(4), &status(&member(4, 14), true)), "empty its folder");
    let mut promised = member(4, 14);
    promised.incarnation = Some(7);
    no(can_join(&seat(4), &status(&promised, false)), "empty its folder");
}

#[test]
fn a_learner_gets_a_vote_when_it_is_there_and_has_caught_up() {
    let ask = |seat: &str, progress: &BTreeMap<u64, Progress>| promote(seat, &three(), LAST, progress);
    assert_eq!(ask("n3", &all_there()), Ok([10, 11, 12, 13].into()));
    no(ask("n2", &all_there()), "has a vote already");
    no(ask("n8", &all_there()), "no member of the group has the seat n8; it has n0, n1, n2, n3");
    no(ask("n3", &progress(&[(13, 3_999)])), "lacks 1001 entries of 5000");
    no(ask("n3", &progress(&[])), "does not answer");
    no(promote("n3", &Members { is_joint: true, ..three() }, LAST, &all_there()), "another change");
    assert!(warning(&[1, 2].into()).is_some() && warning(&[1, 2, 3].into()).is_none());
}

#[test]
fn the_leader_and_the_last_voter_stay_and_so_does_a_majority() {
    let ask = |seat: &str, progress: &BTreeMap<u64, Progress>| remove(10, seat, &three(), progress);
    let voters = Removal { learners: [].into(), voters: Some([10, 12].into()) };
    assert_eq!(ask("n1", &all_there()), Ok(voters.clone()));
    assert_eq!(ask("n1", &progress(&[(10, 5_000), (12, 1)])), Ok(voters), "the one that goes may be gone");
    assert_eq!(ask("n3", &progress(&[])), Ok(Removal { learners: [13].into(), voters: None }));
    no(ask("n0", &all_there()), "group transfer");
    no(ask("n9", &all_there()), "no member of the group has the seat n9");
    let mut silent = all_there();
    silent.get_mut(&12).unwrap().contact = Some(Duration::from_secs(3));
    no(ask("n1", &silent), "only 1 of the 2 voters");
    no(remove(10, "n0", &members(&[10], &[(10, 0), (11, 1)]), &all_there()), "last voter");
    // A member that was to replace the voter of its seat goes with it.
    let replaced = members(&[10, 11, 12], &[(10, 0), (11, 1), (12, 2), (22, 2)]);
    let both = Removal { learners: [22].into(), voters: Some([10, 11].into()) };
    assert_eq!(remove(10, "n2", &replaced, &all_there()), Ok(both));
}

/// What commands have made, the care of the leader leaves alone.
#[test]
fn care_neither_undoes_nor_repeats_a_command() {
    let next = |group: &Members| care(10, &seat(0), &seats(), group, LAST, &all_there());
    let two = members(&[10, 11], &[(10, 0), (11, 1)]);
    assert_eq!(next(&two), Care::Nothing, "one of three was removed");
    let four = members(&[10, 11, 12, 13], &[(10, 0), (11, 1), (12, 2), (13, 3)]);
    assert_eq!(next(&four), Care::Nothing, "a fourth was promoted");
    assert_eq!(next(&three()), Care::Watch, "a seat that no dLegerPeers names waits for its promotion");
    let back = members(&[10, 11], &[(10, 0), (11, 1), (12, 2)]);
    assert_eq!(next(&back), Care::Voters(BTreeSet::from([10, 11, 12])), "a seat of dLegerPeers was added again");
    let one = members(&[10], &[(10, 0), (11, 1)]);
    assert_eq!(next(&one), Care::Watch, "two voters are an operator's decision");
}
