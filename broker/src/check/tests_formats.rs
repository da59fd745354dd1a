//! The kept folder of each format opens; a file of another version is refused by name, whatever kind it is of.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use escrowmq_common::clock::Clock;

use super::tests::{check, copy, files, filled, open, propose, served};
use super::*;
use crate::index::format::{FORMAT_ROW, INDEX_FORMAT};
use crate::index::{Index, IndexBatch, meta};
use crate::log::LogSettings;
use crate::log::format::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, get_u32, put_u32};
use crate::shard::Command;
use crate::storage::{Storage, StorageSettings};
use crate::terms::FEATURE_LEVEL;

/// The folders of released formats, one per version, format of the index and feature level. Their log files end with their last record.
fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("log")).into_keys().filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
}

/// Writes the folder of this version. Done once for each release, and each format: `cargo test -- --ignored write_the_folder`.
#[tokio::test]
#[ignore = "writes into the sources"]
async fn write_the_folder_of_this_version() {
    let store = filled().await;
    let name = format!("{}-index-{INDEX_FORMAT}-level-{FEATURE_LEVEL}", env!("CARGO_PKG_VERSION"));
    let target = formats().join(name);
    let _ = fs::remove_dir_all(&target);
    copy(store.path(), &target.join("store"));
    for path in segments(&target.join("store")) {
        let content = fs::read(&path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        fs::write(&path, &content[..used]).unwrap();
    }
    for path in files(&target).into_keys() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("LOG") || name.eq_ignore_ascii_case("lock") {
            fs::remove_file(path).unwrap();
        }
    }
    let opened = open(store.path()).await.unwrap();
    let served: Vec<String> = served(&opened.shard).into_iter().map(Result::unwrap).collect();
    opened.close().await.unwrap();
    fs::write(target.join("served.txt"), served.join("\n")).unwrap();
}

#[tokio::test]
async fn the_folder_of_every_released_version_opens() {
    let mut versions = 0;
    for entry in fs::read_dir(formats()).unwrap() {
        let version = entry.unwrap().path();
        let expected = fs::read_to_string(version.join("served.txt")).unwrap();
        for with_index in [true, false] {
            let store = tempfile::tempdir().unwrap();
            copy(&version.join("store"), store.path());
            if !with_index {
                fs::remove_dir_all(store.path().join("index")).unwrap();
            }
            assert_eq!(check(store.path(), true).findings, [], "{}", version.display());
            let opened = open(store.path()).await.unwrap();
            let served: Vec<String> = served(&opened.shard).into_iter().map(Result::unwrap).collect();
            opened.close().await.unwrap();
            assert_eq!(served.join("\n"), expected, "{}", version.display());
            assert_eq!(check(store.path(), true).findings, [], "{}", version.display());
        }
        versions += 1;
    }
    assert!(versions > 0);
}

/// The error of opening the store says what `file` has and what this program knows, and fsck says the same.
async fn assert_refused(store: &Path, file: &Path, found: [&str; 2], known: &str) {
    let error = open(store).await.err().expect("a file of another version is refused").to_string();
    for part in [&*file.display().to_string(), found[0], found[1], known] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let report = check(store, false);
    let named = |finding: &&Finding| finding.kind == Kind::OtherFormat && finding.file == file;
    assert!(report.findings.iter().any(|finding| named(&finding)), "{report:?}");
    let before = files(store);
    let folder = Folder::take(store).unwrap();
    let actions = folder.repair(&report, &RepairOptions::default(), &mut |_| ()).unwrap();
    assert!(matches!(&actions[..], [Action::Left(_)]), "{actions:?}");
    assert!(files(store) == before, "nothing was changed");
}

#[tokio::test]
async fn a_newer_segment_is_refused() {
    let store = filled().await;
    let path = segments(store.path())[1].clone();
    let mut content = fs::read(&path).unwrap();
    put_u32(&mut content, 8, 9);
    let crc = crc32fast::hash(&content[..4092]);
    put_u32(&mut content, 4092, crc);
    fs::write(&path, content).unwrap();
    assert_refused(store.path(), &path, ["version 9", "newer"], "up to 1").await;
}

/// The last record of a segment file with its place, its header and its payload.
fn last_record(content: &[u8]) -> (usize, RecordHeader, Vec<u8>) {
    let mut at = SEGMENT_HEADER_BYTES as usize;
    loop {
        let header = RecordHeader::decode(&content[at..]);
        let next = at + header.length as usize;
        let follows = content.get(next..next + RECORD_HEADER_BYTES as usize).map(RecordHeader::decode);
        if follows.is_none_or(|next| next.previous_crc != header.crc) {
            let payload = content[at + RECORD_HEADER_BYTES as usize..next - 20].to_vec();
            return (at, header, payload);
        }
        at = next;
    }
}

#[tokio::test]
async fn a_newer_record_is_refused() {
    let store = filled().await;
    let path = segments(store.path()).pop().unwrap();
    let mut content = fs::read(&path).unwrap();
    let (at, header, payload) = last_record(&content);
    let (bytes, _) = RecordHeader { version: 9, ..header }.encode(crc32fast::hash(&payload));
    content[at..at + bytes.len()].copy_from_slice(&bytes);
    fs::write(&path, content).unwrap();
    assert_refused(store.path(), &path, ["version 9", "newer"], "up to 1").await;
}

