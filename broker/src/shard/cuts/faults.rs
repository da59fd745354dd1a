//! Disks that refuse a write or a flush, and bits that flip.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock::Clock;
use parking_lot::Mutex;

use super::history::History;
use super::life::{self, Kept, Rows, act, collect, live, rows_of, submit};
use super::recover::{Expected, recover};
use super::stepper::Stepped;
use super::view::View;
use crate::log::sim_disk::{Faults, Random, SimDisk};
use crate::log::{Drive, Flush, LogSettings};
use crate::shard::SubmitError;
use crate::storage::{Parts, Storage, StorageSettings};

const ASYNC: Flush = Flush::Async { interval: Duration::from_millis(5) };

/// Runs until the disk fails; then nothing more may be acknowledged, reading goes on, and after a restart or a power cut
/// everything acknowledged is there. Answers whether the fault fired.
fn fail(seed: u64, flush: Flush, plan: impl Fn(&SimDisk) -> Faults) -> Result<bool, String> {
    let mut random = Random::new(seed);
    let clock = Clock::manual(1_700_000_000_000);
    let disk = SimDisk::new();
    let mut history = History::new();
    let before = live(&mut history, &disk, Kept::default(), flush, &clock, &mut random, 3)?;
    let rows = before.snapshots.last().map(|(_, rows)| Arc::clone(rows));
    let base = before.bases.last().map(|(_, rows)| Arc::clone(rows));
    let opened = Stepped::open(&disk, rows.as_ref(), flush, &clock, random.draw())?;
    let Stepped { storage, stepper } = &opened;
    let shard = &storage.shard;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut acknowledged = history.steps.len();
    let mut synced = acknowledged;
    disk.set_faults(plan(&disk));
    let mut failed = false;
    for _ in 0..25 {
        clock.advance(Duration::from_millis(random.below(300)));
        let now = storage.time.now();
        let acts: Vec<_> = (0..=random.below(3)).map(|_| act(history.model(), shard, &[], now, &mut random)).collect();
        let answers = submit(shard, &disk, history.steps.len(), &acts, &answered);
        let outcomes = collect(acts.len(), || stepper.until(|| answers.try_recv().ok()))?;
        let mut unknown = Vec::new();
        let mut places = history.new_places(shard.log())?;
        for (act, outcome) in acts.into_iter().zip(outcomes) {
            match outcome {
                Ok(outcome) if unknown.is_empty() && !failed => {
                    history.push(act, now, &outcome, &places.pop_front().unwrap_or_default())?;
                    acknowledged = history.steps.len();
                }
                Ok(outcome) => return Err(format!("{act:?} got {outcome:?} after the store had failed")),
                Err(SubmitError::Busy(_) | SubmitError::DiskFull) => return Err("refused without need".to_owned()),
                Err(SubmitError::OutcomeUnknown) => unknown.push(act),
                Err(_) => failed = true,
            }
        }
        failed |= !unknown.is_empty();
        history.note_unknown(shard.log(), unknown, now)?;
        // A failed flush ends the promises of what was answered before it only where an answer does not wait for one.
        if flush != Flush::Sync && random.below(4) == 0 && storage.applier().flush().is_ok() {
            synced = acknowledged;
        }
        View::of(shard).map_err(|why| format!("reading after a failure: {why}"))?;
        if failed && random.below(3) == 0 {
            break;
        }
    }
    let fired = failed || shard.log().failure().is_some();
    // An error says that the end was not in good order, which is so.
    let _ = opened.close();
    disk.set_faults(Faults::default());
    let required = if flush == Flush::Sync { acknowledged } else { synced };
    let expected = Expected { history: &history, required, flushed: required, flush, base: base.as_ref() };
    for (image, what) in [(disk.fork(), "a restart"), (disk.crash(0), "a power cut"), (disk.crash(seed), "a torn cut")]
    {
        let rows = rows.as_ref().filter(|_| random.below(2) == 0);
        expected.examine(&image, rows, &clock, &mut random).map_err(|why| format!("after {what}: {why}"))?;
    }
    Ok(fired)
}

#[test]
fn a_disk_that_fails_a_write_or_a_flush_stops_the_shard_and_loses_nothing() {
    let (mut planned, mut fired) = (0, 0);
    for (nth, flush) in (0_u64..36).map(|nth| (nth, if nth % 2 == 0 { Flush::Sync } else { ASYNC })) {
        let at = 1 + nth / 3;
        let plan = |disk: &SimDisk| match nth % 3 {
            0 => Faults { fail_write_at: Some(disk.writes() + at), ..Faults::default() },
            1 => Faults { fail_sync_at: Some(disk.syncs() + at), ..Faults::default() },
            _ => Faults { fail_syncs_from: Some(disk.syncs() + at), ..Faults::default() },
        };
        planned += 1;
        match fail(nth, flush, plan) {
            Ok(did) => fired += u32::from(did),
            Err(why) => panic!("fault {nth}, {flush:?}: {why}"),
        }
    }
    assert!(fired * 10 >= planned * 9, "{fired} of {planned} faults fired: that shows nothing");
}

