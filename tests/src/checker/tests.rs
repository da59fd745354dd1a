//! Histories that break each invariant, and one that breaks none.

use super::*;
use crate::history::{Level, hash};

/// A history that is written line by line.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
}

impl Story {
    fn then(mut self, client: &str, what: What) -> Story {
        let at = self.events.len() as u64;
        self.events.push(Event { at, client: client.to_owned(), what });
        self
    }

    fn violated(&self) -> Vec<u8> {
        let terms = Terms { groups: vec!["readers".into()], acknowledged_min: 0 };
        let mut invariants: Vec<u8> =
            judge(&self.events, &terms).violations.iter().map(|each| each.invariant).collect();
        invariants.dedup();
        invariants
    }
}

fn place(offset: u64) -> Place {
    Place { queue: "T/0".into(), offset }
}

fn send(key: &str) -> What {
    What::Send { key: key.into(), hash: hash(key.as_bytes()) }
}

fn sent(key: &str, offset: u64) -> What {
    What::Sent { key: key.into(), level: Level::Flushed, place: Some(place(offset)) }
}

fn half(key: &str) -> What {
    What::Half { key: key.into(), hash: hash(key.as_bytes()) }
}

fn local(key: &str, ending: Ending) -> What {
    What::Local { key: key.into(), ending }
}

fn decided(key: &str, ending: Ending, offset: Option<u64>) -> What {
    What::Decided { key: key.into(), ending, place: offset.map(place) }
}

fn stored(key: &str, offset: u64) -> What {
    What::Stored { key: key.into(), place: place(offset), hash: hash(key.as_bytes()) }
}

fn delivered(key: &str, offset: u64) -> What {
    let (group, key, place) = ("readers".into(), key.to_owned(), place(offset));
    What::Delivered { group, hash: hash(key.as_bytes()), key, place, attempt: 0 }
}

fn offset_seen(offset: u64) -> What {
    What::OffsetSeen { group: "readers".into(), place: place(offset) }
}

fn offset_committed(offset: u64) -> What {
    What::OffsetCommitted { group: "readers".into(), place: place(offset) }
}

/// A plain message, a commit and a rollback, all as they should be.
fn good() -> Story {
    Story::default()
        .then("p", send("a"))
        .then("p", sent("a", 0))
        .then("p", half("c"))
        .then("p", What::HalfStored { key: "c".into() })
        .then("p", local("c", Ending::Commit))
        .then("p", decided("c", Ending::Commit, Some(1)))
        .then("q", half("r"))
        .then("q", local("r", Ending::Rollback))
        .then("q", decided("r", Ending::Rollback, None))
        .then("c", delivered("a", 0))
        .then("c", delivered("c", 1))
        .then("c", delivered("c", 1))
        .then("c", offset_committed(2))
        .then("c", offset_seen(2))
        .then("end", stored("a", 0))
        .then("end", stored("c", 1))
        .then("end", What::Counted { halves: 2, committed: 1, rolled_back: 1, pending: 0, parked: 0 })
}

#[test]
fn a_good_run_passes() {
    assert_eq!(good().violated(), Vec::<u8>::new());
    let verdict = judge(&good().events, &Terms { groups: vec!["readers".into()], acknowledged_min: 4 });
    assert!(verdict.is_good() && verdict.acknowledged == 4, "{verdict}");
}

#[test]
fn order_of_lines_does_not_count() {
    let mut story = good();
    story.events.reverse();
    assert_eq!(story.violated(), Vec::<u8>::new());
}

#[test]
fn i1_a_commit_that_never_arrives() {
    let story = good().then("p", half("lost")).then("p", local("lost", Ending::Commit));
    assert_eq!(story.violated(), [1]);
    // In the log, but not delivered.
    assert_eq!(story.then("end", stored("lost", 2)).violated().first(), Some(&1));
}

#[test]
fn i2_a_rollback_an_unknown_half_and_a_stranger_that_are_seen() {
    assert_eq!(good().then("c", What::Shown { view: "by key".into(), key: "r".into() }).violated(), [2]);
    let unknown = good().then("p", half("u")).then("c", What::Shown { view: "by id".into(), key: "u".into() });
    assert_eq!(unknown.violated(), [2]);
    assert_eq!(good().then("end", stored("stranger", 2)).violated(), [2]);
    assert!(good().then("end", stored("r", 2)).violated().contains(&2));
}

