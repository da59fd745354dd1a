//! A store with everything in it, damaged in every way, looked at and repaired.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::clock::Clock;
use escrowmq_common::message::{MessageUnit, UnitBuilder};
use escrowmq_common::task::{Shutdown, Tasks};

use super::*;
use crate::key_index::KeyIndex;
use crate::limits::{MEMBER, RECOVERING};
use crate::log::sim_disk::Random;
use crate::log::{Flush, LogSettings};
use crate::shard::{
    Admission, Command, Message, MessageList, OffsetCommit, Outcome, Prepare, Publish, Settings, Settle, Shard,
};
use crate::storage::{Storage, StorageSettings};
use crate::terms::encode_cold;
use crate::terms::{Content, Decision, FEATURE_LEVEL, GroupSettings, HalfId, QueueOffset, Stamp, TopicSettings, When};

pub(crate) fn unit(body: &str) -> Vec<u8> {
    let host = "127.0.0.1:10911".parse().unwrap();
    let mut out = BytesMut::new();
    let properties = format!("KEYS\u{1}key-{body}\u{2}");
    UnitBuilder { born_timestamp: 1, ..UnitBuilder::to_store("T", 0, host, body.as_bytes(), &[&properties]) }
        .write(&mut out)
        .unwrap();
    out.to_vec()
}

pub(crate) async fn open(dir: &Path) -> Result<Storage, crate::storage::StorageError> {
    let log = LogSettings { segment_bytes: 16 << 10, flush: Flush::Sync, ..LogSettings::default() };
    Storage::open(StorageSettings { dir: dir.to_owned(), log }, Clock::system()).await
}

pub(crate) async fn propose(shard: &Shard, command: Command<'_>) -> Outcome {
    shard.propose(&command, Admission::Normal).await.unwrap()
}

/// Fills a store with messages, halves, decisions, timers, offsets and keys, in several segments, and closes it.
pub(crate) async fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path()).await.unwrap();
    let shard = &opened.shard;
    propose(shard, Command::PutTopic(&encode_cold(&TopicSettings::new("T", 1)))).await;
    let queue = shard.topics().get("T").unwrap().queues[0].clone();
    for round in 0..60 {
        let bytes = unit(&format!("{round:0>300}"));
        let message = Message::new(7, &bytes);
        let when = if round % 10 == 9 { When::After(3_600_000) } else { When::Now };
        let messages = MessageList::One(message);
        propose(shard, Command::Publish(Publish { queue: queue.id, when, messages, once: None })).await;
        let prepare = Prepare {
            queue: queue.id,
            when: When::Now,
            immunity: None,
            first_half: None,
            content: Content([0; 16]),
            duplicate_window: 60_000,
            group: "producers",
            client: "client",
            unique_id: &format!("id{round}"),
            message,
        };
        let Outcome::Prepared(half) = propose(shard, Command::Prepare(prepare)).await else { panic!("no half") };
        let decision = [Some(Decision::Commit), Some(Decision::Rollback), None][round % 3];
        if let Some(decision) = decision {
            let settle = Settle {
                half: half.half,
                counter: None,
                decision,
                group: Some("producers"),
                by: "",
                reason: "",
                rewritten: Vec::new(),
            };
            propose(shard, Command::Settle(settle)).await;
        }
        if round == 40 {
            // So that the index is in several files.
            opened.applier().flush().unwrap();
        }
    }
    propose(shard, Command::PutGroup(&encode_cold(&GroupSettings::new("G")))).await;
    propose(shard, Command::CommitOffsets(vec![OffsetCommit { group: "G", queue: queue.id, offset: QueueOffset(3) }]))
        .await;
    propose(shard, Command::Feature(FEATURE_LEVEL)).await;
    let values = vec![("transactionCheckMax", "7"), ("regionId", "")];
    propose(shard, Command::Settings(Settings { only_missing: true, values })).await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let keys = KeyIndex::start(dir.path().join("keys"), shard, &tasks, &shutdown).unwrap();
    assert!(keys.catch_up(shard.counters().applied_index().unwrap(), Duration::from_secs(30)));
    shutdown.cancel();
    tasks.join().await;
    write_run(dir.path());
    opened.close().await.unwrap();
    dir
}

/// A small file of the key index; the builder itself would wait for many more messages.
fn write_run(dir: &Path) {
    key_index::write_run_for_tests(&dir.join("keys"), 300);
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn fork(dir: &Path) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    copy(dir, other.path());
    other
}

pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

pub(crate) fn check(dir: &Path, deep: bool) -> Report {
    Folder::take(dir).unwrap().check(deep, &mut |_| ()).unwrap()
}

pub(crate) fn kinds(report: &Report) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.dedup();
    kinds
}

pub(crate) fn repair(dir: &Path, drop_acknowledged_after: Option<(PathBuf, u64)>) -> Result<Vec<Action>, RepairError> {
    let folder = Folder::take(dir).unwrap();
    let report = folder.check(false, &mut |_| ()).unwrap();
    let options = RepairOptions { drop_acknowledged_after, ..RepairOptions::default() };
    folder.repair(&report, &options, &mut |_| ())
}

/// All that a consumer can get, and everything that is undecided, waiting or stored as an offset. `Err` for what is
/// refused as damaged.
pub(crate) fn served(shard: &Shard) -> Vec<Result<String, String>> {
    let mut all = Vec::new();
    let Some(topic) = shard.topics().get("T") else { return all };
    let queue = &topic.queues[0];
    let entries = shard.entries(queue, QueueOffset::ZERO, 1000, 1000, |_| true);
    match entries {
        Ok(entries) => {
            for entry in &entries.wanted {
                let mut out = BytesMut::new();
                all.push(shard.unit(queue, entry, &mut out).map_err(|error| error.to_string()).map(|()| {
                    let unit = MessageUnit::decode(&out).unwrap();
                    format!("{} {} {:?}", entry.offset, String::from_utf8_lossy(unit.body()), unit.property("KEYS"))
                }));
            }
        }
        Err(error) => all.push(Err(error.to_string())),
    }
    let mut halves = Vec::new();
    match crate::index::half::scan(shard.index(), HalfId::ZERO, |row| {
        halves.push(Ok(format!("half {} {} {}", row.half, row.counter, row.unique_id)));
        true
    }) {
        Ok(()) => all.extend(halves),
        Err(error) => all.push(Err(error.to_string())),
    }
    match crate::index::timer::due(shard.index(), Stamp::ZERO, Stamp::MAX, 1000) {
        Ok(rows) => all.extend(rows.iter().map(|row| Ok(format!("timer {} {}", row.due, row.position)))),
        Err(error) => all.push(Err(error.to_string())),
    }
    let stored = shard.offset("G", queue.id).map(|offset| format!("{:?}", offset.map(QueueOffset::get)));
    all.push(stored.map_err(|error| error.to_string()));
    all.extend(shard.agreed().settings.iter().map(|(key, value)| Ok(format!("setting {key}={value}"))));
    all
}

#[tokio::test]
async fn a_store_in_order_is_clean_and_a_check_changes_nothing() {
    let dir = filled().await;
    let before = files(dir.path());
    let report = check(dir.path(), true);
    assert_eq!(report.findings, []);
    let figures = &report.figures;
    assert!(figures.is_compared && figures.segments >= 3 && figures.messages == 120, "{figures:?}");
    assert!(figures.rows[&'H'] == 20 && figures.rows[&'S'] > 0 && figures.rows[&'T'] == 6, "{figures:?}");
    assert_eq!(figures.key_files, 1);
    assert!(files(dir.path()) == before, "nothing was changed");
}

#[tokio::test]
async fn a_running_broker_is_left_alone() {
    let dir = filled().await;
    let taken = crate::limits::lock_folder(dir.path()).unwrap();
    let error = Folder::take(dir.path()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(taken);
    Folder::take(dir.path()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Folder::take(empty.path()), Err(CheckError::NoStore { .. })));
}

/// The heart of it: one bit of a file is flipped, many times over. Either the check names the file, or nothing is served
/// that is not right; what was found never makes the broker serve something wrong either.
#[tokio::test]
async fn a_flipped_bit_is_named_or_harmless_and_never_served() {
    let tally = flip(filled().await.path()).await;
    for kind in ["index/CURRENT", "index/MANIFEST", "index/sst", "keys/run", "log/log", "log/vote"] {
        assert!(tally[kind][0] >= 20, "{kind}: {tally:?}");
    }
    assert_names_the_file(&tally);
}

/// Of a table whose list of properties is damaged RocksDB says that its manifest is, and a damaged manifest is now and then
/// found by what it leads to.
pub(crate) fn assert_names_the_file(tally: &BTreeMap<String, [u32; 3]>) {
    let is_named = |(kind, each): (&String, &[u32; 3])| {
        let is_of_rocksdb = kind.ends_with("/sst") || kind.ends_with("/MANIFEST");
        each[1] == 0 || is_of_rocksdb && each[0] > 10 * each[1]
    };
    assert!(tally.iter().all(is_named), "a finding names the file: {tally:?}");
}

