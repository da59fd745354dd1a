//! Retention: messages go, others stay, and a restart makes no difference.

use super::*;
use crate::index::pin;
use crate::index::{self, meta};
use crate::log::RecordId;
use crate::shard::{Moved, Roll};
use crate::terms::{Entered, LogIndex, PinOwner, Position, QueueOffset, Stamp};

/// Ten of them and a bit fill a segment.
const BODY: usize = 100_000;

fn body(name: &str) -> String {
    let padding = " ".repeat(BODY - name.len());
    format!("{name}{padding}")
}

async fn fill(shard: &Shard, queue: &Queue, names: std::ops::Range<usize>) {
    for name in names {
        publish(shard, queue, When::Now, &[&body(&format!("m{name}"))]).await;
    }
}

async fn trim(shard: &Shard, upto: Position) {
    let outcome = shard.propose(&Command::Trim { upto }, Admission::Reserved).await.expect("taken");
    assert_eq!(outcome, Outcome::Done);
}

fn names(shard: &Shard, queue: &Queue) -> Vec<String> {
    bodies(shard, queue).iter().map(|body| body.trim().to_owned()).collect()
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|name| format!("m{name}")).collect()
}

/// Lets the files go that lie below what was trimmed, and waits until they are gone.
async fn purge(opened: &Storage) -> RecordId {
    let log = opened.shard.log();
    let trimmed = opened.shard.counters().trimmed();
    let next = log.segments().into_iter().rfind(|segment| segment.start <= trimmed).expect("a segment");
    let last = LogIndex(next.first_index.0 - 1);
    opened.applier().keep_base(last).expect("the index is copied");
    opened.purger().purge(last);
    tokio::time::timeout(Duration::from_secs(20), async {
        while log.purged().is_none_or(|purged| purged.index < last) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("files go");
    log.purged().expect("just waited for")
}

fn pins(shard: &Shard) -> Vec<(Position, PinOwner)> {
    let mut pins = Vec::new();
    pin::scan(shard.index(), Position::ZERO, Position::MAX, |position, owner| {
        pins.push((position, owner));
        true
    })
    .expect("readable");
    pins
}

#[tokio::test]
async fn a_trim_takes_whole_files_of_messages_and_a_restart_goes_on_behind_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 2).await;
    let busy = queue(&opened.shard, "T", 0);
    let idle = queue(&opened.shard, "T", 1);
    publish(&opened.shard, &idle, When::Now, &["old"]).await;
    fill(&opened.shard, &busy, 0..45).await;
    let cut = opened.shard.log().segments()[2].start;
    trim(&opened.shard, cut).await;
    assert_eq!(opened.shard.counters().trimmed(), cut);
    let first = busy.min_offset().0 as usize;
    assert!((15..25).contains(&first), "{first}");
    assert_eq!(names(&opened.shard, &busy), expected(first..45));
    let first_entry = opened.shard.entry(&busy, QueueOffset(first as u64)).expect("readable").expect("there");
    assert!(first_entry.position >= cut, "nothing kept lies below the cut");
    assert_eq!(
        (idle.min_offset(), idle.max_offset()),
        (QueueOffset(1), QueueOffset(1)),
        "an empty queue goes on counting"
    );
    let purged = purge(&opened).await;
    assert_eq!(opened.shard.log().first_position(), cut);
    // A cut below the present one, or a repeated one, changes nothing.
    trim(&opened.shard, Position(cut.get() / 2)).await;
    assert_eq!(opened.shard.counters().trimmed(), cut);

    for _ in 0..2 {
        opened.close().await.expect("closes");
        opened = open(dir.path()).await;
        let (busy, idle) = (queue(&opened.shard, "T", 0), queue(&opened.shard, "T", 1));
        assert_eq!(opened.shard.log().purged(), Some(purged));
        assert_eq!(opened.shard.counters().trimmed(), cut);
        assert_eq!(names(&opened.shard, &busy), expected(first..45));
        assert_eq!((idle.min_offset(), idle.max_offset()), (QueueOffset(1), QueueOffset(1)));
    }
    let idle = queue(&opened.shard, "T", 1);
    assert_eq!(publish(&opened.shard, &idle, When::Now, &["new"]).await.entered, Entered::Queue(QueueOffset(1)));
    // Everything may go but the file that is written to.
    let end = opened.shard.log().end();
    trim(&opened.shard, end).await;
    let busy = queue(&opened.shard, "T", 0);
    assert_eq!((busy.min_offset(), busy.max_offset()), (QueueOffset(45), QueueOffset(45)));
    purge(&opened).await;
    assert_eq!(opened.shard.log().segments().len(), 1);
    fill(&opened.shard, &busy, 45..47).await;
    opened.close().await.expect("closes");
    let opened = open(dir.path()).await;
    let busy = queue(&opened.shard, "T", 0);
    assert_eq!((busy.min_offset(), names(&opened.shard, &busy)), (QueueOffset(45), expected(45..47)));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_trim_stops_at_what_a_half_or_a_waiting_message_needs() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    fill(shard, &queue, 0..15).await;
    let half = prepare(shard, &queue, "u", "half").await;
    fill(shard, &queue, 15..30).await;
    let waiting = publish(shard, &queue, When::After(3_600_000), &["waiting"]).await;
    fill(shard, &queue, 30..45).await;
    let end = shard.log().end();

    trim(shard, end).await;
    assert_eq!(shard.counters().trimmed(), half.half.position());
    assert_eq!(names(shard, &queue), expected(15..45));
    settle(shard, half.half, half.counter, Decision::Rollback).await;
    trim(shard, end).await;
    assert_eq!(shard.counters().trimmed(), waiting.position);
    assert_eq!(names(shard, &queue), expected(30..45));
    let fire = Command::Fire { upto: Stamp(u64::MAX - 1), limit: 10 };
    assert_eq!(shard.propose(&fire, Admission::Reserved).await, Ok(Outcome::Handled(1)));
    trim(shard, end).await;
    assert_eq!(shard.counters().trimmed(), end);
    assert!(pins(shard).is_empty());
    opened.close().await.expect("closes");
}