#[test]
fn i3_a_half_that_stays_undecided() {
    let story = good().then("p", half("h")).then("end", What::Pending { key: "h".into(), parked: None });
    assert!(story.violated().contains(&3));
    let counted = What::Counted { halves: 3, committed: 1, rolled_back: 1, pending: 0, parked: 1 };
    let parked = What::Pending { key: "h".into(), parked: Some("no checker".into()) };
    assert_eq!(good().then("p", half("h")).then("end", parked).then("end", counted).violated(), Vec::<u8>::new());
}

#[test]
fn i4_two_copies_two_endings_two_places() {
    let twice = good().then("end", stored("c", 2));
    assert!(twice.violated().contains(&4));
    assert!(good().then("p", decided("r", Ending::Commit, None)).violated().contains(&4));
    assert!(good().then("p", decided("c", Ending::Commit, Some(0))).violated().contains(&4));
    let refused = What::Conflict { key: "c".into(), ending: Ending::Commit };
    assert_eq!(good().then("p", refused).violated(), [4]);
    let opposite = What::Conflict { key: "c".into(), ending: Ending::Rollback };
    assert_eq!(good().then("p", opposite).violated(), Vec::<u8>::new());
}

#[test]
fn i5_an_acknowledged_message_that_is_gone_elsewhere_or_changed() {
    let gone = good().then("p", send("b")).then("p", sent("b", 2)).then("c", delivered("b", 2));
    assert!(gone.violated().contains(&5));
    let elsewhere = good().then("p", send("b")).then("p", sent("b", 3)).then("end", stored("b", 2));
    assert!(elsewhere.violated().contains(&5));
    let changed = What::Stored { key: "b".into(), place: place(2), hash: 1 };
    let changed = good().then("p", send("b")).then("end", changed);
    assert_eq!(changed.violated(), [5]);
}

#[test]
fn i6_a_delivery_of_what_is_not_in_the_log() {
    assert!(good().then("c", delivered("a", 7)).violated().contains(&6));
}

#[test]
fn i7_a_gap_another_order_another_reader() {
    let gap = good().then("p", send("b")).then("end", stored("b", 5));
    assert_eq!(gap.violated(), [7]);
    let turned = good()
        .then("p", send("x"))
        .then("p", sent("x", 3))
        .then("p", send("y"))
        .then("p", sent("y", 2))
        .then("end", stored("y", 2))
        .then("end", stored("x", 3))
        .then("c", delivered("x", 3))
        .then("c", delivered("y", 2));
    assert_eq!(turned.violated(), [7]);
    assert!(good().then("c", delivered("a", 1)).violated().contains(&7));
}

#[test]
fn i8_an_offset_that_goes_back_or_beyond() {
    assert_eq!(good().then("c", offset_seen(1)).violated(), [8]);
    let reset = What::OffsetReset { group: "readers".into(), place: place(0) };
    assert_eq!(good().then("admin", reset).then("c", offset_seen(1)).violated(), Vec::<u8>::new());
    assert_eq!(good().then("c", offset_seen(9)).violated(), [8]);
}

#[test]
fn i9_a_message_that_vanishes_and_a_dead_letter_twice() {
    let vanished = good().then("p", send("b")).then("p", sent("b", 2)).then("end", stored("b", 2));
    assert_eq!(vanished.violated(), [9]);
    let dead = || What::DeadLetter { group: "readers".into(), key: "b".into() };
    let once = good().then("p", send("b")).then("p", sent("b", 2)).then("end", stored("b", 2)).then("c", dead());
    assert_eq!(once.violated(), Vec::<u8>::new());
    assert_eq!(once.then("c", dead()).violated(), [9]);
}

#[test]
fn i10_halves_that_do_not_add_up() {
    let odd = What::Counted { halves: 3, committed: 1, rolled_back: 1, pending: 0, parked: 0 };
    assert_eq!(good().then("end", odd).violated(), [10]);
    let more = What::Counted { halves: 3, committed: 2, rolled_back: 1, pending: 0, parked: 0 };
    assert_eq!(good().then("end", more).violated(), [10]);
}

#[test]
fn a_run_in_which_little_happened_is_invalid() {
    let fault = |fired| What::Fault { kind: "kill".into(), fired };
    let story = good().then("chaos", fault(true)).then("chaos", fault(false));
    let verdict = judge(&story.events, &Terms { groups: vec!["readers".into()], acknowledged_min: 0 });
    assert!(verdict.violations.is_empty() && verdict.invalid.is_some() && !verdict.is_good());
    let verdict = judge(&good().events, &Terms { groups: vec![], acknowledged_min: 100 });
    assert!(verdict.invalid.is_some_and(|why| why.contains("100")));
}
