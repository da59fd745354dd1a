//! A copy of a store whose old records are gone, for a member that has something else.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use escrowmq_common::task::{Shutdown, Tasks};

use super::place::{folder, may_replace, settle_with};
use super::question::{Ask, Offer, OfferedFile, Told};
use super::*;
use crate::check::Folder;
use crate::check::tests::{check, files, filled, fork, open, served};
use crate::check::tests_trimmed::trimmed;
use crate::limits::{FETCHED, SWITCH};
use crate::log::{Log, LogReader, LogSettings, RealDisk, RecordId, encode_vote_file, saved_vote};
use crate::raft::Link;
use crate::storage::Storage;

const VOTE: &[u8] = b"the vote of this member";

/// The way to a member that offers copies, which may break.
#[derive(Clone)]
struct Way {
    offers: Offers,
    /// After so many questions it breaks for good; then all are lost.
    breaks_after: u64,
    asked: Arc<AtomicU64>,
    /// The answers are damaged this way.
    damage: fn(Told) -> Told,
}

impl Link for Way {
    fn call(&self, request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
        let breaks = self.asked.fetch_add(1, Ordering::Relaxed) >= self.breaks_after;
        let (answer, damage) = (self.offers.serve(7, &request), self.damage);
        async move {
            if breaks {
                // As if it had asked for the whole of its patience.
                return Ok(Told::No("it is gone".to_owned()).encode());
            }
            let told = Told::decode(&answer.await.expect("it is a question")).expect("it is an answer");
            Ok(damage(told).encode())
        }
    }
}

/// A member that has the state, and one that lacks it.
struct Bench {
    source: tempfile::TempDir,
    opened: Storage,
    offers: Offers,
    shutdown: Shutdown,
    tasks: Tasks,
    target: tempfile::TempDir,
    progress: Arc<Progress>,
}

impl Bench {
    /// The target has voted, and its log is empty.
    async fn new() -> Self {
        let source = trimmed().await;
        let opened = open(source.path()).await.unwrap();
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (shard, applier) = (opened.shard.clone(), Arc::clone(opened.applier()));
        let offers = Offers::new(source.path(), shard, applier, opened.purger().clone(), tasks.clone());
        tasks.spawn("offers", offers.clone().run(shutdown.clone()));
        let target = tempfile::tempdir().unwrap();
        fs::create_dir(target.path().join("log")).unwrap();
        fs::write(target.path().join("log/vote"), encode_vote_file(Some(VOTE.to_vec()), Position::ZERO)).unwrap();
        Self { source, opened, offers, shutdown, tasks, target, progress: Arc::default() }
    }

    async fn fetch(&self, breaks_after: u64, damage: fn(Told) -> Told) -> (Result<Cut, SnapshotError>, u64) {
        let asked = Arc::new(AtomicU64::new(0));
        let link = Way { offers: self.offers.clone(), breaks_after, asked: Arc::clone(&asked), damage };
        let (store, tasks) = (self.target.path().to_owned(), self.tasks.clone());
        let fetch =
            Fetch { link, store, log: own_log(self.target.path()), tasks, progress: Arc::clone(&self.progress) };
        let fetched = fetch.run().await;
        (fetched, asked.load(Ordering::Relaxed))
    }

    async fn end(self) -> (tempfile::TempDir, tempfile::TempDir) {
        self.shutdown.cancel();
        self.tasks.join().await;
        assert!(!self.source.path().join("offered/1").exists(), "links are removed at the end");
        self.opened.close().await.unwrap();
        (self.source, self.target)
    }
}

fn own_log(store: &Path) -> LogReader {
    let log = Log::open(Arc::new(RealDisk), &store.join("log"), LogSettings::default()).unwrap();
    let reader = LogReader::clone(&log);
    log.close().unwrap();
    reader
}

fn vote_of(store: &Path) -> Option<Vec<u8>> {
    saved_vote(&RealDisk, &store.join("log")).unwrap()
}

async fn all_of(store: &Path) -> Vec<Result<String, String>> {
    let opened = open(store).await.unwrap();
    let all = served(&opened.shard);
    opened.close().await.unwrap();
    all
}

#[tokio::test]
async fn a_copy_serves_what_its_source_serves_and_keeps_the_own_vote() {
    let bench = Bench::new().await;
    let (cut, _) = bench.fetch(u64::MAX, |told| told).await;
    let last = bench.opened.shard.log().last().unwrap();
    assert_eq!((cut.unwrap().index, bench.progress.bytes()), (last.index, (0, 0)));
    let (source, target) = bench.end().await;
    settle(target.path(), &LogSettings::default()).unwrap();
    assert_eq!(vote_of(target.path()).as_deref(), Some(VOTE));
    assert!(!folder(target.path()).exists());
    assert_eq!(check(target.path(), true).findings.len(), 0);
    // The vote is another member's, and means nothing to a broker that is alone.
    fs::copy(source.path().join("log/vote"), target.path().join("log/vote")).unwrap();
    let expected = all_of(source.path()).await;
    assert!(all_of(target.path()).await == expected);
    // Without an index it comes from the copy of the index, as in any store.
    fs::remove_dir_all(target.path().join("index")).unwrap();
    assert!(all_of(target.path()).await == expected);
}