/// A shard that was closed in good order, with its history.
fn closed(seed: u64) -> (SimDisk, History, Rows, Option<Rows>, Random) {
    let mut random = Random::new(seed);
    let (disk, mut history) = (SimDisk::new(), History::new());
    let clock = Clock::manual(1_700_000_000_000);
    let life = live(&mut history, &disk, Kept::default(), Flush::Sync, &clock, &mut random, 12).expect("a good life");
    let rows = Arc::clone(&life.snapshots.last().expect("closing flushes the index").1);
    let base = life.bases.last().map(|(_, rows)| Arc::clone(rows));
    (disk, history, rows, base, random)
}

/// The view of a shard that has applied everything.
fn served(disk: &SimDisk, rows: &Rows) -> Result<View, String> {
    let index = life::index_of(Some(rows)).map_err(|error| error.to_string())?;
    let opened = Parts::open(Arc::new(disk.clone()), index, life::settings(Flush::Sync), Clock::manual(0));
    View::of(&opened.map_err(|error| error.to_string())?.shard)
}

#[test]
fn a_flipped_bit_in_log_or_vote_is_found_or_harmless() {
    let (mut found, mut harmless) = (0, 0);
    for seed in 0..3 {
        let (disk, history, rows, base, mut random) = closed(seed);
        let files: Vec<_> = disk.image().into_iter().filter(|(_, content)| !content.is_empty()).collect();
        for _ in 0..150 {
            let (path, content) = &files[random.below(files.len() as u64) as usize];
            // Most of a segment may be free space.
            let used = content.len() - content.iter().rev().take_while(|byte| **byte == 0).count();
            let bit = random.below(8 * (used as u64 + 64).min(content.len() as u64)) as usize;
            let image = disk.fork();
            image.flip(path, bit);
            let kept = (random.below(2) == 0).then_some(&rows);
            let what = format!("seed {seed}, bit {bit} of {}", path.display());
            let looked = match kept {
                // The index needs nothing of the log: only what is read for somebody is looked at.
                Some(rows) => served(&image, rows).map(|view| (history.steps.len(), view)),
                None => recover(&image, base.as_ref(), Flush::Sync, &history, &mut random)
                    .and_then(|recovered| Ok((recovered.steps, View::of(&recovered.shard)?))),
            };
            match looked {
                Err(_) => found += 1,
                Ok((steps, view)) => {
                    assert_eq!(steps, history.steps.len(), "{what}: commands are missing and nobody says so");
                    let differences = history.model().view.differences(&view);
                    assert!(differences.is_empty(), "{what}: served as if nothing were wrong\n{differences}");
                    harmless += 1;
                }
            }
        }
    }
    println!("{found} flipped bits were found, {harmless} were harmless");
    assert!(found > 100, "{found} found, {harmless} harmless: most of the bytes matter");
}

#[tokio::test]
async fn an_index_flushed_by_nobody_is_not_ahead_after_a_failed_flush_of_the_log() {
    // With an asynchronous flush the index holds what the log may lose. Closing must not write it.
    let dir = tempfile::tempdir().expect("a folder");
    let disk = SimDisk::new();
    let clock = Clock::manual(1_700_000_000_000);
    let settings = |dir: &Path| {
        let log = life::settings(Flush::Async { interval: Duration::from_secs(3600) }).log;
        StorageSettings { dir: dir.to_owned(), log: LogSettings { drive: Drive::Thread, ..log } }
    };
    let opened = Storage::open_on(Arc::new(disk.clone()), settings(dir.path()), clock.clone()).await.expect("opens");
    let mut history = History::new();
    let mut random = Random::new(1);
    for _ in 0..10 {
        let now = opened.time.now();
        let acts = vec![act(history.model(), &opened.shard, &[], now, &mut random)];
        let answers = submit(&opened.shard, &disk, 0, &acts, &Arc::default());
        let outcome = collect(1, || answers.recv().map_err(|error| error.to_string()))
            .expect("answered")
            .remove(0)
            .expect("taken");
        let places = history.new_places(opened.shard.log()).expect("readable").remove(0).unwrap_or_default();
        history.push(acts.into_iter().next().expect("one"), now, &outcome, &places).expect("as predicted");
        history.note_records(opened.shard.log()).expect("as sent");
    }
    assert!(!rows_of(opened.shard.index()).expect("readable").is_empty());
    disk.set_faults(Faults { fail_syncs_from: Some(disk.syncs() + 1), ..Faults::default() });
    let closed = opened.close().await;
    assert!(closed.is_err(), "the log could not be flushed");
    // The lock of the folder is kept until the process ends, so the next start sees a copy.
    let copy = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(copy.path().join("index")).expect("a folder");
    for file in std::fs::read_dir(dir.path().join("index")).expect("readable").map(|file| file.expect("readable")) {
        std::fs::copy(file.path(), copy.path().join("index").join(file.file_name())).expect("copied");
    }
    let log = disk.crash(0).moved(&dir.path().join("log"), &copy.path().join("log"));
    let opened = Storage::open_on(Arc::new(log), settings(copy.path()), clock).await;
    opened.expect("a shard that lost what it may lose opens").close().await.expect("closes");
}
