//! Cuts the power at every operation of a workload and looks at what is left.
//!
//! A workload is a list of steps, run against the log and against a model. The model is a list of events: one record
//! more, one record less, a vote. The recovered log must be in the state after some number of these events, and not
//! fewer than were acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;

use super::{Outcome, outcome, payload, record, small};
use crate::log::sim_disk::{Faults, Random, SimDisk};
use crate::log::{Flush, Log, LogSettings, OpenError};
use crate::terms::LogIndex;

pub(super) const ASYNC: Flush = Flush::Async { interval: Duration::from_secs(60 * 60) };

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    term: u64,
    index: u64,
    payload: Bytes,
}

#[derive(Clone, Debug)]
enum Event {
    Push(Entry),
    Pop,
    Vote(Vec<u8>),
}

/// The record of one run of the workload.
#[derive(Default)]
pub(super) struct History {
    events: Vec<Event>,
    /// The first index after the last purge that succeeded.
    purged_to: u64,
    /// The highest committed index that was set.
    committed: Option<u64>,
}

/// The state after some events.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct State {
    entries: Vec<Entry>,
    vote: Option<Vec<u8>>,
}

impl State {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Push(entry) => self.entries.push(entry.clone()),
            Event::Pop => {
                self.entries.pop().expect("there is a record to cut");
            }
            Event::Vote(vote) => self.vote = Some(vote.clone()),
        }
    }
}

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/log")
}

pub(super) fn open(disk: &SimDisk, flush: Flush) -> Result<Log, OpenError> {
    Log::open(Arc::new(disk.clone()), &dir(), small(flush))
}

/// Runs a random workload until it ends or the disk fails. Answers the history and how many of its events were
/// acknowledged as durable.
pub(super) fn run(disk: &SimDisk, flush: Flush, seed: u64) -> (History, usize) {
    let mut history = History::default();
    let acked = Arc::new(AtomicUsize::new(0));
    let Ok(log) = open(disk, flush) else {
        return (history, 0);
    };
    let mut random = Random::new(seed);
    let (mut term, mut last, mut first) = (1, 0_u64, 1_u64);
    let mut committed = 0_u64;
    let mut waiting: Vec<Outcome> = Vec::new();
    for step in 0..45_u64 {
        let (done, outcome) = outcome();
        // An acknowledgement covers everything before it: operations are executed in order.
        let ack = |covers: usize| {
            let acked = Arc::clone(&acked);
            move |result: std::io::Result<()>| {
                if result.is_ok() {
                    acked.fetch_max(covers, Ordering::SeqCst);
                }
                done(result);
            }
        };
        match random.below(20) {
            0 | 1 => {
                let vote = payload(seed ^ step, 20).to_vec();
                history.events.push(Event::Vote(vote.clone()));
                // In asynchronous mode the records before the vote need not be durable with it.
                let covers = if flush == Flush::Sync { history.events.len() } else { 0 };
                log.save_vote(vote, ack(covers));
            }
            2 | 3 if last > committed => {
                let keep = committed.max(first - 1) + random.below(last - committed.max(first - 1) + 1);
                for _ in keep..last {
                    history.events.push(Event::Pop);
                }
                let covers = history.events.len();
                term += 1;
                let after = (keep > 0).then_some(keep);
                if log.truncate_after(after.map(LogIndex), ack(covers)).is_err() {
                    break;
                }
                last = keep;
            }
            4 if last > 0 => {
                committed = committed.max(random.below(last) + 1).min(last);
                log.set_committed(LogIndex(committed));
                log.release_upto(LogIndex(committed));
                history.committed = Some(committed);
                continue;
            }
            5 if committed > 0 => {
                match log.purge_upto(LogIndex(committed)) {
                    Ok(purged) => first = purged.map_or(1, |purged| purged.index.next().0),
                    Err(_) => break,
                }
                history.purged_to = first;
                continue;
            }
            6 => log.sync(ack(history.events.len())),
            _ => {
                let count = 1 + random.below(4);
                let records: Vec<_> = (1..=count)
                    .map(|nth| {
                        let len = if random.below(12) == 0 { 20_000 } else { random.below(2500) as usize };
                        record(term, last + nth, payload(seed ^ (step << 8) ^ nth, len))
                    })
                    .collect();
                for record in &records {
                    let entry = Entry { term, index: record.index.0, payload: record.payload.clone() };
                    history.events.push(Event::Push(entry));
                }
                let covers = if flush == Flush::Sync { history.events.len() } else { 0 };
                if log.append(records, ack(covers)).is_err() {
                    let kept = history.events.len() - count as usize;
                    history.events.truncate(kept);
                    break;
                }
                last += count;
            }
        }
        waiting.push(outcome);
        // Sometimes several operations are under way at once.
        if random.below(3) > 0 && waiting.drain(..).any(|outcome| outcome.wait().is_err()) {
            break;
        }
    }
    drop(log);
    let acked = acked.load(Ordering::SeqCst);
    (history, acked)
}