#[tokio::test]
async fn a_fetch_that_broke_off_goes_on_with_the_segments_that_came_whole() {
    let bench = Bench::new().await;
    let (broken, asked) = bench.fetch(4, |told| told).await;
    assert!(matches!(broken, Err(SnapshotError::No(_))) && asked >= 4, "{broken:?}");
    let came = fs::read_dir(folder(bench.target.path()).join("log")).unwrap();
    let came = came.filter(|file| !file.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part")).count();
    let (whole, asked) = bench.fetch(u64::MAX, |told| told).await;
    whole.unwrap();
    let (again, asked_again) = bench.fetch(u64::MAX, |told| told).await;
    again.unwrap();
    assert!(came > 0 && asked_again < asked, "{came} files, {asked} questions and then {asked_again}");
    let (_, target) = bench.end().await;
    // A whole copy is one until it is in its place.
    settle(target.path(), &LogSettings::default()).unwrap();
    assert_eq!(check(target.path(), true).findings.len(), 0);
}

#[tokio::test]
async fn a_damaged_copy_is_not_taken_and_fetched_anew() {
    let bench = Bench::new().await;
    let flip = |told| match told {
        // Long ones are segments.
        Told::Bytes(bytes) if bytes.len() > 8 << 10 => {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Told::Bytes(bytes.into())
        }
        told => told,
    };
    let (fetched, _) = bench.fetch(u64::MAX, flip).await;
    assert!(matches!(fetched, Err(SnapshotError::Damaged(_))), "{fetched:?}");
    assert!(!folder(bench.target.path()).exists());
    let longer = |told| match told {
        Told::Bytes(bytes) => Told::Bytes(bytes.slice(1..)),
        told => told,
    };
    let (fetched, _) = bench.fetch(u64::MAX, longer).await;
    assert!(matches!(fetched, Err(SnapshotError::Damaged(_))), "{fetched:?}");
    let (_, target) = bench.end().await;
    settle(target.path(), &LogSettings::default()).unwrap();
    assert_eq!(vote_of(target.path()).as_deref(), Some(VOTE), "nothing has changed");
}

#[tokio::test]
async fn a_switch_that_is_interrupted_anywhere_is_finished_by_the_next_start() {
    let bench = Bench::new().await;
    bench.fetch(u64::MAX, |told| told).await.0.unwrap();
    let (_, target) = bench.end().await;
    fs::create_dir(target.path().join("keys")).unwrap();
    let whole = fork(target.path());
    settle(whole.path(), &LogSettings::default()).unwrap();
    let relative = |store: &Path| {
        let files = files(store).into_iter();
        files.map(|(path, bytes)| (path.strip_prefix(store).unwrap().to_owned(), bytes)).collect::<Vec<_>>()
    };
    let expected = relative(whole.path());
    for last in 1.. {
        let store = fork(target.path());
        let mut steps = 0;
        let mut step = || {
            steps += 1;
            if steps == last { Err(SnapshotError::No("the power is off".to_owned())) } else { Ok(()) }
        };
        let ended = settle_with(store.path(), &LogSettings::default(), &mut step);
        if store.path().join(FETCHED).join(SWITCH).exists() {
            assert!(matches!(Folder::take(store.path()), Err(CheckError::Switching { .. })));
        }
        settle(store.path(), &LogSettings::default()).unwrap();
        assert_eq!(vote_of(store.path()).as_deref(), Some(VOTE), "after {last} steps");
        assert!(relative(store.path()) == expected, "after {last} steps");
        if ended.is_ok() {
            assert!(last > 10, "there are that many steps");
            return;
        }
    }
}

#[tokio::test]
async fn a_log_that_is_newer_stays() {
    let bench = Bench::new().await;
    let cut = bench.fetch(u64::MAX, |told| told).await.0.unwrap();
    let (_, target) = bench.end().await;
    // Another store with entries of a later term.
    let newer = filled().await;
    let last = own_log(newer.path()).last().unwrap();
    let is_newer = !may_replace(Some(last), &cut);
    fs::rename(folder(target.path()), folder(newer.path())).unwrap();
    let before = all_of(newer.path()).await;
    settle(newer.path(), &LogSettings::default()).unwrap();
    assert!(!folder(newer.path()).exists());
    assert_eq!(all_of(newer.path()).await == before, is_newer);
}

#[test]
fn logs_are_compared_as_raft_does() {
    let own = |term, index| Some(RecordId { term, index: LogIndex(index) });
    let cut = Cut { term: 5, index: LogIndex(100), end: Position(9) };
    let may = [None, own(5, 100), own(5, 3), own(4, 100), own(4, 900), own(1, 1)];
    let may_not = [own(5, 101), own(6, 1), own(6, 900)];
    assert!(may.into_iter().all(|own| may_replace(own, &cut)));
    assert!(!may_not.into_iter().any(|own| may_replace(own, &cut)));
}

#[test]
fn names_that_lead_elsewhere_and_damaged_answers_are_refused() {
    let offer = |name: &str| {
        let files = vec![OfferedFile { name: name.to_owned(), bytes: 1 }];
        let cut = Cut { term: 1, index: LogIndex(1), end: Position(1) };
        Told::decode(&Told::Offer(Offer { number: 1, cut, files }).encode())
    };
    for name in ["log/1.log", "index/CURRENT", "quarantine/1"] {
        assert!(offer(name).is_ok(), "{name}");
    }
    for name in ["log", "log/", "log/../x", "log/a/b", "/log/x", "keys/x", "log/.x", "member", "log/vote"] {
        assert!(offer(name).is_err(), "{name}");
    }
    let answer = Told::Bytes(Bytes::from_static(b"bytes")).encode();
    for at in 0..answer.len() {
        let mut damaged = answer.to_vec();
        damaged[at] ^= 4;
        assert!(Told::decode(&damaged.into()).is_err(), "{at}");
        assert!(Told::decode(&answer.slice(..at)).is_err(), "{at}");
    }
    let asks = [Ask::Offer, Ask::Read { offer: 1, file: 2, offset: 3 }, Ask::Done { offer: 4 }];
    assert!(asks.iter().all(|ask| Ask::decode(&ask.encode()).as_ref() == Ok(ask)));
}
