//! Half messages: hidden, settled once and one way, recognised when repeated.

use super::*;
use crate::shard::{Checked, CheckedHalf, Park, Refusal, Resume};
use crate::terms::{ParkReason, QueueOffset, Stamp};

#[tokio::test]
async fn a_half_is_hidden_until_its_commit_and_settles_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let half = prepare(shard, &queue, "u1", "secret").await;
    publish(shard, &queue, When::Now, &["plain"]).await;
    assert_eq!(bodies(shard, &queue), ["plain"]);
    assert!(shard.locate(half.half.position(), queue.id).expect("readable").is_none(), "found by no id");
    assert_eq!(shard.counters().open_halves(), 1);

    let Outcome::Settled(first) = settle(shard, half.half, half.counter, Decision::Commit).await else {
        panic!("not settled")
    };
    assert!(first.first && first.offset == Some(QueueOffset(1)));
    assert_eq!(bodies(shard, &queue), ["plain", "secret"]);
    let entry = shard.entry(&queue, QueueOffset(1)).expect("readable").expect("there");
    assert!(entry.flags.is_committed() && entry.half == half.half);
    assert_eq!(
        shard.locate(half.half.position(), queue.id).expect("readable").map(|at| at.entry.offset),
        Some(QueueOffset(1))
    );

    let Outcome::Settled(again) = settle(shard, half.half, half.counter, Decision::Commit).await else {
        panic!("a repeat gets the first one's result")
    };
    assert_eq!((again.first, again.offset, again.at), (false, Some(QueueOffset(1)), first.at));
    let opposite = settle(shard, half.half, half.counter, Decision::Rollback).await;
    assert!(matches!(opposite, Outcome::Refused(Refusal::AlreadyDecided(_))), "{opposite:?}");
    assert_eq!(bodies(shard, &queue), ["plain", "secret"], "delivered once");
    assert_eq!((shard.counters().open_halves(), shard.counters().committed()), (0, 1));
    opened.close().await.expect("closes");

    let opened = open(dir.path()).await;
    let opposite = settle(&opened.shard, half.half, half.counter, Decision::Rollback).await;
    assert!(matches!(opposite, Outcome::Refused(Refusal::AlreadyDecided(_))), "remembered: {opposite:?}");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_rolled_back_message_is_never_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let half = prepare(shard, &queue, "u1", "secret").await;
    settle(shard, half.half, half.counter, Decision::Rollback).await;
    let commit = settle(shard, half.half, half.counter, Decision::Commit).await;
    assert!(matches!(commit, Outcome::Refused(Refusal::AlreadyDecided(_))), "{commit:?}");
    assert_eq!(bodies(shard, &queue), [] as [&str; 0]);
    assert!(shard.locate(half.half.position(), queue.id).expect("readable").is_none());
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn strangers_and_guesses_decide_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let half = prepare(shard, &queue, "u1", "secret").await;
    let wrong_counter = settle(shard, half.half, half.counter + 1, Decision::Commit).await;
    assert_eq!(wrong_counter, Outcome::Refused(Refusal::WrongCounter(half.counter)));
    let nothing = settle(shard, half.half.next(), half.counter, Decision::Commit).await;
    assert_eq!(nothing, Outcome::Refused(Refusal::NoSuchHalf(half.half.next())));
    let stranger = Settle {
        half: half.half,
        counter: Some(half.counter),
        decision: Decision::Commit,
        group: Some("others"),
        by: "",
        reason: "",
        rewritten: Vec::new(),
    };
    let stranger = shard.propose(&Command::Settle(stranger), Admission::Reserved).await;
    assert_eq!(stranger, Ok(Outcome::Refused(Refusal::WrongGroup("producers".into()))));
    assert_eq!(shard.counters().open_halves(), 1);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_repeated_half_gets_the_first_identity() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let first = prepare(shard, &queue, "u1", "body").await;
    let repeat = prepare(shard, &queue, "u1", "body").await;
    assert_eq!((repeat.half, repeat.counter, repeat.repeated), (first.half, first.counter, true));
    settle(shard, first.half, first.counter, Decision::Commit).await;
    let late = prepare(shard, &queue, "u1", "body").await;
    assert_eq!((late.half, late.repeated), (first.half, true), "for a while after the decision, too");
    assert_eq!(bodies(shard, &queue), ["body"]);
    assert_ne!(prepare(shard, &queue, "", "body").await.half, prepare(shard, &queue, "", "body").await.half);
    opened.close().await.expect("closes");
}

/// Containers and old clients make the same id for different messages.
#[tokio::test]
async fn two_halves_with_one_unique_id_are_two_and_each_goes_to_its_own_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    // Of one checksum, too.
    let one = prepare(shard, &queue, "u", "plumless").await;
    let two = prepare(shard, &queue, "u", "buckeroo").await;
    let three = prepare(shard, &queue, "u", "third").await;
    assert!(one.half != two.half && two.half != three.half && !two.repeated && !three.repeated);
    settle(shard, two.half, two.counter, Decision::Commit).await;
    for (half, body) in [(one.half, "plumless"), (two.half, "buckeroo"), (three.half, "third")] {
        let again = prepare(shard, &queue, "u", body).await;
        assert_eq!((again.half, again.repeated), (half, true), "{body}");
    }
    settle(shard, three.half, three.counter, Decision::Rollback).await;
    settle(shard, one.half, one.counter, Decision::Commit).await;
    assert_eq!(bodies(shard, &queue), ["buckeroo", "plumless"]);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_half_repeated_after_its_rollback_is_a_new_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let first = prepare(shard, &queue, "u1", "body").await;
    settle(shard, first.half, first.counter, Decision::Rollback).await;
    let second = prepare(shard, &queue, "u1", "body").await;
    assert!(second.half != first.half && !second.repeated, "its local transaction has not run yet");
    let again = prepare(shard, &queue, "u1", "body").await;
    assert_eq!((again.half, again.repeated), (second.half, true));
    let committed = settle(shard, second.half, second.counter, Decision::Commit).await;
    assert!(matches!(committed, Outcome::Settled(_)), "{committed:?}");
    let opposite = settle(shard, first.half, first.counter, Decision::Commit).await;
    assert!(matches!(opposite, Outcome::Refused(Refusal::AlreadyDecided(_))), "{opposite:?}");
    assert_eq!(prepare(shard, &queue, "u1", "body").await.half, second.half, "committed: recognised again");
    assert_eq!(bodies(shard, &queue), ["body"]);
    opened.close().await.expect("closes");
}