/// Everything that a recovered log says.
fn content(log: &Log) -> State {
    let mut entries = Vec::new();
    let mut next = log.first_index();
    while let Some(last) = log.last().filter(|last| next <= last.index) {
        let records = log.read_entries(next, last.index.next(), 5000).unwrap();
        assert!(!records.is_empty());
        for record in records {
            assert_eq!(record.index, next);
            let raw = log.read(record.payload_position(), record.payload.len()).unwrap();
            assert_eq!(raw, record.payload);
            entries.push(Entry { term: record.term, index: next.0, payload: record.payload });
            next += 1;
        }
    }
    assert_eq!(log.durable_end(), log.end());
    State { entries, vote: log.vote() }
}

/// Checks what was recovered against the history; explains itself by `what`.
fn judge(found: &State, log: &Log, history: &History, acked: usize, what: &str) {
    let first = log.first_index().max(LogIndex(1));
    assert!(first >= LogIndex(history.purged_to), "{what}: purged records came back");
    assert!(log.committed() <= history.committed.map(LogIndex), "{what}: committed {:?}", log.committed());
    let mut state = State::default();
    let mut fits = false;
    for upto in 0..=history.events.len() {
        if upto > 0 {
            state.apply(&history.events[upto - 1]);
        }
        // A vote may be durable before the records in front of it only if those need no flush.
        let kept = state.entries.iter().filter(|entry| entry.index >= first.0);
        if upto >= acked && kept.eq(&found.entries) && state.entries.len() as u64 + 1 >= first.0 {
            fits |= vote_fits(found, history, upto);
        }
    }
    assert!(
        fits,
        "{what}: {acked} of {} events were acknowledged, but recovered were records {first} to {:?} with vote {:?}",
        history.events.len(),
        log.last(),
        found.vote,
    );
}

/// Whether the vote is one that may go with the records after `upto` events: the last one before them, or a later
/// one with nothing but votes in between (or records that were not durable with it).
fn vote_fits(found: &State, history: &History, upto: usize) -> bool {
    let mut vote = None;
    for (nth, event) in history.events.iter().enumerate() {
        if nth >= upto && vote == found.vote {
            return true;
        }
        if let Event::Vote(new) = event {
            vote = Some(new.clone());
        }
    }
    vote == found.vote
}

/// Recovers, judges, recovers again, crashes within recovery, appends and looks once more.
pub(super) fn examine(disk: &SimDisk, flush: Flush, history: &History, acked: usize, what: &str) {
    let once = disk.fork();
    let log = open(&once, flush).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = content(&log);
    judge(&found, &log, history, acked, what);
    log.close().unwrap();
    let image = once.image();

    let again = open(&once, flush).unwrap();
    assert!(content(&again) == found, "{what}: the second recovery differs");
    drop(again);
    assert!(once.image() == image, "{what}: the second recovery changed something");

    // The power goes off during recovery. If the disk came out of a power cut, all that is on it is durable, and
    // nothing may change any more.
    let settled = disk.is_settled();
    let start = disk.operations();
    for cut in 1..=(once.operations() - start).min(6) {
        let broken = disk.fork();
        broken.set_faults(Faults { power_off_at: Some(start + cut), ..Faults::default() });
        drop(open(&broken, flush));
        let after = broken.crash(cut * 31);
        let log = open(&after, flush).unwrap_or_else(|error| panic!("{what}, crash in recovery at {cut}: {error}"));
        let then = content(&log);
        judge(&then, &log, history, acked, &format!("{what}, crash in recovery at {cut}"));
        assert!(!settled || then == found, "{what}, crash in recovery at {cut}: another log");
    }

    // No record that was cut comes back after new records.
    let log = open(&once, flush).unwrap();
    let next = log.last().map_or(1, |last| last.index.next().0);
    let records: Vec<_> = (0..3).map(|nth| record(1000, next + nth, payload(nth, 700))).collect();
    let (done, synced) = outcome();
    log.append(records, |_| ()).unwrap();
    log.sync(done);
    synced.wait().unwrap();
    let log = open(&once.crash(0), flush).unwrap_or_else(|error| panic!("{what}, after appending: {error}"));
    let longer = content(&log);
    assert_eq!(longer.entries.len(), found.entries.len() + 3, "{what}");
    assert!(longer.entries[..found.entries.len()] == found.entries, "{what}: records changed");
}