/// Moves everything that is pinned, as the runner does.
async fn roll_all(shard: &Shard) -> usize {
    let index = shard.index();
    let mut units = Vec::new();
    let mut halves_upto = meta::kept(index).expect("readable").moved_halves;
    index::half::scan(index, HalfId::ZERO, |row| {
        let unit = shard.raw_unit(row.position, row.length).expect("readable");
        units.push((PinOwner::Half { half: row.half }, row.position, row.tag_hash, unit));
        halves_upto = row.half.next();
        true
    })
    .expect("readable");
    for row in index::timer::due(index, Stamp::ZERO, Stamp(u64::MAX - 1), 100).expect("readable") {
        let unit = shard.raw_unit(row.position, row.length).expect("readable");
        units.push((PinOwner::Timer { due: row.due }, row.position, row.tag_hash, unit));
    }
    let moved = units.iter().map(|(owner, from, tag_hash, unit)| Moved {
        owner: *owner,
        from: *from,
        message: Message::new(*tag_hash, unit),
    });
    let roll = Roll { halves_upto, moved: moved.collect() };
    let count = roll.moved.len();
    let outcome = shard.propose(&Command::Roll(roll), Admission::Reserved).await;
    assert_eq!(outcome, Ok(Outcome::Handled(count as u32)));
    count
}

