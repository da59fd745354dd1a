//! Commands that are too long, entries that do not decode, completions that panic: each costs its own sender alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use bytes::{BufMut, Bytes};

use super::*;
use crate::check::{Action, Folder, Kind, RepairError, RepairOptions};
use crate::latch::{Failure, FailureLatch};
use crate::log::{Log, NewRecord, RealDisk};
use crate::raft::kind;
use crate::shard::intake::Intake;
use crate::shard::{
    Batch, Checked, CheckedHalf, Extend, GiveUp, Lock, OffsetCommit, Once, OpenBatch, Park, Refusal, Resume, Settings,
    SubmitError, WriteUnit,
};
use crate::terms::{Content, GroupSettings, LogIndex, ParkReason, Position, QueueOffset, Stamp};

/// Every command with a text of its own, that text being this one.
fn with_text<'a>(text: &'a str, unit: &'a dyn WriteUnit) -> Vec<Command<'a>> {
    let queue = crate::terms::QueueId(1);
    let settle = Settle {
        half: HalfId(1),
        counter: None,
        decision: Decision::Commit,
        group: None,
        by: "",
        reason: "",
        rewritten: Vec::new(),
    };
    let lock = Lock { group: "g", client: "c", life: 1, queues: vec![queue] };
    let prepare = Prepare {
        queue,
        when: When::Now,
        immunity: None,
        first_half: None,
        content: Content([0; 16]),
        duplicate_window: 0,
        group: "g",
        client: "c",
        unique_id: "u",
        message: Message::new(0, unit),
    };
    let once = Once { unique_id: text, content: Content([0; 16]), window: 1 };
    let messages = MessageList::One(Message::new(0, unit));
    let asked = CheckedHalf { half: HalfId(1), next_due: Stamp(1), counts: true, asked: text };
    vec![
        Command::Publish(Publish { queue, when: When::Now, messages, once: Some(once) }),
        Command::Prepare(Prepare { group: text, ..prepare.clone() }),
        Command::Prepare(Prepare { client: text, ..prepare.clone() }),
        Command::Prepare(Prepare { unique_id: text, ..prepare }),
        Command::Settle(Settle { group: Some(text), ..settle.clone() }),
        Command::Settle(Settle { by: text, ..settle.clone() }),
        Command::Settle(Settle { reason: text, ..settle }),
        Command::Checked(Checked { first_checked_upto: None, halves: vec![asked] }),
        Command::Extend(Extend { half: HalfId(1), counter: 1, group: text, until: Stamp(1), is_answer: false }),
        Command::Park(Park { half: HalfId(1), reason: ParkReason::Operator, by: text, why: "" }),
        Command::Park(Park { half: HalfId(1), reason: ParkReason::Operator, by: "", why: text }),
        Command::Resume(Resume { half: HalfId(1), by: text, why: "", only_if: None }),
        Command::Resume(Resume { half: HalfId(1), by: "", why: text, only_if: None }),
        Command::CommitOffsets(vec![OffsetCommit { group: text, queue, offset: QueueOffset(1) }]),
        Command::DeleteTopic(text),
        Command::DeleteGroup { group: text, offsets: true },
        Command::Lock(Lock { group: text, ..lock.clone() }),
        Command::Lock(Lock { client: text, ..lock.clone() }),
        Command::Unlock(Lock { group: text, ..lock.clone() }),
        Command::Unlock(Lock { client: text, ..lock }),
        Command::GiveUp(GiveUp { positions: Position(1)..Position(2), messages: 0, by: text, why: "" }),
        Command::GiveUp(GiveUp { positions: Position(1)..Position(2), messages: 0, by: "", why: text }),
        Command::Settings(Settings { only_missing: false, values: vec![("", ""), (text, "")] }),
        Command::Settings(Settings { only_missing: true, values: vec![("", ""), ("", text)] }),
    ]
}

#[tokio::test]
async fn a_name_that_is_too_long_is_refused_and_the_batch_stays_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let queue_now = queue(&opened.shard, "T", 0);
    let unit = unit("T", "x").to_vec();
    let mut expected = Vec::new();
    for length in [65_535, 65_536, 70_000] {
        let text = "n".repeat(length);
        for command in with_text(&text, &unit) {
            let refused = opened.shard.propose(&command, Admission::Reserved).await;
            assert!(matches!(&refused, Err(SubmitError::TooLong(long)) if long.length == length), "{refused:?}");
            let body = format!("m{}", expected.len());
            publish(&opened.shard, &queue_now, When::Now, &[&body]).await;
            expected.push(body);
        }
    }
    opened.close().await.expect("closes");
    let opened = open(dir.path()).await;
    assert_eq!(bodies(&opened.shard, &queue(&opened.shard, "T", 0)), expected);
    opened.close().await.expect("closes");
}

