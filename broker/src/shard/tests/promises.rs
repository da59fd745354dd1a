//! A promise that does not hold closes the latch, once, and nothing of the entry is written, answered or flushed.

use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::clock::Clock;

use super::settings;
use crate::index::Index;
use crate::latch::{Broken, Failure, Promise};
use crate::log::sim_disk::SimDisk;
use crate::log::{Drive, Flush};
use crate::raft::{CommittedEntry, Content};
use crate::shard::{Admission, Batch, Command, OpenBatch, SubmitError};
use crate::storage::{Parts, StorageSettings};
use crate::terms::{LogIndex, Position, Stamp, TopicSettings, encode_cold};

/// A shard without a group, on a disk and with an index in memory.
fn parts() -> Parts {
    let StorageSettings { dir, mut log } = settings(std::path::Path::new("/promises"), Flush::Sync);
    log.drive = Drive::Step { seed: 1 };
    let index = Index::in_memory().expect("an index");
    let parts = Parts::open(Arc::new(SimDisk::new()), index, StorageSettings { dir, log }, Clock::manual(1_000));
    let parts = parts.expect("opens");
    parts.shard.intake().set_leading(true);
    parts
}

fn batch(command: &Command<'_>, stamp: Stamp) -> Bytes {
    let mut batch = OpenBatch::with_capacity(100);
    batch.push(command).expect("it is short");
    batch.seal(stamp)
}

fn entry(index: u64, position: u64, term: u64, content: Content) -> CommittedEntry {
    let (payload_position, end) = (Position(position), Position(position + 100));
    CommittedEntry { term, index: LogIndex(index), payload_position, end, content }
}

/// The promise that the latch was closed for, and where.
fn broken(parts: &Parts) -> Broken {
    match parts.log.latch().failure() {
        Some(Failure::Broken(broken)) => broken.clone(),
        other => panic!("{other:?} closed the latch"),
    }
}

/// Nothing more is written, flushed or answered; reading goes on.
fn is_stopped(parts: &Parts) {
    let refused =
        parts.shard.submit(&Command::Fire { upto: Stamp(1), limit: 1 }, Admission::Reserved, Box::new(|_| ()));
    assert!(matches!(refused, Err((SubmitError::StoreFailed, _))));
    assert!(!parts.applier.step(), "nothing is flushed any more");
    assert!(parts.applier.flush().is_err());
    assert!(parts.shard.offsets("G").expect("readable").is_empty());
}

#[test]
fn an_entry_that_does_not_come_next_is_not_applied() {
    for (wrong, promise) in [
        (entry(7, 200, 1, Content::Blank), Promise::AppliedByOne),
        (entry(5, 200, 1, Content::Blank), Promise::AppliedByOne),
        (entry(6, 150, 1, Content::Blank), Promise::PositionsRise),
        (entry(6, 200, 0, Content::Blank), Promise::PositionsRise),
    ] {
        let parts = parts();
        parts.applier.apply(vec![entry(5, 100, 1, Content::Blank)]).expect("the first one may be any");
        let index = wrong.index;
        parts.applier.apply(vec![wrong]).expect_err("it does not follow");
        let broken = broken(&parts);
        assert_eq!((broken.promise, broken.entry), (promise, Some(index)));
        assert_eq!(parts.applier.applied().map(|applied| applied.index), Some(LogIndex(5)));
        is_stopped(&parts);
    }
}

#[test]
fn an_entry_with_a_broken_promise_leaves_nothing_of_those_applied_with_it() {
    let parts = parts();
    let topic = encode_cold(&TopicSettings::new("T", 1));
    let put = batch(&Command::PutTopic(&topic), Stamp(5));
    assert_eq!(Batch::decode(&put).expect("a batch").count(), 1);
    let entries = vec![
        entry(1, 100, 1, Content::Proposed(put)),
        entry(2, 200, 1, Content::Blank),
        entry(4, 300, 1, Content::Blank),
    ];
    parts.applier.apply(entries).expect_err("the third one is missing");
    assert!(parts.shard.topics().get("T").is_some(), "a command that stands alone was visible before");
    assert_eq!(parts.applier.applied().map(|applied| applied.index), Some(LogIndex(1)));
    assert_eq!(broken(&parts).entry, Some(LogIndex(4)));
    is_stopped(&parts);
}

#[test]
fn an_index_ahead_of_the_log_is_not_flushed() {
    let parts = parts();
    parts.applier.apply(vec![entry(0, 100, 1, Content::Blank)]).expect("the first one may be any");
    // The log holds nothing: the entry came from nowhere. It is the first one of all, and would be flushed as any other.
    parts.applier.flush().expect_err("the log is not durable that far");
    assert_eq!(broken(&parts).promise, Promise::IndexBehindLog);
    assert_eq!(parts.applier.flushed_index(), None);
    is_stopped(&parts);
}

#[test]
fn a_failed_disk_and_a_broken_promise_close_the_same_latch_and_the_first_stays() {
    let parts = parts();
    parts.log.latch().close(Failure::storage("flush", std::io::Error::other("no")));
    assert!(parts.log.failure().is_some());
    parts.applier.apply(vec![entry(5, 100, 1, Content::Blank)]).expect("the applier itself does not look at the latch");
    parts.applier.apply(vec![entry(9, 200, 1, Content::Blank)]).expect_err("it does not follow");
    assert!(matches!(parts.log.latch().failure(), Some(Failure::Storage { action: "flush", .. })));
    is_stopped(&parts);
}
