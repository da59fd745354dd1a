//! Backups of a store with everything in it, and what damaged and interrupted ones come to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::manifest::Manifest;
use super::prepare::{Backups, LEASE, PrepareError};
use super::restore::restore;
use super::target::{Target, Written};
use super::*;
use crate::check::Folder;
use crate::check::tests::{check, filled, fork, open, served};
use crate::check::tests_trimmed::{self, trimmed};
use crate::limits::{RESTORING, lock_folder};
use crate::shard::{Admission, Command, OffsetCommit};
use crate::storage::Storage;
use crate::terms::{Position, QueueOffset};

const NOW: u64 = 1_700_000_000_000;

fn backups(store: &Path, shard: &Storage) -> Backups {
    Backups::new(store, Arc::clone(shard.applier())).unwrap()
}

fn write(out: &Path, prepared: &Prepared) -> Written {
    Target::open(out).unwrap().write(prepared, &mut |_| ()).unwrap()
}

/// The backup of a store that does not run.
fn backup_stopped(store: &Path, out: &Path, at: u64) -> Written {
    let folder = Folder::take(store).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let prepared = stopped::prepare(&folder, scratch.path(), Stamp(at), &mut |_| ()).unwrap();
    write(out, &prepared)
}

fn restored(out: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    restore(out, None, to.path(), &mut |_| ()).unwrap();
    to
}

async fn all_of(store: &Path) -> Vec<Result<String, String>> {
    let opened = open(store).await.unwrap();
    let all = served(&opened.shard);
    opened.close().await.unwrap();
    all
}

async fn commit_offset(opened: &Storage, offset: u64) {
    let queue = opened.shard.topics().get("T").unwrap().queues[0].id;
    let commits = vec![OffsetCommit { group: "G", queue, offset: QueueOffset(offset) }];
    opened.shard.propose(&Command::CommitOffsets(commits), Admission::Normal).await.unwrap();
}

#[test]
fn backups_are_named_by_their_time() {
    assert_eq!(new_id(Stamp::ZERO), "19700101T000000.000Z");
    assert_eq!(new_id(Stamp(951_782_400_000)), "20000229T000000.000Z");
    assert_eq!(new_id(Stamp(1_709_251_199_999)), "20240229T235959.999Z");
    assert_eq!(new_id(Stamp(NOW)), "20231114T221320.000Z");
}

#[tokio::test]
async fn a_backup_of_a_running_store_has_what_was_applied_and_nothing_later() {
    let store = filled().await;
    let out = tempfile::tempdir().unwrap();
    let opened = open(store.path()).await.unwrap();
    let backups = backups(store.path(), &opened);
    commit_offset(&opened, 11).await;
    let before = served(&opened.shard);
    let prepared = backups.prepare(&opened.shard, Stamp(NOW)).unwrap();
    // The store goes on; none of this is in the backup.
    commit_offset(&opened, 22).await;
    opened.applier().flush().unwrap();
    let written = write(out.path(), &prepared);
    assert!(written.kept == 0 && written.copied > 0);
    assert!(prepared.files[0].path.exists());
    backups.release(&prepared.id).unwrap();
    assert!(!prepared.files[0].path.exists(), "nothing is left in the store");
    let after = served(&opened.shard);
    opened.close().await.unwrap();
    assert_ne!(before, after);

    let copy = restored(out.path());
    assert_eq!(check(copy.path(), true).findings, []);
    assert_eq!(all_of(copy.path()).await, before);
    // It is a broker like any other: it takes writes and starts again.
    let again = open(copy.path()).await.unwrap();
    commit_offset(&again, 33).await;
    again.close().await.unwrap();
    assert_eq!(check(copy.path(), true).findings, []);
}

#[tokio::test]
async fn a_second_backup_copies_only_what_is_new() {
    let store = filled().await;
    let out = tempfile::tempdir().unwrap();
    let first = backup_stopped(store.path(), out.path(), NOW);
    let opened = open(store.path()).await.unwrap();
    commit_offset(&opened, 11).await;
    opened.close().await.unwrap();
    let second = backup_stopped(store.path(), out.path(), NOW + 1000);
    let sums = |written: &Written| -> BTreeMap<String, String> {
        written.manifest.files.iter().map(|file| (file.name.clone(), file.sha256.clone())).collect()
    };
    let (one, two) = (sums(&first), sums(&second));
    let sealed = one.iter().filter(|(name, sum)| name.starts_with("log/0") && two.get(*name) == Some(*sum)).count();
    assert!(sealed >= 2, "finished segments are the same file");
    assert!(second.kept > second.copied, "{} kept, {} copied", second.kept, second.copied);
    assert_eq!(Manifest::ids(out.path()).unwrap(), [new_id(Stamp(NOW)), new_id(Stamp(NOW + 1000))]);

    // Each can be restored; when the older one goes, what both have stays.
    let to = tempfile::tempdir().unwrap();
    restore(out.path(), Some(&new_id(Stamp(NOW))), to.path(), &mut |_| ()).unwrap();
    assert_eq!(Target::open(out.path()).unwrap().keep(1).unwrap(), [new_id(Stamp(NOW))]);
    let data = fs::read_dir(out.path().join("data")).unwrap().count();
    let mut named: Vec<&String> = two.values().collect();
    named.sort();
    named.dedup();
    assert_eq!(data, named.len(), "nothing is left that no backup names");
    assert_eq!(all_of(restored(out.path()).path()).await, all_of(store.path()).await);
}