#[test]
fn every_command_is_pushed_whole_or_not_at_all() {
    struct Broken;
    impl WriteUnit for Broken {
        fn write_unit(&self, out: &mut BytesMut) {
            out.put_slice(b"half of a unit");
            panic!("planted");
        }
    }
    let mut batch = OpenBatch::with_capacity(64);
    batch.push(&Command::DeleteTopic("whole")).expect("short");
    let before = batch.len();
    let messages = MessageList::One(Message::new(0, &Broken));
    let publish = Command::Publish(Publish { queue: crate::terms::QueueId(1), when: When::Now, messages, once: None });
    catch_unwind(AssertUnwindSafe(|| batch.push(&publish))).expect_err("it panics");
    batch.push(&Command::DeleteTopic(&"x".repeat(300))).expect_err("too long");
    assert_eq!(batch.len(), before);
    batch.check().expect("reads back");
    let unit = unit("T", "x").to_vec();
    for command in with_text("short", &unit) {
        let mut alone = OpenBatch::with_capacity(64);
        alone.push(&command).expect("short");
        alone.check().expect("reads back");
        let payload = alone.seal(Stamp(1));
        assert_eq!(Batch::decode(&payload).expect("a batch").commands().expect("commands").len(), 1);
    }
}

#[test]
fn a_batch_that_does_not_read_back_is_found_out() {
    let mut junk = OpenBatch::with_capacity(64);
    junk.push_bytes(&[200, 0, 0, 0, 0]);
    junk.check().expect_err("no such command");
    let mut behind = OpenBatch::with_capacity(64);
    behind.push(&Command::DeleteTopic("a")).expect("short");
    behind.push(&Command::DeleteTopic("b")).expect("short");
    assert!(behind.check().expect_err("two that must be alone").what.contains("alone"));
}

#[tokio::test]
async fn a_completion_that_panics_costs_its_own_caller_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let queue_now = queue(&opened.shard, "T", 0);
    let unit = unit("T", "first").to_vec();
    let messages = MessageList::One(Message::new(0, &unit));
    let command = Command::Publish(Publish { queue: queue_now.id, when: When::Now, messages, once: None });
    opened.shard.submit(&command, Admission::Normal, Box::new(|_| panic!("planted"))).map_err(|_| ()).expect("taken");
    publish(&opened.shard, &queue_now, When::Now, &["second"]).await;
    assert_eq!(bodies(&opened.shard, &queue_now), ["first", "second"]);
    assert!(!opened.shard.intake().latch().is_closed());
    opened.close().await.expect("closes");
}

#[test]
fn a_command_that_meets_the_failure_of_the_store_is_answered() {
    for _ in 0..500 {
        let latch = FailureLatch::default();
        let (intake, barrier) = (Intake::new(&latch, Clock::system()), Barrier::new(3));
        intake.set_leading(true);
        let told = Arc::new(AtomicUsize::new(0));
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..20 {
                        let told = Arc::clone(&told);
                        let completion = Box::new(move |_| {
                            told.fetch_add(1, Ordering::Relaxed);
                        });
                        let submitted =
                            intake.submit(&Command::Fire { upto: Stamp(1), limit: 1 }, Admission::Reserved, completion);
                        taken.fetch_add(usize::from(submitted.is_ok()), Ordering::Relaxed);
                    }
                });
            }
            barrier.wait();
            latch.close(Failure::storage("flush", std::io::Error::other("no")));
        });
        assert_eq!(
            told.load(Ordering::Relaxed),
            taken.load(Ordering::Relaxed),
            "each command that was taken is answered"
        );
        let late = intake.submit(&Command::Fire { upto: Stamp(1), limit: 1 }, Admission::Reserved, Box::new(|_| ()));
        assert!(matches!(late, Err((SubmitError::StoreFailed, _))));
    }
}