/// Flips bits in every file of a store, 24 in each. Answers how often the check named the file, how often it found
/// something without naming it, and how often it found nothing, by kind of file.
pub(crate) async fn flip(dir: &Path) -> BTreeMap<String, [u32; 3]> {
    let right = {
        let copy = fork(dir);
        let opened = open(copy.path()).await.unwrap();
        let right = served(&opened.shard);
        opened.close().await.unwrap();
        right
    };
    assert!(right.iter().all(Result::is_ok) && right.len() > 80, "{right:?}");
    let mut random = Random::new(11);
    let mut tally: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    let bad = fork(dir);
    for (path, content) in files(dir) {
        if content.is_empty() || path.file_name().is_some_and(|name| name == "lock" || name == "LOCK") {
            continue;
        }
        let inside = path.strip_prefix(dir).unwrap().to_owned();
        let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        for sample in 0..24 {
            let byte = if sample == 23 { content.len() - 1 } else { random.below(used as u64) as usize };
            let mut changed = content.clone();
            changed[byte] ^= 1 << random.below(8);
            fs::remove_dir_all(bad.path()).unwrap();
            copy(dir, bad.path());
            fs::write(bad.path().join(&inside), &changed).unwrap();
            let report = check(bad.path(), false);
            let named = report.findings.iter().any(|finding| finding.file.ends_with(&inside));
            let kind = inside.extension().or(inside.file_name()).unwrap().to_string_lossy().into_owned();
            let folder = inside.parent().unwrap().display();
            let kind = format!("{folder}/{}", kind.split('-').next().unwrap());
            let tally = tally.entry(kind).or_default();
            match (named, report.findings.is_empty()) {
                (true, _) => tally[0] += 1,
                (false, false) => tally[1] += 1,
                (false, true) => tally[2] += 1,
            }
            // Every served byte is right, whatever was found.
            let Ok(opened) = open(bad.path()).await else {
                assert!(!report.findings.is_empty(), "{} byte {byte}: does not open, not found", inside.display());
                continue;
            };
            let now = served(&opened.shard);
            // A damaged file of the index may be met first by the last flush: such damage was named.
            let closed = opened.close().await;
            assert!(closed.is_ok() || !report.findings.is_empty(), "{} byte {byte}: {closed:?}", inside.display());
            if report.findings.is_empty() {
                assert_eq!(now, right, "{} byte {byte} altered what is served, unseen", inside.display());
            }
            for item in now.iter().flatten() {
                assert!(right.contains(&Ok(item.clone())), "{} byte {byte}: {item} is served", inside.display());
            }
            // Each takes a second: such a start fails late.
            if !inside.starts_with("base") || sample % 6 != 0 {
                continue;
            }
            // An index that is made from a damaged copy is right, or none is made.
            fs::remove_dir_all(bad.path()).unwrap();
            copy(dir, bad.path());
            fs::write(bad.path().join(&inside), &changed).unwrap();
            fs::remove_dir_all(bad.path().join("index")).unwrap();
            let Ok(opened) = open(bad.path()).await else {
                assert!(!report.findings.is_empty(), "{} byte {byte}: no index, not found", inside.display());
                continue;
            };
            let now = served(&opened.shard);
            // A damaged file of the index may be met first by the last flush: such damage was named.
            let closed = opened.close().await;
            assert!(closed.is_ok() || !report.findings.is_empty(), "{} byte {byte}: {closed:?}", inside.display());
            if report.findings.is_empty() {
                assert_eq!(now, right, "{} byte {byte}, and no index: altered, unseen", inside.display());
            }
            for item in now.iter().flatten() {
                assert!(right.contains(&Ok(item.clone())), "{} byte {byte}: {item} is served", inside.display());
            }
        }
    }
    println!("named, found without the file's name, harmless: {tally:?}");
    tally
}

