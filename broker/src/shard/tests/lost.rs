//! Bytes that cannot be read: for a moment, because their file is gone, or because they are not what was written.

use std::fs;

use rustix::io::Errno;

use super::*;
use crate::log::sim_disk::{Faults, SimDisk};
use crate::retention::{Rewritten, gather, rewritten};
use crate::shard::{GiveUp, GiveUpError, ReadError, Refusal};
use crate::terms::{Content, GroupSettings, Position, QueueOffset};

/// Ten of them and a bit fill a segment.
const BODY: usize = 100_000;

async fn fill(shard: &Shard, queue: &Queue, count: usize) {
    let body = "x".repeat(BODY);
    for _ in 0..count {
        publish(shard, queue, When::Now, &[&body]).await;
    }
}

/// Reads the bytes of a queue's entry.
fn read(shard: &Shard, queue: &Queue, offset: u64) -> Result<(), ReadError> {
    let entry = shard.entry(queue, QueueOffset(offset)).expect("readable").expect("there");
    shard.unit(queue, &entry, &mut BytesMut::new())
}

/// With so little memory for the newest records that old ones are read from files.
fn settings_of_little_memory(dir: &Path) -> StorageSettings {
    let mut settings = settings(dir, Flush::Sync);
    settings.log.tail_cache_bytes = 1;
    settings
}

#[tokio::test]
async fn a_read_that_fails_for_a_moment_lets_no_trim_delete_a_half() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SimDisk::new();
    let settings = settings_of_little_memory(dir.path());
    let opened = Storage::open_on(std::sync::Arc::new(disk.clone()), settings, Clock::system()).await.expect("opens");
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let half = prepare(shard, &queue_now, "u", "half").await;
    fill(shard, &queue_now, 25).await;
    let end = shard.log().end();
    for faults in [
        Faults { fail_reads: Some(Errno::IO.raw_os_error()), ..Faults::default() },
        Faults { fail_reads: Some(Errno::MFILE.raw_os_error()), ..Faults::default() },
    ] {
        disk.set_faults(faults);
        assert!(matches!(read(shard, &queue_now, 0), Err(error @ ReadError::Log { .. }) if error.is_retryable()));
        let load = gather(shard, end).expect("the rest is readable");
        assert!(load.is_empty() && load.lost().is_empty(), "it is neither moved nor passed");
        assert!(load.halves_upto() <= half.half);
        // A commit does not go ahead with bytes that would be trimmed next.
        assert!(matches!(rewritten(shard, half.half, end), Err(ReadError::Log { .. })));
        shard.propose(&Command::Trim { upto: end }, Admission::Reserved).await.expect("taken");
        assert_eq!(shard.counters().trimmed(), half.half.position(), "it is pinned as ever");
        disk.set_faults(Faults::default());
    }
    let load = gather(shard, end).expect("readable");
    assert_eq!(load.pieces().count(), 1);
    let Ok(Rewritten::Anew(messages)) = rewritten(shard, half.half, end) else { panic!("readable, and small") };
    assert_eq!(messages.len(), 1);
    assert!(matches!(settle(shard, half.half, half.counter, Decision::Commit).await, Outcome::Settled(_)));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_half_whose_bytes_are_gone_is_not_committed() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let half = prepare(shard, &queue_now, "u", "half").await;
    fill(shard, &queue_now, 25).await;
    // Retention does this with a half whose bytes are not what was written.
    let roll = crate::shard::Roll { halves_upto: half.half.next(), moved: Vec::new() };
    shard.propose(&Command::Roll(roll), Admission::Reserved).await.expect("taken");
    shard.propose(&Command::Trim { upto: Position::MAX }, Admission::Reserved).await.expect("taken");
    assert!(shard.counters().trimmed() > half.half.position());
    let refused = settle(shard, half.half, half.counter, Decision::Commit).await;
    assert_eq!(refused, Outcome::Refused(Refusal::BytesGone(half.half)));
    assert!(matches!(settle(shard, half.half, half.counter, Decision::Rollback).await, Outcome::Settled(_)));
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_large_transaction_is_moved_in_pieces_before_its_commit() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0);
    let first = prepare(shard, &queue_now, "u", &"y".repeat(3 << 20)).await;
    let unit = unit("T", &"y".repeat(3 << 20)).to_vec();
    for _ in 0..6 {
        let prepare = Prepare {
            queue: queue_now.id,
            when: When::Now,
            immunity: None,
            first_half: Some(first.half),
            content: Content([0; 16]),
            duplicate_window: 0,
            group: "producers",
            client: "client-1",
            unique_id: "",
            message: Message::new(7, &unit),
        };
        let joined = shard.propose(&Command::Prepare(prepare), Admission::Normal).await.expect("taken");
        assert!(matches!(joined, Outcome::Prepared(_)), "{joined:?}");
    }
    let below = shard.log().end();
    let mut moves = 0;
    let messages = loop {
        match rewritten(shard, first.half, below).expect("readable") {
            Rewritten::Anew(messages) => break messages,
            Rewritten::Move(load) => {
                let moved = load.command(|command| shard.propose(command, Admission::Reserved)).await;
                assert!(matches!(moved, Ok(Outcome::Handled(1..))), "{moved:?}");
                moves += 1;
            }
        }
        assert!(moves < 10, "each move leaves less to do");
    };
    assert!(moves >= 2 && !messages.is_empty(), "{moves} moves, then {}", messages.len());
    opened.close().await.expect("closes");
}