#[tokio::test]
async fn what_was_answered_ok_loads_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    // More than any limit of requests allows.
    let mut topic = TopicSettings::new("T", limits_queues());
    topic.attributes = (0..400_000).map(|nth| (format!("attribute {nth}"), "v".repeat(25))).collect();
    let mut group = GroupSettings::new("G");
    group.attributes.clone_from(&topic.attributes);
    for command in [Command::PutTopic(&encode_cold(&topic)), Command::PutGroup(&encode_cold(&group))] {
        let outcome = opened.shard.propose(&command, Admission::Normal).await;
        assert_eq!(outcome, Ok(Outcome::Done));
    }
    let settings = encode_cold(&TopicSettings::new("U", limits_queues() + 1));
    let refused = opened.shard.propose(&Command::PutTopic(&settings), Admission::Normal).await;
    assert_eq!(refused, Ok(Outcome::Refused(Refusal::TooManyQueues(limits_queues() + 1))));
    opened.close().await.expect("closes");
    let opened = open(dir.path()).await;
    assert_eq!(opened.shard.topics().get("T").expect("there").queues.len() as u32, limits_queues());
    assert_eq!(opened.shard.groups().get("G").expect("there").attributes.len(), 400_000);
    assert!(opened.shard.topics().get("U").is_none());
    opened.close().await.expect("closes");
}

fn limits_queues() -> u32 {
    escrowmq_common::limits::QUEUES_MAX
}

/// A prepare with a group of any length, as a version without limits may write it.
fn prepare_without_limits(queue: crate::terms::QueueId, group: &str, unit: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32(queue.0);
    body.put_slice(&[0; 9]); // now
    body.put_slice(&[0; 18]); // neither immunity nor first half
    body.put_slice(&[0; 16 + 8]); // content and window
    body.put_u16(group.len() as u16);
    body.put_slice(group.as_bytes());
    body.put_slice(&[0; 4]); // no client, no unique id
    body.put_i64(0);
    body.put_u32(unit.len() as u32);
    body.put_u32(crc32fast::hash(unit));
    body.put_slice(unit);
    let mut command = vec![25];
    command.put_u32(body.len() as u32);
    command.extend_from_slice(&body);
    command
}

/// Appends a record to the log of a closed shard, as if it had been proposed.
fn append(dir: &Path, payload: Bytes) -> u64 {
    let log = Log::open(Arc::new(RealDisk), &dir.join("log"), settings(dir, Flush::Sync).log).expect("opens");
    let last = log.last().expect("records");
    let (sender, receiver) = std::sync::mpsc::channel();
    let record = NewRecord { term: last.term, index: last.index.next(), kind: kind::BATCH, payload, crc: None };
    let sent = move |result| sender.send(result).expect("waited for");
    log.append(vec![record], sent).expect("taken");
    receiver.recv().expect("answered").expect("durable");
    log.close().expect("closes");
    last.index.next().0
}

#[tokio::test]
async fn a_half_of_a_group_with_a_name_beyond_the_limits_is_decided() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let queue_id = queue(&opened.shard, "T", 0).id;
    opened.close().await.expect("closes");
    let unit = unit("T", "half").to_vec();
    for length in [65_400, 65_500, 65_535] {
        let mut batch = OpenBatch::with_capacity(1 << 17);
        batch.push_bytes(&prepare_without_limits(queue_id, &"g".repeat(length), &unit));
        append(dir.path(), batch.seal(Stamp(1)));
    }
    let opened = open(dir.path()).await;
    let mut halves = Vec::new();
    crate::index::half::scan(opened.shard.index(), HalfId::ZERO, |row| {
        halves.push((row.half, row.counter));
        true
    })
    .expect("readable");
    assert_eq!(halves.len(), 3);
    for (half, counter) in halves {
        let (by, reason) = ("operator", "its group is gone");
        let settle = Settle {
            half,
            counter: Some(counter),
            decision: Decision::Rollback,
            group: None,
            by,
            reason,
            rewritten: Vec::new(),
        };
        let settled = opened.shard.propose(&Command::Settle(settle), Admission::Reserved).await;
        assert!(matches!(settled, Ok(Outcome::Settled(_))), "{settled:?}");
        let row = opened.shard.decision(half).expect("readable").expect("remembered");
        assert_eq!((row.decision, row.by.as_str(), row.counter), (Decision::Rollback, by, counter));
    }
    opened.close().await.expect("closes");
    open(dir.path()).await.close().await.expect("opens and closes");
}

