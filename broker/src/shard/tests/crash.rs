//! Restarts without a good end: the files as they are at some moment, copied while the shard runs.

use std::fs;

use super::*;
use crate::terms::QueueOffset;

/// The folder as a process that dies now would leave it, copied to another one.
fn image(of: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    copy_folder(of, copy.path());
    copy
}

pub(super) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("readable").map(|file| file.expect("readable")) {
        let target = to.join(file.file_name());
        if file.file_type().expect("readable").is_dir() {
            copy_folder(&file.path(), &target);
        } else if file.file_name() != "LOCK" && file.file_name() != "lock" {
            fs::copy(file.path(), target).expect("copied");
        }
    }
}

#[tokio::test]
async fn whatever_was_answered_is_there_after_a_crash() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open_async(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let first = queue(shard, "T", 0);
    publish(shard, &first, When::Now, &["a", "b"]).await;
    let committed = prepare(shard, &first, "u1", "committed").await;
    let undecided = prepare(shard, &first, "u2", "undecided").await;
    settle(shard, committed.half, committed.counter, Decision::Commit).await;
    // Nothing of it is in the index's files yet: the log alone has it.
    let crashed = image(dir.path());
    let again = open(crashed.path()).await;
    let queue = queue(&again.shard, "T", 0);
    assert_eq!(bodies(&again.shard, &queue), ["a", "b", "committed"]);
    assert_eq!(again.shard.counters().open_halves(), 1);
    let repeat = settle(&again.shard, committed.half, committed.counter, Decision::Commit).await;
    assert!(matches!(repeat, Outcome::Settled(settled) if !settled.first && settled.offset == Some(QueueOffset(2))));
    settle(&again.shard, undecided.half, undecided.counter, Decision::Commit).await;
    assert_eq!(bodies(&again.shard, &queue), ["a", "b", "committed", "undecided"]);
    again.close().await.expect("closes");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn the_index_rebuilt_from_the_log_equals_the_one_that_was_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 2).await;
    for round in 0..50 {
        let queue = queue(shard, "T", round % 2);
        publish(shard, &queue, When::Now, &[&format!("m{round}")]).await;
        let half = prepare(shard, &queue, &format!("u{round}"), &format!("h{round}")).await;
        match round % 3 {
            0 => drop(settle(shard, half.half, half.counter, Decision::Commit).await),
            1 => drop(settle(shard, half.half, half.counter, Decision::Rollback).await),
            _ => {}
        }
    }
    let kept: Vec<_> = (0..2).map(|index| bodies(shard, &queue(shard, "T", index))).collect();
    let open_halves = shard.counters().open_halves();
    opened.close().await.expect("closes");

    fs::remove_dir_all(dir.path().join("index")).expect("removed");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    let rebuilt: Vec<_> = (0..2).map(|index| bodies(shard, &queue(shard, "T", index))).collect();
    assert_eq!(rebuilt, kept);
    assert_eq!(shard.counters().open_halves(), open_halves);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn a_crash_between_any_two_commands_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let shard = &opened.shard;
    make_topic(shard, "T", 1).await;
    let queue_here = queue(shard, "T", 0);
    let mut expected: Vec<String> = Vec::new();
    for round in 0..6 {
        publish(shard, &queue_here, When::Now, &[&format!("m{round}")]).await;
        expected.push(format!("m{round}"));
        let half = prepare(shard, &queue_here, &format!("u{round}"), &format!("h{round}")).await;
        let crashed = image(dir.path());
        let before = open(crashed.path()).await;
        assert_eq!(bodies(&before.shard, &queue(&before.shard, "T", 0)), expected);
        before.close().await.expect("closes");
        settle(shard, half.half, half.counter, Decision::Commit).await;
        expected.push(format!("h{round}"));
        let crashed = image(dir.path());
        let after = open(crashed.path()).await;
        assert_eq!(bodies(&after.shard, &queue(&after.shard, "T", 0)), expected);
        after.close().await.expect("closes");
    }
    opened.close().await.expect("closes");
}