#[tokio::test]
async fn what_was_moved_is_delivered_checked_and_decided_as_ever() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let mut queue_now = queue(&opened.shard, "T", 0);
    let [a, b, c] = [
        prepare(&opened.shard, &queue_now, "a", "half a").await,
        prepare(&opened.shard, &queue_now, "b", "half b").await,
        prepare(&opened.shard, &queue_now, "c", "half c").await,
    ];
    let delayed = match prepare_as(&opened.shard, &queue_now, "d", "half d", When::After(3_600_000)).await {
        Outcome::Prepared(prepared) => prepared,
        other => panic!("{other:?}"),
    };
    publish(&opened.shard, &queue_now, When::After(7_200_000), &["waiting"]).await;
    // Twice: what was moved is moved again, also over a restart, and everything below goes each time.
    for round in 0..2 {
        fill(&opened.shard, &queue_now, 20 * round..20 * (round + 1)).await;
        assert_eq!(roll_all(&opened.shard).await, 5);
        let lowest = opened.shard.lowest_pin().expect("readable").expect("five pins");
        trim(&opened.shard, Position::MAX).await;
        assert_eq!(opened.shard.counters().trimmed(), lowest, "up to the first one that was moved");
        assert_eq!(queue_now.min_offset().0 as usize, 20 * (round + 1));
        purge(&opened).await;
        opened.close().await.expect("closes");
        if round == 1 {
            // The index is lost: the copy of it and the log make it again.
            std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
        }
        opened = open(dir.path()).await;
        queue_now = queue(&opened.shard, "T", 0);
    }
    let shard = &opened.shard;
    assert_eq!(shard.counters().open_halves(), 4);
    // A check carries the message under the id that its producer knows.
    let row = shard.half(a.half).expect("readable").expect("undecided");
    assert_ne!(row.position, a.half.position());
    let mut unit = BytesMut::new();
    shard.half_unit(&row, &mut unit).expect("readable");
    let unit = escrowmq_common::message::MessageUnit::decode(&unit).expect("a unit");
    assert_eq!((unit.body(), unit.position()), (&b"half a"[..], a.half.0.cast_signed()));

    settle(shard, a.half, a.counter, Decision::Commit).await;
    settle(shard, b.half, b.counter, Decision::Rollback).await;
    settle(shard, delayed.half, delayed.counter, Decision::Commit).await;
    assert_eq!(names(shard, &queue_now), ["half a"]);
    let owners: Vec<PinOwner> = pins(shard).into_iter().map(|(_, owner)| owner).collect();
    assert_eq!(owners.len(), 3, "c, the delayed commit and the waiting message: {owners:?}");
    assert!(owners.contains(&PinOwner::Half { half: c.half }));
    assert_eq!(roll_all(shard).await, 3, "a committed message that waits is moved too");
    let fire = Command::Fire { upto: Stamp(u64::MAX - 1), limit: 10 };
    assert_eq!(shard.propose(&fire, Admission::Reserved).await, Ok(Outcome::Handled(2)));
    settle(shard, c.half, c.counter, Decision::Commit).await;
    assert_eq!(names(shard, &queue_now), ["half a", "half d", "waiting", "half c"]);
    assert!(pins(shard).is_empty());
    // Found by the id that the producer knows.
    let located = shard.locate(c.half.position(), queue_now.id).expect("readable").expect("in the queue");
    assert_eq!(located.entry.half, c.half);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn an_index_that_the_log_cannot_make_again_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let queue_now = queue(&opened.shard, "T", 0);
    fill(&opened.shard, &queue_now, 0..25).await;
    let end = opened.shard.log().end();
    trim(&opened.shard, end).await;
    purge(&opened).await;
    opened.close().await.expect("closes");
    for folder in ["index", "base"] {
        std::fs::remove_dir_all(dir.path().join(folder)).expect("removed");
    }
    let refused = Storage::open(settings(dir.path(), Flush::Sync), Clock::system()).await.map(|_| ());
    let told = refused.expect_err("the messages' places are lost").to_string();
    assert!(told.contains("the index was lost") && told.contains("'base'"), "{told}");
}

#[tokio::test]
async fn a_settle_that_brings_the_bytes_anew_points_at_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue = queue(shard, "T", 0);
    let half = prepare(shard, &queue, "u", "half").await;
    fill(shard, &queue, 0..25).await;
    let row = shard.half(half.half).expect("readable").expect("undecided");
    let unit = shard.raw_unit(row.position, row.length).expect("readable");
    let command = Command::Settle(Settle {
        half: half.half,
        counter: Some(half.counter),
        decision: Decision::Commit,
        group: Some("producers"),
        by: "",
        reason: "",
        rewritten: vec![(half.half, Message::new(7, &unit))],
    });
    let end = shard.log().end();
    shard.propose(&command, Admission::Reserved).await.expect("taken");
    trim(shard, end).await;
    purge(&opened).await;
    assert_eq!(names(shard, &queue), ["half"]);
    assert_eq!(shard.entry(&queue, QueueOffset(25)).expect("readable").expect("there").half, half.half);
    opened.close().await.expect("closes");
}
