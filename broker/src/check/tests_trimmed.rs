//! A store whose old records are gone: what retention leaves is in order, repaired without loss, or left as it is.

use std::fs;
use std::time::Duration;

use super::tests::{
    assert_names_the_file, check, files, filled, flip, fork, kinds, open, propose, repair, served, unit,
};
use super::*;
use crate::index::{decision, half, meta, timer};
use crate::shard::{
    Command, Message, MessageList, Moved, OffsetCommit, Outcome, Prepare, Publish, Roll, Settle, Shard,
};
use crate::storage::Storage;
use crate::terms::encode_cold;
use crate::terms::{Content, Decision, GroupSettings, HalfId, PinOwner, Position, QueueOffset, Stamp, When};

/// The store of the other tests, with all that must be kept moved to the log's end, trimmed as far as can be, and gone on
/// with.
pub(crate) async fn trimmed() -> tempfile::TempDir {
    let dir = filled().await;
    let opened = open(dir.path()).await.unwrap();
    let shard = &opened.shard;
    let queue = shard.topics().get("T").unwrap().queues[0].clone();
    publish(shard, "before", 10).await;
    let moved = roll(shard).await;
    publish(shard, "between", 30).await;
    let Outcome::Done = propose(shard, Command::Trim { upto: shard.log().end() }).await else { panic!("no trim") };
    purge(&opened).await;
    assert!(queue.min_offset() > QueueOffset(60) && shard.log().first_position() > Position::ZERO);
    // Moved halves are decided, each way, and some stay; there are new ones.
    for (half, decision) in moved.iter().zip([Decision::Commit, Decision::Rollback, Decision::Commit]) {
        let settle = Settle {
            half: *half,
            counter: None,
            decision,
            group: Some("producers"),
            by: "",
            reason: "",
            rewritten: Vec::new(),
        };
        assert!(matches!(propose(shard, Command::Settle(settle)).await, Outcome::Settled(_)));
    }
    publish(shard, "after", 30).await;
    for name in ["new1", "new2"] {
        let bytes = unit(name);
        let prepare = Prepare {
            queue: queue.id,
            when: When::Now,
            immunity: None,
            first_half: None,
            content: Content([0; 16]),
            duplicate_window: 60_000,
            group: "producers",
            client: "client",
            unique_id: name,
            message: Message::new(7, &bytes),
        };
        assert!(matches!(propose(shard, Command::Prepare(prepare)).await, Outcome::Prepared(_)));
    }
    propose(shard, Command::PutGroup(&encode_cold(&GroupSettings::new("G")))).await;
    propose(shard, Command::CommitOffsets(vec![OffsetCommit { group: "G", queue: queue.id, offset: QueueOffset(77) }]))
        .await;
    opened.close().await.unwrap();
    dir
}

async fn publish(shard: &Shard, name: &str, count: usize) {
    let queue = shard.topics().get("T").unwrap().queues[0].id;
    for nth in 0..count {
        let bytes = unit(&format!("{name}{nth:0>300}"));
        let messages = MessageList::One(Message::new(7, &bytes));
        propose(shard, Command::Publish(Publish { queue, when: When::Now, messages, once: None })).await;
    }
}

/// Moves everything that is pinned; answers the halves.
async fn roll(shard: &Shard) -> Vec<HalfId> {
    let mut units = Vec::new();
    half::scan(shard.index(), HalfId::ZERO, |row| {
        units.push((
            PinOwner::Half { half: row.half },
            row.position,
            shard.raw_unit(row.position, row.length).unwrap(),
        ));
        true
    })
    .unwrap();
    let halves: Vec<HalfId> = units.iter().map(|(_, position, _)| HalfId::at(*position)).collect();
    for row in timer::due(shard.index(), Stamp::ZERO, Stamp(u64::MAX - 1), 100).unwrap() {
        let unit = shard.raw_unit(row.position, row.length).unwrap();
        units.push((PinOwner::Timer { due: row.due }, row.position, unit));
    }
    let moved =
        units.iter().map(|(owner, from, unit)| Moved { owner: *owner, from: *from, message: Message::new(7, unit) });
    let moved: Vec<Moved<'_>> = moved.collect();
    let count = moved.len() as u32;
    let halves_upto = halves.last().unwrap().next();
    assert_eq!(propose(shard, Command::Roll(Roll { halves_upto, moved })).await, Outcome::Handled(count));
    halves
}