#[tokio::test]
async fn a_torn_tail_and_what_nobody_reads_are_repaired() {
    let dir = filled().await;
    let log = dir.path().join("log");
    let mut segments: Vec<PathBuf> =
        files(&log).into_keys().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    let newest = segments.pop().unwrap();
    let sealed = segments.first().unwrap().clone();
    let good = check(dir.path(), false);
    let end = |path: &Path| {
        let content = fs::read(path).unwrap();
        content.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    for path in [&newest, &sealed] {
        let mut content = fs::read(path).unwrap();
        let at = end(path);
        content.resize(content.len().max(at + 300), 0);
        content[at + 100..at + 200].fill(0xA5);
        fs::write(path, content).unwrap();
    }
    // The note of the first record of the newest segment but one.
    let noted = segments.last().unwrap();
    let mut content = fs::read(noted).unwrap();
    let length = u32::from_be_bytes(content[4096..4100].try_into().unwrap()) as usize;
    content[4096 + length - 10] ^= 1;
    fs::write(noted, content).unwrap();
    let vote = log.join("vote");
    let mut content = fs::read(&vote).unwrap();
    content[4096 + 17] ^= 4;
    fs::write(&vote, content).unwrap();

    let report = check(dir.path(), false);
    let found: Vec<(Kind, &Path)> = report.findings.iter().map(|each| (each.kind, each.file.as_path())).collect();
    let expected = [
        (Kind::StrayBytes, sealed.as_path()),
        (Kind::RecordNote, noted),
        (Kind::TornTail, &newest),
        (Kind::VoteCopy, &vote),
    ];
    assert_eq!(found, expected);
    let actions = repair(dir.path(), None).unwrap();
    assert!(actions.iter().all(|action| matches!(action, Action::Done(_))), "{actions:?}");
    let after = check(dir.path(), true);
    assert_eq!(after.findings, []);
    assert_eq!(after.figures.records, good.figures.records, "no record is gone");
    open(dir.path()).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_index_is_made_anew_and_a_wrong_one_is_found_by_comparing() {
    let dir = filled().await;
    let index = dir.path().join("index");
    let table = files(&index).into_keys().find(|path| path.extension().is_some_and(|end| end == "sst")).unwrap();
    let mut content = fs::read(&table).unwrap();
    content[60] ^= 1;
    fs::write(&table, content).unwrap();
    let report = check(dir.path(), true);
    assert_eq!(kinds(&report), [Kind::IndexUnreadable]);
    assert_eq!(report.findings[0].file, table);
    assert!(report.findings[0].offset.is_some());
    let actions = repair(dir.path(), None).unwrap();
    assert_eq!(actions, [Action::Done("made the index anew from the log".to_owned())]);
    assert_eq!(check(dir.path(), true).findings, []);

    // A row that decodes, with a checksum that is right, and yet wrong.
    {
        let index = crate::index::Index::open(&index).unwrap();
        let mut batch = crate::index::IndexBatch::default();
        crate::index::offset::put(&mut batch, "G", crate::terms::QueueId(0), QueueOffset(9));
        index.write(batch);
        index.flush().unwrap();
    }
    assert_eq!(check(dir.path(), false).findings, [], "only the comparison can tell");
    let report = check(dir.path(), true);
    assert_eq!(kinds(&report), [Kind::IndexDiffers]);
    assert!(report.findings[0].what.starts_with("table offset: "), "{report:?}");
    let folder = Folder::take(dir.path()).unwrap();
    folder.repair(&report, &RepairOptions::default(), &mut |_| ()).unwrap();
    drop(folder);
    assert_eq!(check(dir.path(), true).findings, []);
}

#[tokio::test]
async fn acknowledged_bytes_are_given_up_only_when_the_place_is_named() {
    let dir = filled().await;
    let log = dir.path().join("log");
    let segments: Vec<PathBuf> =
        files(&log).into_keys().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    let mut content = fs::read(&segments[1]).unwrap();
    content[5000] ^= 0x20;
    fs::write(&segments[1], content).unwrap();
    let before = files(dir.path());
    let report = check(dir.path(), true);
    assert_eq!(kinds(&report), [Kind::LogDamaged]);
    let finding = &report.findings[0];
    assert_eq!(finding.file, segments[1]);
    let offset = finding.offset.unwrap();
    assert!((4096..=5000).contains(&offset), "{offset}");

    let actions = repair(dir.path(), None).unwrap();
    assert!(matches!(&actions[..], [Action::Left(_)]), "{actions:?}");
    let other = repair(dir.path(), Some((segments[0].clone(), offset))).unwrap_err();
    assert!(matches!(other, RepairError::NoSuchPlace { .. }));
    assert!(files(dir.path()) == before, "nothing was changed");

    repair(dir.path(), Some((segments[1].clone(), offset))).unwrap();
    let after = check(dir.path(), true);
    assert_eq!(after.findings, []);
    assert!(after.figures.is_compared && after.figures.records < report.figures.records);
    assert!(files(&log).into_keys().any(|path| path.to_string_lossy().ends_with(".damaged")), "a copy is kept");
    open(dir.path()).await.unwrap().close().await.unwrap();
}

/// The others of a group count on what it acknowledged.
#[tokio::test]
async fn a_member_of_a_group_gives_up_nothing_while_it_may_vote() {
    let dir = filled().await;
    fs::write(dir.path().join(MEMBER), "whoever it is").unwrap();
    let log = dir.path().join("log");
    let segment = files(&log).into_keys().nth(1).unwrap();
    let mut content = fs::read(&segment).unwrap();
    content[5000] ^= 0x20;
    fs::write(&segment, content).unwrap();
    let before = files(dir.path());
    let report = check(dir.path(), false);
    assert_eq!(kinds(&report), [Kind::LogDamaged]);
    let place = (report.findings[0].file.clone(), report.findings[0].offset.unwrap());

    let refused = repair(dir.path(), Some(place.clone())).unwrap_err();
    assert!(matches!(refused, RepairError::OfGroup { .. }) && refused.to_string().contains("Empty the folder"));
    assert!(files(dir.path()) == before, "nothing was changed");
    let options =
        RepairOptions { drop_acknowledged_after: Some(place), others_are_lost: true, ..RepairOptions::default() };
    Folder::take(dir.path()).unwrap().repair(&report, &options, &mut |_| ()).unwrap();
    assert_eq!(check(dir.path(), true).findings, []);
    assert!(dir.path().join(RECOVERING).exists(), "no broker starts here");
}

/// A repair loses nothing acknowledged if it does what a start would do, or makes anew what comes from the log.
#[tokio::test]
async fn a_member_of_a_group_is_repaired_where_nothing_acknowledged_is_lost() {
    let dir = filled().await;
    fs::write(dir.path().join(MEMBER), "whoever it is").unwrap();
    let table =
        files(&dir.path().join("index")).into_keys().find(|path| path.extension().is_some_and(|end| end == "sst"));
    let table = table.unwrap();
    let mut content = fs::read(&table).unwrap();
    content[60] ^= 1;
    fs::write(&table, content).unwrap();
    assert!(matches!(&repair(dir.path(), None).unwrap()[..], [Action::Done(_)]));
    assert_eq!(check(dir.path(), true).findings, []);
    assert!(!dir.path().join(RECOVERING).exists());
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_told_by_the_index() {
    let dir = filled().await;
    let log = dir.path().join("log");
    let segments: Vec<PathBuf> =
        files(&log).into_keys().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    let newest = segments.last().unwrap();
    // As if the last records had never been written: the segment and every note of them.
    fs::write(newest, &fs::read(newest).unwrap()[..4096]).unwrap();
    let report = check(dir.path(), false);
    assert_eq!(kinds(&report)[0], Kind::IndexAhead, "{report:?}");
    assert!(open(dir.path()).await.is_err());
    let place = (report.findings[0].file.clone(), report.findings[0].offset.unwrap());
    assert_eq!(place, (newest.clone(), 4096));
    repair(dir.path(), Some(place)).unwrap();
    assert_eq!(check(dir.path(), true).findings, []);
    open(dir.path()).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn damaged_key_files_are_removed_and_a_lost_vote_is_not_invented() {
    let dir = filled().await;
    let run = files(&dir.path().join("keys")).into_keys().next().unwrap();
    let mut content = fs::read(&run).unwrap();
    content[4096 + 30] ^= 1;
    fs::write(&run, content).unwrap();
    let report = check(dir.path(), false);
    assert_eq!(kinds(&report), [Kind::KeysDamaged]);
    assert_eq!(report.findings[0].offset, Some(4096));
    repair(dir.path(), None).unwrap();
    assert!(!run.exists());
    assert_eq!(check(dir.path(), false).findings, []);

    let vote = dir.path().join("log/vote");
    fs::write(&vote, vec![7; 8192]).unwrap();
    assert_eq!(kinds(&check(dir.path(), false)), [Kind::VoteLost]);
    assert!(matches!(&repair(dir.path(), None).unwrap()[..], [Action::Left(_)]));
    fs::remove_file(&vote).unwrap();
    assert_eq!(kinds(&check(dir.path(), false)), [Kind::VoteLost]);
}
