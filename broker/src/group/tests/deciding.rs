//! What an empty member does next, and when a promise is given.

use std::collections::BTreeMap;

use crate::config::{Seat, Seats};
use crate::group::founding::{Answered, Next, decide, ordered, promise};
use crate::group::identity::MemberFile;
use crate::group::question::{Figures, Founding, Status};
use crate::group::search::must_search;

pub(super) fn seats() -> Seats {
    "n2-127.0.0.1:3;n0-127.0.0.1:1;n1-127.0.0.1:2".parse().unwrap()
}

pub(super) fn seat(number: u64) -> Seat {
    format!("n{number}-127.0.0.1:{}", number + 1).parse().unwrap()
}

/// The member with this id at the seat of that number.
pub(super) fn member(number: u64, node: u64) -> MemberFile {
    MemberFile { node, ..MemberFile::new("orders", &seat(number).name).unwrap() }
}

pub(super) fn status(file: &MemberFile, has_log: bool) -> Status {
    Status {
        node: file.node,
        seat: file.seat.clone(),
        peers: ordered(&seats()),
        incarnation: file.incarnation,
        founder: file.founder,
        has_log,
        term: 0,
        leader: None,
        figures: Figures::default(),
    }
}

fn answered(statuses: &[Status]) -> Answered {
    statuses.iter().map(|status| (status.seat.clone(), Ok(status.clone()))).collect()
}

fn founders() -> BTreeMap<u64, String> {
    [(10, 0), (11, 1), (12, 2)].map(|(node, number)| (node, seat(number).to_string())).into()
}

fn waits(next: Next, why: &str) {
    match next {
        Next::Wait(reasons) => assert!(reasons.iter().any(|reason| reason.contains(why)), "{reasons:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_seat_founds_when_all_are_there_and_empty() {
    let others = [status(&member(1, 11), false), status(&member(2, 12), false)];
    let next = decide(&member(0, 10), &seat(0), &seats(), &answered(&others));
    assert_eq!(next, Next::Found(founders()));
    let others = [status(&member(0, 10), false), status(&member(2, 12), false)];
    waits(decide(&member(1, 11), &seat(1), &seats(), &answered(&others)), "n0-127.0.0.1:1 founds");
}

#[test]
fn nobody_founds_while_one_is_missing_or_reads_another_list() {
    let own = member(0, 10);
    let decide = |answered: &Answered| decide(&own, &seat(0), &seats(), answered);
    let one = [status(&member(1, 11), false)];
    waits(decide(&answered(&one)), "n2-127.0.0.1:3 was not asked");
    let mut missing = answered(&one);
    missing.insert("n2".to_owned(), Err("cannot be reached".to_owned()));
    waits(decide(&missing), "n2-127.0.0.1:3: cannot be reached");
    let other = Status { peers: "n0-127.0.0.1:1".to_owned(), ..status(&member(2, 12), false) };
    waits(decide(&answered(&[one[0].clone(), other])), "give all members the same");
}

#[test]
fn an_empty_member_joins_if_anybody_knows_the_group() {
    let own = member(0, 10);
    let decide = |others: &[Status]| decide(&own, &seat(0), &seats(), &answered(others));
    let founded = Status { incarnation: Some(5), term: 3, ..status(&member(1, 11), true) };
    let empty = status(&member(2, 12), false);
    waits(decide(&[founded.clone(), empty.clone()]), "no leader now");
    let old = Status { term: 2, leader: Some((9, seat(0).to_string())), ..founded.clone() };
    let new = Status { leader: Some((11, seat(1).to_string())), node: 12, seat: "n2".to_owned(), ..founded.clone() };
    assert_eq!(decide(&[old, new]), Next::Join(seat(1).to_string()));
    let other = Status { incarnation: Some(6), seat: "n2".to_owned(), ..founded.clone() };
    waits(decide(&[founded, other]), "two different groups");
    let promised = Status { incarnation: Some(5), founder: Some(7), ..status(&member(1, 11), false) };
    waits(decide(&[promised, empty]), "has promised a founding by node 7");
}

#[test]
fn a_promise_binds_until_its_founder_replaces_it_and_never_a_log() {
    let own = member(1, 11);
    let asked = |incarnation, founder| Founding { incarnation, founder, members: founders() };
    let promised = promise(&own, false, &asked(5, 10)).unwrap();
    assert_eq!((promised.incarnation, promised.founder), (Some(5), Some(10)));
    assert_eq!(promise(&promised, false, &asked(5, 10)), Ok(promised.clone()));
    assert!(promise(&promised, false, &asked(6, 99)).unwrap_err().contains("another founding"));
    assert_eq!(promise(&promised, false, &asked(6, 10)).unwrap().incarnation, Some(6));
    assert!(promise(&promised, true, &asked(6, 10)).unwrap_err().contains("is founded"));
    assert_eq!(promise(&promised, true, &asked(5, 10)), Ok(promised));
    for wiped in [member(1, 13), member(2, 11)] {
        assert!(promise(&wiped, false, &asked(5, 10)).unwrap_err().contains("another one"));
    }
    let joined = MemberFile { incarnation: Some(5), founder: None, ..own };
    assert!(promise(&joined, false, &asked(6, 10)).is_err());
}

#[test]
fn who_searches_at_its_start() {
    let empty = member(0, 10);
    let founder = MemberFile { incarnation: Some(5), founder: Some(10), ..empty.clone() };
    let promised = MemberFile { founder: Some(11), ..founder.clone() };
    let joined = MemberFile { founder: None, ..founder.clone() };
    assert!(must_search(&empty, false) && must_search(&founder, false));
    assert!(!must_search(&founder, true) && !must_search(&promised, false) && !must_search(&joined, false));
}
