//! Transactions of several messages, leases, listings, and plain messages that are sent again.

use super::*;
use crate::shard::{Checked, CheckedHalf, Extend, HalfQuery, Once, Park, Refusal, Resume, SettledMember};
use crate::terms::{Entered, ParkReason, QueueOffset, Stamp};

async fn join(shard: &Shard, queue: &Queue, first: HalfId, unique_id: &str, body: &str) -> Outcome {
    let unit = unit(&queue.topic, body).to_vec();
    let prepare = Prepare {
        queue: queue.id,
        when: When::Now,
        immunity: Some(1),
        first_half: Some(first),
        content: Content::of(body.as_bytes(), ""),
        duplicate_window: 60_000,
        group: "producers",
        client: "client-1",
        unique_id,
        message: Message::new(7, &unit),
    };
    shard.propose(&Command::Prepare(prepare), Admission::Normal).await.expect("taken")
}

fn joined(outcome: Outcome) -> Prepared {
    match outcome {
        Outcome::Prepared(prepared) => prepared,
        other => panic!("{other:?}"),
    }
}

fn ids(shard: &Shard, query: &HalfQuery<'_>) -> Vec<HalfId> {
    shard.halves(query, 100).expect("readable").iter().map(|row| row.half).collect()
}

#[tokio::test]
async fn several_messages_are_settled_by_one_decision() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    make_topic(shard, "U", 2).await;
    let (t, u) = (queue(shard, "T", 0), queue(shard, "U", 1));
    let first = prepare(shard, &t, "u1", "one").await;
    let second = joined(join(shard, &u, first.half, "u2", "two").await);
    let third = joined(join(shard, &t, first.half, "u3", "three").await);
    assert_eq!(
        join(shard, &u, first.half, "u2", "two").await,
        Outcome::Prepared(Prepared { repeated: true, ..second })
    );
    let due = crate::index::half::next_due(shard.index(), Stamp::ZERO).expect("readable");
    assert_eq!(due, None, "a further half has no check of its own");
    assert_eq!((bodies(shard, &t), bodies(shard, &u)), (vec![], vec![]));
    opened.close().await.expect("closes");

    // Any of them names the transaction, also after a restart.
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    let (t, u) = (queue(shard, "T", 0), queue(shard, "U", 1));
    let Outcome::Settled(settled) = settle(shard, third.half, third.counter, Decision::Commit).await else {
        panic!("not settled")
    };
    let member = |half, queue: &Queue, offset| SettledMember { half, queue: queue.id, offset: Some(offset) };
    assert_eq!((settled.queue, settled.offset, settled.first), (t.id, Some(QueueOffset::ZERO), true));
    assert_eq!(settled.members, [member(second.half, &u, QueueOffset::ZERO), member(third.half, &t, QueueOffset(1))]);
    assert_eq!(
        (bodies(shard, &t), bodies(shard, &u)),
        (vec!["one".to_owned(), "three".to_owned()], vec!["two".to_owned()])
    );
    for half in [&first, &second, &third] {
        let Outcome::Settled(again) = settle(shard, half.half, half.counter, Decision::Commit).await else {
            panic!("a repeat gets the first one's result")
        };
        assert_eq!((again.offset, again.first, &again.members), (Some(QueueOffset::ZERO), false, &settled.members));
        let opposite = settle(shard, half.half, half.counter, Decision::Rollback).await;
        assert!(matches!(opposite, Outcome::Refused(Refusal::AlreadyDecided(_))), "{opposite:?}");
    }
    let late = join(shard, &u, first.half, "u4", "four").await;
    assert!(matches!(late, Outcome::Refused(Refusal::AlreadyDecided(_))), "{late:?}");
    assert_eq!((shard.counters().open_halves(), shard.counters().committed()), (0, 3));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn who_may_not_join_is_told_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let first = prepare(shard, &queue, "u1", "one").await;
    let second = joined(join(shard, &queue, first.half, "u2", "two").await);
    let refused = |outcome| match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let missing = refused(join(shard, &queue, HalfId(3), "u3", "three").await);
    assert_eq!(missing, Refusal::NoSuchHalf(HalfId(3)));
    let of_member = refused(join(shard, &queue, second.half, "u3", "three").await);
    assert_eq!(of_member, Refusal::NotFirstHalf(second.half, first.half));
    // A message is of one transaction.
    let other = prepare(shard, &queue, "u9", "nine").await;
    let elsewhere = refused(join(shard, &queue, other.half, "u2", "two").await);
    assert_eq!(elsewhere, Refusal::UniqueIdTaken(second.half));
    for nth in 2..128 {
        joined(join(shard, &queue, first.half, &format!("more {nth}"), "more").await);
    }
    assert_eq!(refused(join(shard, &queue, first.half, "u3", "three").await), Refusal::TransactionFull(128));
    let park = Command::Park(Park { half: second.half, reason: ParkReason::Operator, by: "ann", why: "look" });
    shard.propose(&park, Admission::Reserved).await.expect("taken");
    assert_eq!((shard.counters().open_halves(), shard.counters().parked_halves()), (1, 128));
    assert_eq!(settle(shard, first.half, first.counter, Decision::Rollback).await.settled_count(), 128);
    assert_eq!((shard.counters().open_halves(), shard.counters().parked_halves()), (1, 0));
    opened.close().await.expect("closes");
}