/// Lets the files go that were trimmed.
async fn purge(opened: &Storage) {
    let (log, trimmed) = (opened.shard.log(), opened.shard.counters().trimmed());
    let next = log.segments().into_iter().rfind(|segment| segment.start <= trimmed).unwrap();
    let last = LogIndex(next.first_index.0 - 1);
    opened.applier().keep_base(last).unwrap();
    opened.purger().purge(last);
    let gone = async {
        while log.purged().is_none_or(|purged| purged.index < last) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

/// Everything that the store has, the bodies of open halves and the ends of the queue included; each must be readable.
pub(crate) async fn all_of(dir: &Path) -> Vec<String> {
    let opened = open(dir).await.unwrap();
    let shard = &opened.shard;
    let mut all: Vec<String> = served(shard).into_iter().map(Result::unwrap).collect();
    let queue = &shard.topics().get("T").unwrap().queues[0];
    all.push(format!("ends {} {}", queue.min_offset(), queue.max_offset()));
    half::scan(shard.index(), HalfId::ZERO, |row| {
        let unit = shard.raw_unit(row.position, row.length).unwrap();
        all.push(format!("half {} at {}: {unit:?}", row.half, row.position));
        true
    })
    .unwrap();
    for row in timer::due(shard.index(), Stamp::ZERO, Stamp(u64::MAX - 1), 100).unwrap() {
        let unit = shard.raw_unit(row.position, row.length).unwrap();
        all.push(format!("timer {} at {}: {unit:?}", row.due, row.position));
    }
    decision::for_all(shard.index(), |half, row| all.push(format!("decision on {half}: {row:?}"))).unwrap();
    all.push(format!("{:?}", meta::kept(shard.index()).unwrap()));
    opened.close().await.unwrap();
    all
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_keys().filter(|path| path.extension().is_some_and(|end| end == "sst")).collect()
}

/// Flips a bit without touching what else has the same bytes by a hard link.
fn damage(path: &Path, byte: usize) {
    let mut content = fs::read(path).unwrap();
    content[byte] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_trimmed_store_is_clean_and_a_check_changes_nothing() {
    let dir = trimmed().await;
    let before = files(dir.path());
    let report = check(dir.path(), true);
    assert_eq!(report.findings, []);
    let figures = &report.figures;
    assert!(figures.is_complete && figures.is_compared && figures.log_start > Position::ZERO, "{figures:?}");
    assert!(figures.rows[&'H'] == 19 && figures.rows[&'S'] > 0 && figures.rows[&'T'] == 6, "{figures:?}");
    assert!(figures.base.unwrap().1 < figures.applied.unwrap().1, "{figures:?}");
    assert!(files(dir.path()) == before, "nothing was changed");
    assert_eq!(repair(dir.path(), None).unwrap(), []);
}

#[tokio::test]
async fn a_flipped_bit_of_a_trimmed_store_is_named_or_harmless_and_never_served() {
    let tally = flip(trimmed().await.path()).await;
    for folder in ["base", "index"] {
        for kind in ["CURRENT", "MANIFEST", "sst"] {
            assert!(tally[&format!("{folder}/{kind}")][0] >= 20, "{folder} {kind}: {tally:?}");
        }
    }
    for kind in ["keys/run", "log/log", "log/vote"] {
        assert!(tally[kind][0] >= 20, "{kind}: {tally:?}");
    }
    assert_names_the_file(&tally);
}

#[tokio::test]
async fn the_index_of_a_trimmed_store_is_made_from_the_copy_and_the_log() {
    let dir = trimmed().await;
    let right = all_of(fork(dir.path()).path()).await;
    for table in tables(&dir.path().join("index")) {
        let bad = fork(dir.path());
        let table = bad.path().join(table.strip_prefix(dir.path()).unwrap());
        damage(&table, 60);
        let report = check(bad.path(), false);
        assert_eq!(kinds(&report), [Kind::IndexUnreadable]);
        assert_eq!(report.findings[0].file, table);
        let made = Action::Done("made the index anew from the copy `base` and the log".to_owned());
        assert_eq!(repair(bad.path(), None).unwrap(), [made]);
        assert_eq!(check(bad.path(), true).findings, []);
        assert_eq!(all_of(bad.path()).await, right);
    }
    // No index at all, or an empty folder: a start makes it.
    for is_empty in [false, true] {
        let bad = fork(dir.path());
        fs::remove_dir_all(bad.path().join("index")).unwrap();
        if is_empty {
            fs::create_dir(bad.path().join("index")).unwrap();
        }
        let report = check(bad.path(), false);
        assert_eq!(report.findings, []);
        assert!(report.notes[0].contains("the next start makes it from the copy `base` and the log"), "{report:?}");
        assert_eq!(all_of(bad.path()).await, right);
        assert_eq!(check(bad.path(), true).findings, []);
    }
}

#[tokio::test]
async fn without_a_whole_copy_a_trimmed_store_is_left_as_it_is() {
    let dir = trimmed().await;
    // Both share the files, as long as the index goes on with them: what damages one damages the other.
    crate::shard::make_base(dir.path()).unwrap();
    let shared = dir.path().join("base").join(tables(&dir.path().join("base"))[0].file_name().unwrap());
    let twin = dir.path().join("index").join(shared.file_name().unwrap());
    assert!(twin.exists(), "the copy takes no room of its own");
    damage(&shared, 60);
    let base_alone = fork(dir.path());
    damage(&twin, 60);
    let no_base = fork(dir.path());
    fs::remove_dir_all(no_base.path().join("base")).unwrap();
    for (bad, found) in [(&dir, &[Kind::BaseDamaged, Kind::IndexUnreadable][..]), (&no_base, &[Kind::IndexUnreadable])]
    {
        let before = files(bad.path());
        let report = check(bad.path(), true);
        assert_eq!(kinds(&report), found);
        assert!(!report.figures.is_complete);
        let actions = repair(bad.path(), None).unwrap();
        assert!(actions.iter().all(|action| matches!(action, Action::Left(_))), "{actions:?}");
        assert_eq!(actions.len(), found.len());
        assert!(files(bad.path()) == before, "nothing was changed");
    }
    // Neither of them: nothing to begin with, and it says so.
    fs::remove_dir_all(no_base.path().join("index")).unwrap();
    let report = check(no_base.path(), false);
    assert_eq!(kinds(&report), [Kind::IndexBehind]);
    assert!(matches!(&repair(no_base.path(), None).unwrap()[..], [Action::Left(_)]));
    assert!(open(no_base.path()).await.is_err());

    // The copy alone is made once more from the index, and is good for a start.
    let right = all_of(fork(base_alone.path()).path()).await;
    assert_eq!(kinds(&check(base_alone.path(), false)), [Kind::BaseDamaged]);
    let made = Action::Done("made the copy `base` anew from the index".to_owned());
    assert_eq!(repair(base_alone.path(), None).unwrap(), [made]);
    assert_eq!(check(base_alone.path(), true).findings, []);
    fs::remove_dir_all(base_alone.path().join("index")).unwrap();
    assert_eq!(all_of(base_alone.path()).await, right);
}

#[tokio::test]
async fn acknowledged_bytes_of_a_trimmed_log_are_given_up_only_behind_the_copy() {
    let dir = trimmed().await;
    let segments: Vec<PathBuf> = files(&dir.path().join("log"))
        .into_keys()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    let figures = check(dir.path(), false).figures;
    let base_end = figures.base.unwrap().1;
    let start_of =
        |path: &Path| crate::log::format::segment_start(path.file_name().unwrap().to_str().unwrap()).unwrap();
    // In the first record: the copy has applied more.
    let bad = fork(dir.path());
    let first = bad.path().join(segments[0].strip_prefix(dir.path()).unwrap());
    assert!(start_of(&first) < base_end);
    damage(&first, 4096 + 50);
    let report = check(bad.path(), false);
    assert_eq!(kinds(&report), [Kind::LogDamaged]);
    let before = files(bad.path());
    let place = (report.findings[0].file.clone(), report.findings[0].offset.unwrap());
    let told = repair(bad.path(), Some(place)).unwrap_err();
    assert!(matches!(told, RepairError::NoWayBack { .. }), "{told}");
    assert!(told.to_string().contains("the copy `base` has applied the log up to"), "{told}");
    assert!(files(bad.path()) == before, "nothing was changed");

    // Behind the copy: what is before is kept.
    let last = segments.iter().rfind(|path| start_of(path) > base_end).expect("a segment behind the copy");
    damage(last, 4096 + 50);
    let report = check(dir.path(), false);
    assert_eq!(kinds(&report), [Kind::LogDamaged]);
    let place = (report.findings[0].file.clone(), report.findings[0].offset.unwrap());
    repair(dir.path(), Some(place)).unwrap();
    let after = check(dir.path(), true);
    assert_eq!(after.findings, []);
    assert!(after.figures.is_compared && after.figures.log_end == start_of(last), "{:?}", after.figures);
    let now = all_of(dir.path()).await;
    assert!(now.iter().any(|item| item.contains("after0000")), "{now:?}");
    assert_eq!(after.figures.log_start, figures.log_start);
    open(dir.path()).await.unwrap().close().await.unwrap();
    assert_eq!(check(dir.path(), true).findings, []);
}