#[tokio::test]
async fn an_interrupted_backup_is_none_and_the_one_before_stays() {
    let store = filled().await;
    let out = tempfile::tempdir().unwrap();
    backup_stopped(store.path(), out.path(), NOW);
    let opened = open(store.path()).await.unwrap();
    commit_offset(&opened, 11).await;
    opened.close().await.unwrap();
    let folder = Folder::take(store.path()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut prepared = stopped::prepare(&folder, scratch.path(), Stamp(NOW + 1000), &mut |_| ()).unwrap();
    drop(folder);
    // One file after the other is missing: the copy stops there.
    for nth in 0..prepared.files.len() {
        let path = std::mem::replace(&mut prepared.files[nth].path, PathBuf::from("/nowhere"));
        Target::open(out.path()).unwrap().write(&prepared, &mut |_| ()).unwrap_err();
        prepared.files[nth].path = path;
        assert_eq!(Manifest::ids(out.path()).unwrap(), [new_id(Stamp(NOW))]);
    }
    drop(restored(out.path()));
    write(out.path(), &prepared);
    assert_eq!(all_of(restored(out.path()).path()).await, all_of(store.path()).await);
}

#[tokio::test]
async fn a_flipped_bit_in_a_backup_is_never_restored_and_cured_by_the_next_backup() {
    let store = filled().await;
    let out = tempfile::tempdir().unwrap();
    backup_stopped(store.path(), out.path(), NOW);
    let right = all_of(store.path()).await;
    let mut files: Vec<PathBuf> =
        fs::read_dir(out.path().join("data")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(out.path().join(Manifest::file_name(&new_id(Stamp(NOW)))));
    for (nth, path) in files.iter().enumerate() {
        let content = fs::read(path).unwrap();
        if content.is_empty() {
            continue;
        }
        for at in [0, content.len() / 3, content.len() - 2] {
            let mut changed = content.clone();
            changed[at] ^= 1 << (nth % 8);
            fs::write(path, changed).unwrap();
            let to = tempfile::tempdir().unwrap();
            let error = restore(out.path(), None, to.path(), &mut |_| ()).unwrap_err();
            assert!(matches!(&error, BackupError::Damaged { path: named, .. } if named == path), "{error}");
            assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0, "nothing is left");
        }
        fs::write(path, content).unwrap();
    }
    // A damaged file is not taken for the one that is to be copied.
    let mut content = fs::read(&files[0]).unwrap();
    content[0] ^= 1;
    fs::write(&files[0], content).unwrap();
    backup_stopped(store.path(), out.path(), NOW + 1000);
    assert_eq!(all_of(restored(out.path()).path()).await, right);
}

#[tokio::test]
async fn a_store_is_restored_into_an_empty_folder_or_not_at_all() {
    let store = filled().await;
    let out = tempfile::tempdir().unwrap();
    assert!(matches!(restore(out.path(), None, Path::new("/nowhere"), &mut |_| ()), Err(BackupError::None { .. })));
    backup_stopped(store.path(), out.path(), NOW);
    let error = restore(out.path(), None, store.path(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    let error = restore(out.path(), Some("other"), store.path(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, BackupError::None { .. }), "{error}");
    // A restore that was killed left its folder: no broker starts there.
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join(RESTORING)).unwrap();
    let error = lock_folder(to.path()).unwrap_err();
    assert!(error.to_string().contains("unfinished restore"), "{error}");
    let new = tempfile::tempdir().unwrap();
    let new = new.path().join("a/b");
    restore(out.path(), None, &new, &mut |_| ()).unwrap();
    lock_folder(&new).unwrap();
}

#[tokio::test]
async fn a_newer_manifest_is_refused() {
    let store = filled().await;
    let out = tempfile::tempdir().unwrap();
    backup_stopped(store.path(), out.path(), NOW);
    let path = out.path().join(Manifest::file_name(&new_id(Stamp(NOW))));
    let text = fs::read_to_string(&path).unwrap();
    let (body, _) = text.rsplit_once("sha256 ").unwrap();
    let body = body.replacen("ESCROWMQ-BACKUP 1", "ESCROWMQ-BACKUP 7", 1);
    let sum = super::target::hex(&super::target::sha256(body.as_bytes()));
    fs::write(&path, format!("{body}sha256 {sum}\n")).unwrap();
    let to = tempfile::tempdir().unwrap();
    let error = restore(out.path(), None, to.path(), &mut |_| ()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("format version 7") && said.contains("up to 1"), "{said}");
}

#[tokio::test]
async fn one_backup_is_prepared_at_a_time_and_goes_when_nobody_copies_it() {
    let store = filled().await;
    let opened = open(store.path()).await.unwrap();
    let backups = backups(store.path(), &opened);
    let first = backups.prepare(&opened.shard, Stamp(NOW)).unwrap();
    assert!(matches!(backups.prepare(&opened.shard, Stamp(NOW + 1)), Err(PrepareError::Busy(id)) if id == first.id));
    let now = escrowmq_common::clock::monotonic();
    assert!(backups.expire(now + LEASE / 2), "it is still wanted");
    backups.renew(&first.id).unwrap();
    assert!(!backups.expire(now + LEASE + Duration::from_secs(60)), "it is not");
    assert!(!first.files[0].path.exists());
    assert!(matches!(backups.renew(&first.id), Err(PrepareError::Gone(_))));
    assert!(matches!(backups.release(&first.id), Err(PrepareError::Gone(_))));
    // A process that dies leaves its backup; the next start removes it.
    let second = backups.prepare(&opened.shard, Stamp(NOW + 2)).unwrap();
    let crashed = fork(store.path());
    opened.close().await.unwrap();
    assert!(second.files[0].path.exists() && crashed.path().join("backup").exists());
    let again = open(crashed.path()).await.unwrap();
    drop(Backups::new(crashed.path(), Arc::clone(again.applier())).unwrap());
    assert!(!crashed.path().join("backup").exists());
    again.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_of_a_trimmed_store_has_everything_and_survives_the_loss_of_its_index() {
    let store = trimmed().await;
    let right = tests_trimmed::all_of(fork(store.path()).path()).await;
    // Taken from a running broker, from a stopped one, and from a stopped one that has lost its index.
    for way in 0..3 {
        let out = tempfile::tempdir().unwrap();
        let store = fork(store.path());
        match way {
            0 => {
                let opened = open(store.path()).await.unwrap();
                let backups = backups(store.path(), &opened);
                let prepared = backups.prepare(&opened.shard, Stamp(NOW)).unwrap();
                assert!(prepared.log_start > Position::ZERO);
                write(out.path(), &prepared);
                backups.release(&prepared.id).unwrap();
                opened.close().await.unwrap();
            }
            1 => drop(backup_stopped(store.path(), out.path(), NOW)),
            _ => {
                fs::remove_dir_all(store.path().join("index")).unwrap();
                backup_stopped(store.path(), out.path(), NOW);
            }
        }
        let copy = restored(out.path());
        let report = check(copy.path(), true);
        assert_eq!(report.findings, []);
        assert!(report.figures.is_complete && report.figures.is_compared && report.figures.base.is_some());
        // Before its first start, and after it.
        let fresh = fork(copy.path());
        fs::remove_dir_all(fresh.path().join("index")).unwrap();
        assert_eq!(tests_trimmed::all_of(fresh.path()).await, right, "way {way}");
        assert_eq!(tests_trimmed::all_of(copy.path()).await, right, "way {way}");
        let again = open(copy.path()).await.unwrap();
        commit_offset(&again, 88).await;
        again.close().await.unwrap();
        let now = tests_trimmed::all_of(copy.path()).await;
        fs::remove_dir_all(copy.path().join("index")).unwrap();
        assert_eq!(tests_trimmed::all_of(copy.path()).await, now, "way {way}");
        assert_eq!(check(copy.path(), true).findings, []);
    }
}

#[tokio::test]
async fn a_trimmed_store_without_an_index_and_a_copy_is_not_backed_up() {
    let store = trimmed().await;
    for folder in ["index", "base"] {
        fs::remove_dir_all(store.path().join(folder)).unwrap();
    }
    let folder = Folder::take(store.path()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let error = stopped::prepare(&folder, scratch.path(), Stamp(NOW), &mut |_| ()).unwrap_err();
    assert!(matches!(error, BackupError::Findings(_)), "{error}");
}