impl Outcome {
    fn settled_count(&self) -> usize {
        match self {
            Outcome::Settled(settled) => 1 + settled.members.len(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_lease_moves_the_next_check_and_gives_the_attempt_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let half = prepare(shard, &queue, "u1", "one").await;
    let member = joined(join(shard, &queue, half.half, "u2", "two").await);
    let extend = |named: &Prepared, group, until, is_answer| {
        let (half, counter) = (named.half, named.counter);
        shard.propose(&Command::Extend(Extend { half, counter, group, until, is_answer }), Admission::Reserved)
    };
    let checked = CheckedHalf { half: half.half, next_due: Stamp(5000), counts: true, asked: "client-2" };
    let checked = Command::Checked(Checked { first_checked_upto: Some(half.half), halves: vec![checked] });
    shard.propose(&checked, Admission::Reserved).await.expect("taken");
    let row = || shard.half(half.half).expect("readable").expect("open");
    assert_eq!((row().checks, row().next_due, row().asked[0].client.as_str()), (1, Some(Stamp(5000)), "client-2"));
    extend(&half, "producers", Stamp(2000), true).await.expect("taken");
    assert_eq!((row().checks, row().next_due), (0, Some(Stamp(2000))), "an answer says when exactly");
    extend(&half, "producers", Stamp(1000), false).await.expect("taken");
    assert_eq!(row().next_due, Some(Stamp(2000)), "a sign of life shortens nothing");
    extend(&member, "producers", Stamp(9000), false).await.expect("taken");
    assert_eq!(row().next_due, Some(Stamp(9000)), "any half stands for the transaction");
    let due = crate::index::half::next_due(shard.index(), Stamp::ZERO).expect("readable");
    assert_eq!(due, Some(Stamp(9000)), "and there is one due time");
    let stranger = extend(&half, "strangers", Stamp(9999), false).await.expect("taken");
    assert_eq!(stranger, Outcome::Refused(Refusal::WrongGroup("producers".into())));
    settle(shard, half.half, half.counter, Decision::Rollback).await;
    let late = extend(&half, "producers", Stamp(9999), false).await.expect("taken");
    assert!(matches!(late, Outcome::Refused(Refusal::AlreadyDecided(_))), "{late:?}");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn listings_follow_every_change_and_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 2).await;
    make_topic(shard, "U", 1).await;
    let (t, u) = (queue(shard, "T", 1), queue(shard, "U", 0));
    let mut halves = Vec::new();
    for nth in 0..6 {
        let queue = if nth % 2 == 0 { &t } else { &u };
        halves.push(prepare(shard, queue, &format!("u{nth}"), "body").await);
    }
    let id = |nth: usize| halves[nth].half;
    let park = Command::Park(Park { half: id(2), reason: ParkReason::Operator, by: "ann", why: "to look at it" });
    shard.propose(&park, Admission::Reserved).await.expect("taken");
    settle(shard, id(3), halves[3].counter, Decision::Commit).await;
    let look = |shard: &Shard| {
        let all = HalfQuery::default();
        let of_t = HalfQuery { topic: Some("T"), ..HalfQuery::default() };
        let open =
            HalfQuery { group: Some("producers"), parked: Some(false), after: Some(id(0)), ..HalfQuery::default() };
        let parked = HalfQuery { parked: Some(true), ..HalfQuery::default() };
        [all, of_t, open, parked].map(|query| ids(shard, &query))
    };
    let expected =
        [vec![id(0), id(1), id(2), id(4), id(5)], vec![id(0), id(2), id(4)], vec![id(1), id(4), id(5)], vec![id(2)]];
    assert_eq!(look(shard), expected);
    assert_eq!(ids(shard, &HalfQuery { group: Some("strangers"), ..HalfQuery::default() }), [] as [HalfId; 0]);
    let old = HalfQuery { prepared_until: Some(halves[1].stamp), ..HalfQuery::default() };
    assert!(ids(shard, &old).starts_with(&[id(0), id(1)]));
    let none = HalfQuery { prepared_until: Some(halves[0].stamp.saturating_sub(1)), ..HalfQuery::default() };
    assert_eq!(ids(shard, &none), [] as [HalfId; 0]);
    opened.close().await.expect("closes");

    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    assert_eq!(look(shard), expected);
    let group = shard.producers().get("producers").expect("known");
    assert_eq!((group.open(), group.parked()), (4, 1));
    let resume = Command::Resume(Resume { half: id(2), by: "bob", why: "seen", only_if: None });
    shard.propose(&resume, Admission::Reserved).await.expect("taken");
    let acts = shard.half(id(2)).expect("readable").expect("open").acts;
    let acts: Vec<_> = acts.iter().map(|act| (act.parked, act.by.as_str(), act.why.as_str())).collect();
    assert_eq!(acts, [(true, "ann", "to look at it"), (false, "bob", "seen")]);
    assert_eq!((group.open(), group.parked()), (5, 0));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_plain_message_that_is_sent_again_is_where_the_first_one_went() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 2).await;
    let (zero, one) = (queue(shard, "T", 0), queue(shard, "T", 1));
    let send = async |queue: &Queue, unique_id: &str, body: &str, when| {
        let unit = unit(&queue.topic, body).to_vec();
        let once = Some(Once { unique_id, content: Content::of(body.as_bytes(), ""), window: 60_000 });
        let messages = MessageList::One(Message::new(7, &unit));
        let publish = Command::Publish(Publish { queue: queue.id, when, messages, once });
        shard.propose(&publish, Admission::Normal).await.expect("taken")
    };
    let Outcome::Published(first) = send(&zero, "u1", "one", When::Now).await else { panic!("not published") };
    assert_eq!((first.entered, first.repeats), (Entered::Queue(QueueOffset::ZERO), None));
    let Outcome::Published(again) = send(&one, "u1", "one", When::Now).await else { panic!("not published") };
    assert_eq!(again, Published { repeats: Some(zero.id), ..first });
    let Outcome::Published(other) = send(&one, "u1", "two", When::Now).await else { panic!("not published") };
    assert_eq!(
        (other.entered, other.repeats),
        (Entered::Queue(QueueOffset::ZERO), None),
        "another message, whose sender made the same key"
    );
    let Outcome::Published(again) = send(&zero, "u1", "two", When::Now).await else { panic!("not published") };
    assert_eq!(again, Published { repeats: Some(one.id), ..other });
    let Outcome::Published(later) = send(&zero, "u2", "later", When::After(60_000)).await else {
        panic!("not published")
    };
    let Outcome::Published(again) = send(&zero, "u2", "later", When::After(60_000)).await else {
        panic!("not published")
    };
    assert_eq!(again, Published { repeats: Some(zero.id), ..later });
    assert_eq!((bodies(shard, &zero), bodies(shard, &one)), (vec!["one".to_owned()], vec!["two".to_owned()]));
    // A half with the same key is another matter.
    prepare(shard, &zero, "u1", "one").await;
    assert_eq!(shard.counters().open_halves(), 1);
    opened.close().await.expect("closes");
}