/// A shard of three and more segments, of which the first is moved away while nobody has it open.
async fn without_its_first_segment(dir: &Path) -> (Storage, std::path::PathBuf, std::path::PathBuf) {
    let opened = open(dir).await;
    make_topic(&opened.shard, "T", 2).await;
    let settings = encode_cold(&GroupSettings::new("G"));
    opened.shard.propose(&Command::PutGroup(&settings), Admission::Normal).await.expect("taken");
    publish(&opened.shard, &queue(&opened.shard, "T", 1), When::Now, &["elsewhere"]).await;
    fill(&opened.shard, &queue(&opened.shard, "T", 0), 25).await;
    opened.close().await.expect("closes");
    let opened = open(dir).await;
    let mut segments: Vec<_> = fs::read_dir(dir.join("log"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('0')))
        .collect();
    segments.sort();
    let (from, to) = (segments[0].clone(), dir.join("aside"));
    fs::rename(&from, &to).expect("moved");
    opened.shard.log().close_cold_files();
    (opened, from, to)
}

#[tokio::test]
async fn a_queue_waits_at_a_missing_file_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (opened, from, aside) = without_its_first_segment(dir.path()).await;
    let queue_now = queue(&opened.shard, "T", 0);
    let error = read(&opened.shard, &queue_now, 0).expect_err("its file is missing");
    assert!(error.is_damage() && error.is_retryable() && !error.is_gone());
    let told = error.to_string();
    assert!(told.contains(&from.display().to_string()) && told.contains("give-up"), "{told}");
    read(&opened.shard, &queue_now, 24).expect("others are there");
    let position = opened.shard.entry(&queue_now, QueueOffset::ZERO).expect("readable").expect("there").position;
    opened.shard.unit_at(position).expect_err("missing is not the same as none");
    fs::rename(aside, from).expect("back");
    read(&opened.shard, &queue_now, 0).expect("it is back");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn what_an_operator_gives_up_is_passed_counted_and_remembered() {
    let dir = tempfile::tempdir().expect("a folder");
    let (opened, from, aside) = without_its_first_segment(dir.path()).await;
    let shard = &opened.shard;
    let (busy, idle) = (queue(shard, "T", 0), queue(shard, "T", 1));
    let position = shard.entry(&busy, QueueOffset(3)).expect("readable").expect("there").position;
    let lost = shard.to_give_up(position).expect("its file is missing");
    let within = shard.entries_within(&lost).expect("readable");
    assert!((9..12).contains(&within), "those of both queues in the file: {within}");
    let readable = shard.entry(&busy, QueueOffset(24)).expect("readable").expect("there").position;
    assert!(matches!(shard.to_give_up(readable), Err(GiveUpError::Readable(_))));
    assert!(matches!(shard.to_give_up(Position::MAX), Err(GiveUpError::NoSuchPlace(_))));
    let given = GiveUp { positions: lost, messages: within, by: "ann", why: "the disk died" };
    assert_eq!(shard.propose(&Command::GiveUp(given), Admission::Reserved).await, Ok(Outcome::Done));
    assert!(matches!(shard.to_give_up(position), Err(GiveUpError::GivenUpBefore(_))));
    let check = |shard: &Shard, busy: &Queue, idle: &Queue| {
        for (queue, offset) in [(busy, 0), (busy, 3), (idle, 0)] {
            assert!(matches!(read(shard, queue, offset), Err(ReadError::GivenUp { .. })));
        }
        read(shard, busy, 24).expect("others are there");
        assert_eq!(shard.lost().messages(), within);
        assert_eq!(shard.lost().ranges()[0].why, "the disk died");
    };
    check(shard, &busy, &idle);
    fs::rename(aside, from).expect("back, for the start");
    opened.close().await.expect("closes");
    let opened = open(dir.path()).await;
    let (busy, idle) = (queue(&opened.shard, "T", 0), queue(&opened.shard, "T", 1));
    assert_eq!(opened.shard.lost().messages(), within);
    read(&opened.shard, &busy, 3).expect("what can be read after all is served");
    read(&opened.shard, &idle, 0).expect("what can be read after all is served");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_truncated_file_is_missing_what_lay_behind_its_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let (opened, from, aside) = without_its_first_segment(dir.path()).await;
    let shard = &opened.shard;
    let queue_now = queue(shard, "T", 0);
    fs::rename(aside, &from).expect("back");
    let entry = |offset| shard.entry(&queue_now, offset).expect("readable").expect("there");
    let file = fs::OpenOptions::new().write(true).open(&from).expect("there");
    // Within the fifth message.
    let first = shard.log().segments()[0].start;
    file.set_len(crate::log::format::SEGMENT_HEADER_BYTES + entry(QueueOffset(4)).position.since(first) + 50_000)
        .expect("cut");
    read(shard, &queue_now, 3).expect("before the cut");
    for offset in [4, 5] {
        let error = read(shard, &queue_now, offset).expect_err("behind the cut");
        assert!(matches!(&error, ReadError::Missing { .. }), "{error}");
    }
    assert_eq!(
        shard.to_give_up(entry(QueueOffset(4)).position).expect("cut in two"),
        entry(QueueOffset(4)).position..entry(QueueOffset(4)).position.advance(1)
    );
    let behind = shard.to_give_up(entry(QueueOffset(5)).position).expect("cut off");
    assert!(behind.contains(&entry(QueueOffset(6)).position) && !behind.contains(&entry(QueueOffset(4)).position));
    opened.close().await.expect("closes");
}