/// How many workloads to try; more with `ESCROWMQ_CRASH_WORKLOADS`.
fn workloads() -> u64 {
    std::env::var("ESCROWMQ_CRASH_WORKLOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

fn cut_everywhere(flush: Flush, seeds: std::ops::Range<u64>, step: usize) {
    for seed in seeds {
        let whole = SimDisk::new();
        let (history, acked) = run(&whole, flush, seed);
        assert!(history.events.len() > 20, "the workload is too small to prove anything");
        examine(&whole.crash(1), flush, &history, acked, &format!("workload {seed}, no cut"));
        let mut fired = 0;
        // Threads make the number of operations vary a little.
        for cut in (1..whole.operations() + 10).step_by(step) {
            let disk = SimDisk::new();
            disk.set_faults(Faults { power_off_at: Some(cut), ..Faults::default() });
            let (history, acked) = run(&disk, flush, seed);
            fired += usize::from(disk.is_off());
            for crash in [0, 1, 2 + cut, 1000 + cut] {
                let what = format!("workload {seed}, cut {cut}, crash {crash}");
                examine(&disk.crash(crash), flush, &history, acked, &what);
            }
        }
        assert!(fired > 20, "the power cuts must happen");
    }
}

#[test]
fn acknowledged_records_survive_a_power_cut_at_any_operation() {
    cut_everywhere(Flush::Sync, 0..workloads(), 1);
}

#[test]
fn asynchronous_appends_leave_a_prefix_after_a_power_cut() {
    cut_everywhere(ASYNC, 100..100 + workloads(), 1);
}

#[test]
fn an_asynchronous_append_survives_the_death_of_the_process() {
    let disk = SimDisk::new();
    let log = open(&disk, ASYNC).unwrap();
    let (done, written) = outcome();
    log.append((1..=10).map(|index| record(1, index, payload(index, 3000))).collect(), done).unwrap();
    written.wait().unwrap();
    // All that was written is seen by the next process, though nothing was flushed.
    let next = open(&disk.fork(), ASYNC).unwrap();
    assert_eq!(content(&next).entries.len(), 10);
}

#[test]
fn what_a_process_found_in_the_cache_after_a_failed_flush_is_made_durable() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    let (done, written) = outcome();
    log.append(vec![record(1, 1, payload(1, 3000))], done).unwrap();
    written.wait().unwrap();
    disk.set_faults(Faults { fail_sync_at: Some(disk.syncs() + 1), ..Faults::default() });
    let (done, failed) = outcome();
    log.append(vec![record(1, 2, payload(2, 3000))], done).unwrap();
    failed.wait().unwrap_err();
    drop(log);
    disk.set_faults(Faults::default());
    let log = open(&disk, Flush::Sync).unwrap();
    // Either answer is right for a record that was never acknowledged, but it must not change any more.
    let found = content(&log);
    let log = open(&disk.crash(0), Flush::Sync).unwrap();
    assert_eq!(content(&log), found);
}

#[test]
fn a_missing_folder_is_a_new_log() {
    let disk = SimDisk::new();
    let log = Log::open(Arc::new(disk), Path::new("/elsewhere"), LogSettings::default()).unwrap();
    assert_eq!((log.last(), log.vote()), (None, None));
}

#[test]
fn a_purge_leaves_no_hole_wherever_the_power_goes_off() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    let (done, written) = outcome();
    log.append((1..=20).map(|index| record(1, index, payload(index, 5000))).collect(), done).unwrap();
    written.wait().unwrap();
    log.close().unwrap();
    for cut in 1..14 {
        let disk = disk.fork();
        let log = open(&disk, Flush::Sync).unwrap();
        disk.set_faults(Faults { power_off_at: Some(disk.operations() + cut), ..Faults::default() });
        let purged = log.purge_upto(LogIndex(15));
        for seed in 0..12 {
            let log =
                open(&disk.crash(seed), Flush::Sync).unwrap_or_else(|error| panic!("cut {cut}, crash {seed}: {error}"));
            assert_eq!(content(&log).entries.len() as u64, 21 - log.first_index().0);
            assert!(purged.is_err() || log.first_index() > LogIndex(10));
        }
    }
}

#[test]
fn a_purge_does_not_overtake_a_truncation() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    let (done, written) = outcome();
    log.append((1..=9).map(|index| record(1, index, payload(index, 4000))).collect(), done).unwrap();
    written.wait().unwrap();
    // The writer thread is kept busy, so that what follows is decided before any of it happens.
    let (go, gate) = mpsc::channel::<()>();
    log.append(vec![record(1, 10, payload(10, 10))], move |_| gate.recv().unwrap()).unwrap();
    log.truncate_after(Some(LogIndex(4)), |_| ()).unwrap();
    let (done, written) = outcome();
    log.append(vec![record(2, 5, payload(50, 5000))], done).unwrap();
    log.set_committed(LogIndex(5));
    log.purge_upto(LogIndex(5)).unwrap();
    go.send(()).unwrap();
    written.wait().unwrap();
    assert!(log.failure().is_none());
    drop(log);
    let log = open(&disk.crash(0), Flush::Sync).unwrap();
    assert_eq!(content(&log).entries.last().unwrap().payload, payload(50, 5000));
}