/// Live, each command was applied alone; the replay applies them together.
#[tokio::test]
async fn a_replay_forgets_decisions_where_the_first_run_did() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let first = prepare(shard, &queue_now, "u", "body").await;
    settle(shard, first.half, first.counter, Decision::Commit).await;
    let forget = Command::Expire { decided_before: Stamp::MAX };
    assert_eq!(shard.propose(&forget, Admission::Reserved).await, Ok(Outcome::Done));
    let second = prepare(shard, &queue_now, "u", "body").await;
    assert!(!second.repeated && second.half != first.half, "{second:?}");
    opened.close().await.expect("closes");
    std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let again = open(dir.path()).await;
    assert_eq!(again.shard.counters().open_halves(), 1);
    assert_eq!(again.shard.counters().next_half(), 2);
    let settled = settle(&again.shard, second.half, second.counter, Decision::Commit).await;
    assert!(matches!(settled, Outcome::Settled(_)), "{settled:?}");
    again.close().await.expect("closes");
}

#[tokio::test]
async fn a_committed_message_keeps_its_delay() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let Outcome::Prepared(half) = prepare_as(shard, &queue, "u1", "later", When::After(5_000)).await else {
        panic!("not prepared")
    };
    let Outcome::Settled(settled) = settle(shard, half.half, half.counter, Decision::Commit).await else {
        panic!("not settled")
    };
    assert_eq!(settled.offset, None);
    assert_eq!(bodies(shard, &queue), [] as [&str; 0]);
    let fire = Command::Fire { upto: settled.at + 5_000, limit: 10 };
    shard.propose(&fire, Admission::Reserved).await.expect("taken");
    assert_eq!(bodies(shard, &queue), ["later"]);
    let Outcome::Settled(repeat) = settle(shard, half.half, half.counter, Decision::Commit).await else {
        panic!("not settled")
    };
    assert_eq!(repeat.offset, Some(QueueOffset::ZERO));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn checks_count_parking_hides_nothing_and_resuming_starts_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let half = prepare(shard, &queue, "u1", "body").await;
    for (due, counts) in [(100, true), (200, false), (300, true)] {
        let halves = vec![CheckedHalf { half: half.half, next_due: Stamp(due), counts, asked: "" }];
        let checked = Command::Checked(Checked { first_checked_upto: Some(half.half), halves });
        assert_eq!(shard.propose(&checked, Admission::Reserved).await, Ok(Outcome::Handled(1)));
    }
    let row = shard.half(half.half).expect("readable").expect("undecided");
    assert_eq!((row.checks, row.next_due), (2, Some(Stamp(300))));
    let park = Command::Park(Park { half: half.half, reason: ParkReason::ChecksExhausted, by: "", why: "" });
    shard.propose(&park, Admission::Reserved).await.expect("taken");
    assert_eq!((shard.counters().open_halves(), shard.counters().parked_halves()), (0, 1));
    let resume = |only_if| Command::Resume(Resume { half: half.half, by: "", why: "", only_if });
    let refused = shard.propose(&resume(Some(ParkReason::NoChecker)), Admission::Reserved).await;
    assert_eq!(refused, Ok(Outcome::Refused(Refusal::NotParked(Some(ParkReason::ChecksExhausted)))));
    assert_eq!(shard.propose(&resume(None), Admission::Reserved).await, Ok(Outcome::Done));
    let row = shard.half(half.half).expect("readable").expect("undecided");
    assert!(row.checks == 0 && row.parked.is_none() && row.next_due > Some(Stamp(300)));
    settle(shard, half.half, half.counter, Decision::Commit).await;
    assert_eq!((shard.counters().open_halves(), shard.counters().parked_halves()), (0, 0));
    assert_eq!(bodies(shard, &queue), ["body"]);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn halves_stay_when_their_topic_is_deleted_and_cannot_be_committed() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let half = prepare(shard, &queue(shard, "T", 0), "u1", "body").await;
    shard.propose(&Command::DeleteTopic("T"), Admission::Reserved).await.expect("taken");
    let row = shard.half(half.half).expect("readable").expect("undecided");
    assert_eq!(row.parked, None, "parking them is left to the check-back, however many they are");
    let commit = settle(shard, half.half, half.counter, Decision::Commit).await;
    assert!(matches!(commit, Outcome::Refused(Refusal::NoSuchQueue(_))), "{commit:?}");
    let rollback = settle(shard, half.half, half.counter, Decision::Rollback).await;
    assert!(matches!(rollback, Outcome::Settled(_)), "{rollback:?}");
    opened.close().await.expect("closes");
}