#[tokio::test]
async fn a_newer_vote_file_is_refused() {
    let store = filled().await;
    let path = store.path().join("log/vote");
    let mut content = fs::read(&path).unwrap();
    for slot in content.chunks_mut(4096) {
        put_u32(slot, 8, 9);
        let crc = crc32fast::hash(&slot[..4092]);
        put_u32(slot, 4092, crc);
        assert_eq!(get_u32(slot, 8), 9);
    }
    fs::write(&path, content).unwrap();
    assert_refused(store.path(), &path, ["version 9", "newer"], "up to 1").await;
}

/// Makes the last record of a log one that a newer version has written. Says its file.
fn with_a_newer_batch(dir: &Path) -> PathBuf {
    let path = segments(dir).pop().unwrap();
    let mut content = fs::read(&path).unwrap();
    let (at, header, mut payload) = last_record(&content);
    assert_eq!(header.kind, 1, "the last record is a batch");
    payload[0] = 9;
    let (bytes, _) = header.encode(crc32fast::hash(&payload));
    let start = at + bytes.len();
    content[at..start].copy_from_slice(&bytes);
    content[start..start + payload.len()].copy_from_slice(&payload);
    fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn a_newer_batch_is_refused() {
    let store = filled().await;
    let path = with_a_newer_batch(store.path());
    // An index that has applied it does not ask again.
    fs::remove_dir_all(store.path().join("index")).unwrap();
    let opened = tokio::time::timeout(Duration::from_secs(60), open(store.path())).await.expect("it does not hang");
    let error = opened.err().expect("a newer batch is refused").to_string();
    assert!(error.contains("newer version"), "{error}");
    let report = check(store.path(), false);
    let finding = report.findings.first().expect("found");
    assert_eq!((finding.kind, &finding.file), (Kind::CommandMalformed, &path));
}

/// Records behind a raised level may hold anything: none of them is called damaged and set aside.
#[tokio::test]
async fn a_log_of_a_newer_feature_level_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let newer = FEATURE_LEVEL + 1;
    let log = LogSettings { feature_level: newer, ..LogSettings::default() };
    let opened = Storage::open(StorageSettings { dir: dir.path().to_owned(), log }, Clock::system()).await.unwrap();
    propose(&opened.shard, Command::Feature(newer)).await;
    opened.close().await.unwrap();
    let named = |report: &Report, file: &Path| {
        let of_level = |finding: &&Finding| finding.kind == Kind::OtherFormat && finding.file == file;
        report.findings.iter().find(of_level).is_some_and(|finding| finding.what.contains("feature level 3"))
    };
    let report = check(dir.path(), true);
    assert!(named(&report, &dir.path().join("index")), "{report:?}");
    assert!(named(&report, &segments(dir.path())[0]), "{report:?}");
    let error = open(dir.path()).await.err().expect("refused").to_string();
    assert!(error.contains("feature level 3, and this build speaks 2"), "{error}");
    let folder = Folder::take(dir.path()).unwrap();
    let actions = folder.repair(&report, &RepairOptions::default(), &mut |_| ()).unwrap();
    assert!(matches!(&actions[..], [Action::Left(_)]), "{actions:?}");
}

/// Makes the index one that another version has written. Says its folder.
fn write_index_version(dir: &Path, version: u32) -> PathBuf {
    let path = dir.join("index");
    let index = Index::open(&path).unwrap();
    let mut batch = IndexBatch::default();
    meta::put_bytes(&mut batch, FORMAT_ROW, &version.to_be_bytes());
    index.write(batch);
    index.flush().unwrap();
    path
}

#[tokio::test]
async fn beside_a_file_of_a_newer_version_no_record_is_set_aside() {
    let store = filled().await;
    with_a_newer_batch(store.path());
    write_index_version(store.path(), INDEX_FORMAT + 7);
    let folder = Folder::take(store.path()).unwrap();
    let report = folder.check(false, &mut |_| ()).unwrap();
    let record = report.malformed.first().expect("found").entry.index;
    let options = RepairOptions { quarantine: Some(record), ..RepairOptions::default() };
    let actions = folder.repair(&report, &options, &mut |_| ()).unwrap();
    assert!(matches!(&actions[..], [Action::Left(left)] if left.contains("nothing else is")), "{actions:?}");
    assert!(!store.path().join(crate::shard::QUARANTINE).exists());
}

#[tokio::test]
async fn a_newer_index_is_refused() {
    let store = filled().await;
    let path = write_index_version(store.path(), INDEX_FORMAT + 7);
    assert_refused(store.path(), &path, ["version 11", "newer"], "knows version 4").await;
}

#[tokio::test]
async fn an_index_from_before_the_first_release_is_refused() {
    for version in 1..INDEX_FORMAT {
        let store = filled().await;
        let path = write_index_version(store.path(), version);
        let words = [&*format!("version {version}"), "before the first release"];
        assert_refused(store.path(), &path, words, "knows version 4").await;
    }
}

#[tokio::test]
async fn a_newer_file_of_the_key_index_is_refused() {
    let store = filled().await;
    let path = files(&store.path().join("keys")).into_keys().next().unwrap();
    let mut content = fs::read(&path).unwrap();
    content[10] = 9;
    let crc = crc32fast::hash(&content[..4092]);
    put_u32(&mut content, 4092, crc);
    fs::write(&path, content).unwrap();
    let error = crate::key_index::KeyIndex::open(store.path().join("keys")).err().expect("refused").to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("version 9"), "{error}");
    assert!(path.exists(), "it is not taken for a damaged one");
    let report = check(store.path(), false);
    assert_eq!((report.findings[0].kind, &report.findings[0].file), (Kind::OtherFormat, &path));
}