fn check_and_repair(dir: &Path, quarantine: Option<u64>) -> (Vec<Kind>, Result<Vec<Action>, RepairError>) {
    let folder = Folder::take(dir).expect("nobody has it");
    let report = folder.check(true, &mut |_| ()).expect("readable");
    let kinds = report.findings.iter().map(|finding| finding.kind).collect();
    let options = RepairOptions { quarantine: quarantine.map(LogIndex), ..RepairOptions::default() };
    (kinds, folder.repair(&report, &options, &mut |_| ()))
}

#[tokio::test]
async fn an_entry_that_does_not_decode_is_named_and_can_be_set_aside_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    publish(&opened.shard, &queue(&opened.shard, "T", 0), When::Now, &["before"]).await;
    opened.close().await.expect("closes");
    let mut batch = OpenBatch::with_capacity(64);
    batch.push(&Command::Checked(Checked { first_checked_upto: None, halves: Vec::new() })).expect("short");
    batch.push_bytes(&[200, 0, 0, 0, 2, 1, 2]);
    let payload = batch.seal(Stamp(1));
    let checksum = format!("{:08x}", crc32fast::hash(&payload));
    let entry = append(dir.path(), payload);

    let refused = Storage::open(settings(dir.path(), Flush::Sync), Clock::system()).await.map(|_| ());
    let told = refused.expect_err("an entry is not skipped").to_string();
    assert!(told.contains(&format!("--quarantine {entry}")) && told.contains(&checksum), "{told}");
    let (kinds, repaired) = check_and_repair(dir.path(), None);
    assert!(kinds.contains(&Kind::CommandMalformed), "{kinds:?}");
    assert!(repaired.expect("it stays").iter().all(|action| matches!(action, Action::Left(_))));
    let (_, repaired) = check_and_repair(dir.path(), Some(entry - 1));
    assert!(matches!(repaired, Err(RepairError::NoSuchEntry(_))));
    let (_, repaired) = check_and_repair(dir.path(), Some(entry));
    let [Action::Done(done)] = &*repaired.expect("set aside") else { panic!("one thing is done") };
    assert!(done.contains("1 x checked, 1 that cannot be read") && done.contains(&checksum), "{done}");
    let (kinds, _) = check_and_repair(dir.path(), None);
    assert_eq!(kinds, [], "it is a note from now on");

    for round in 0..2 {
        let opened = open(dir.path()).await;
        let queue_now = queue(&opened.shard, "T", 0);
        publish(&opened.shard, &queue_now, When::Now, &[if round == 0 { "behind" } else { "again" }]).await;
        let expected: &[&str] = if round == 0 { &["before", "behind"] } else { &["before", "behind", "again"] };
        assert_eq!(bodies(&opened.shard, &queue_now), expected);
        assert_eq!(opened.shard.quarantined(), 1);
        opened.close().await.expect("closes");
        // The index is lost: it is made again without the entry.
        std::fs::remove_dir_all(dir.path().join("index")).expect("removed");
    }
    // Another member has the log and not the file.
    std::fs::remove_dir_all(dir.path().join(crate::shard::QUARANTINE)).expect("removed");
    let refused = Storage::open(settings(dir.path(), Flush::Sync), Clock::system()).await.map(|_| ());
    refused.expect_err("nothing is skipped in silence");
}

#[tokio::test]
async fn a_deleted_group_gets_no_offsets_from_commits_that_come_behind_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_now = queue(shard, "T", 0).id;
    let commit = |offset| Command::CommitOffsets(vec![OffsetCommit { group: "G", queue: queue_now, offset }]);
    let settings = encode_cold(&GroupSettings::new("G"));
    for (command, stored) in [
        (Command::PutGroup(&settings), None),
        (commit(QueueOffset(5)), Some(5)),
        (Command::DeleteGroup { group: "G", offsets: false }, Some(5)),
        (commit(QueueOffset(6)), Some(6)),
        (Command::PutGroup(&settings), Some(6)),
        (Command::DeleteGroup { group: "G", offsets: true }, None),
        (commit(QueueOffset(7)), None),
        (Command::PutGroup(&settings), None),
    ] {
        assert_eq!(shard.propose(&command, Admission::Reserved).await, Ok(Outcome::Done), "{command:?}");
        assert_eq!(shard.offset("G", queue_now).expect("readable"), stored.map(QueueOffset), "{command:?}");
    }
    opened.close().await.expect("closes");
}
