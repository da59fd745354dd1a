//! Random operations against a plain vector.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::crash::{ASYNC, dir};
use super::{Outcome, outcome, payload, record, small};
use crate::log::sim_disk::SimDisk;
use crate::log::{Flush, Log, LogSettings};
use crate::terms::{LogIndex, Position};

#[derive(Clone, Debug)]
enum Act {
    /// Appends records of these sizes; the flag says whether to wait for the answer.
    Append(Vec<usize>, bool),
    /// Cuts off this share of what is not committed.
    Truncate(f64),
    /// Commits this share of what is not committed.
    Commit(f64),
    /// Lets the tail cache drop what is committed.
    Release,
    /// Purges up to this share of what is committed.
    Purge(f64),
    /// Reads a range, given as two shares and a bound in bytes.
    Read(f64, f64, u64),
    /// Closes and opens, with a segment size.
    Reopen(u64),
    /// Flushes, cuts the power, opens.
    Crash(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let size = prop_oneof![6 => 0..1500_usize, 1 => 0..20_000_usize];
    prop_oneof![
        8 => (prop::collection::vec(size, 1..6), any::<bool>()).prop_map(|(sizes, wait)| Act::Append(sizes, wait)),
        2 => (0.0..1.0).prop_map(Act::Truncate),
        2 => (0.0..=1.0).prop_map(Act::Commit),
        2 => Just(Act::Release),
        1 => (0.0..=1.0).prop_map(Act::Purge),
        4 => (0.0..1.0, 0.0..1.1, 0..30_000_u64).prop_map(|(from, to, bytes)| Act::Read(from, to, bytes)),
        1 => (8_u64..40).prop_map(|kib| Act::Reopen(kib << 10)),
        1 => any::<u64>().prop_map(Act::Crash),
    ]
}

/// The expected content of the log.
struct Model {
    /// (term, position, payload) of each record ever appended and not cut; index = place + 1.
    records: Vec<(u64, Position, Bytes)>,
    end: Position,
    term: u64,
    committed: u64,
    seed: u64,
}

impl Model {
    fn share(&self, share: f64) -> u64 {
        let open = self.records.len() as u64 - self.committed;
        self.committed + (open as f64 * share) as u64
    }
}

fn check_record(model: &Model, log: &Log, record: &crate::log::Record) {
    let (term, position, payload) = &model.records[record.index.0 as usize - 1];
    assert_eq!((record.term, record.position, &record.payload), (*term, *position, payload));
    assert_eq!(record.kind, 1);
    let part = payload.len() / 3..payload.len();
    let read = log.read(record.payload_position().advance(part.start as u64), part.len()).unwrap();
    assert_eq!(read, payload[part]);
}

fn check_ends(model: &Model, log: &Log) {
    let last = log.last().map(|last| (last.term, last.index));
    assert_eq!(last, model.records.last().map(|record| (record.0, LogIndex(model.records.len() as u64))));
    assert_eq!(log.end(), model.end);
    if let (Some(purged), false) = (log.purged(), model.records.is_empty()) {
        assert_eq!(purged.term, model.records[purged.index.0 as usize - 1].0);
        assert_eq!(log.first_position(), model.records.get(purged.index.0 as usize).map_or(model.end, |next| next.1));
    }
}

fn play(flush: Flush, acts: Vec<Act>) {
    let mut disk = SimDisk::new();
    let mut settings = small(flush);
    let open =
        |disk: &SimDisk, settings: &LogSettings| Log::open(Arc::new(disk.clone()), &dir(), settings.clone()).unwrap();
    let mut log = open(&disk, &settings);
    let mut model = Model { records: Vec::new(), end: Position::ZERO, term: 1, committed: 0, seed: 0 };
    let mut pending: Vec<Outcome> = Vec::new();
    for act in acts {
        match act {
            Act::Append(sizes, wait) => {
                let mut records = Vec::new();
                let first = model.end;
                for size in sizes {
                    model.seed += 1;
                    let payload = payload(model.seed, size);
                    let record = record(model.term, model.records.len() as u64 + 1, payload.clone());
                    model.records.push((model.term, model.end, payload));
                    model.end = model.end.advance(record.bytes());
                    records.push(record);
                }
                let (done, written) = outcome();
                assert_eq!(log.append_at(first, records, done).unwrap(), first);
                pending.push(written);
                if wait {
                    pending.drain(..).for_each(|outcome| outcome.wait().unwrap());
                }
            }
            Act::Truncate(share) => {
                let keep = model.share(share).max(log.first_index().0.saturating_sub(1));
                model.records.truncate(keep as usize);
                model.end = model
                    .records
                    .last()
                    .map_or(Position::ZERO, |last| last.1.advance(record(1, 1, last.2.clone()).bytes()));
                model.term += 1;
                let (done, cut) = outcome();
                log.truncate_after((keep > 0).then_some(LogIndex(keep)), done).unwrap();
                pending.push(cut);
            }
            Act::Commit(share) => {
                model.committed = model.share(share);
                if model.committed > 0 {
                    log.set_committed(LogIndex(model.committed));
                }
            }
            Act::Release => log.release_upto(LogIndex(model.committed)),
            Act::Purge(share) => {
                let upto = (model.committed as f64 * share) as u64;
                let purged = log.purge_upto(LogIndex(upto)).unwrap();
                assert!(purged.is_none_or(|purged| purged.index <= LogIndex(model.committed)));
            }
            Act::Read(from, to, bytes) => {
                let first = log.first_index().max(LogIndex(1));
                let held = (model.records.len() as u64 + 1).saturating_sub(first.0);
                let (from, to) = (first + (held as f64 * from) as u64, first + (held as f64 * to) as u64);
                let records = log.read_entries(from, to, bytes).unwrap();
                assert_eq!(records.is_empty(), from >= to || from > LogIndex(model.records.len() as u64));
                let total: u64 = records.iter().map(crate::log::Record::bytes).sum();
                assert!(records.len() <= 1 || total <= bytes);
                for (record, index) in records.iter().zip(from.0..to.0) {
                    assert_eq!(record.index, LogIndex(index));
                    check_record(&model, &log, record);
                    assert_eq!(log.term_of(LogIndex(index)).unwrap(), Some(record.term));
                }
            }
            Act::Reopen(segment_bytes) => {
                log.close().unwrap();
                settings.segment_bytes = segment_bytes;
                log = open(&disk, &settings);
            }
            Act::Crash(seed) => {
                let (done, synced) = outcome();
                log.sync(done);
                synced.wait().unwrap();
                disk = disk.crash(seed);
                log = open(&disk, &settings);
            }
        }
        check_ends(&model, &log);
    }
    drop(log);
    pending.drain(..).for_each(|outcome| outcome.wait().unwrap());
    let log = open(&disk, &LogSettings { verify_all: true, ..settings });
    check_ends(&model, &log);
    let mut next = log.first_index().max(LogIndex(1));
    while next <= LogIndex(model.records.len() as u64) {
        let records = log.read_entries(next, LogIndex(u64::MAX), 7000).unwrap();
        for record in &records {
            check_record(&model, &log, record);
        }
        next += records.len() as u64;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flushed_log_is_a_vector(acts in prop::collection::vec(act(), 1..60)) {
        play(Flush::Sync, acts);
    }

    #[test]
    fn an_unflushed_log_is_a_vector(acts in prop::collection::vec(act(), 1..60)) {
        play(ASYNC, acts);
    }
}

#[test]
fn the_tail_cache_holds_what_is_not_released_and_little_else() {
    let log = Log::open(Arc::new(SimDisk::new()), &dir(), small(Flush::Sync)).unwrap();
    let mut positions = Vec::new();
    for index in 1..=50 {
        let (done, written) = outcome();
        positions.push(log.append(vec![record(1, index, payload(index, 500))], done).unwrap().advance(40));
        written.wait().unwrap();
    }
    assert!(positions.iter().all(|position| log.read_hot(*position, 500).is_some()), "nothing is released yet");
    log.release_upto(LogIndex(30));
    assert!(log.read_hot(positions[29], 500).is_none() && log.read_hot(positions[30], 500).is_some());
    log.release_upto(LogIndex(50));
    assert!(log.tail_bytes() <= 2 << 10, "bounded by the setting");
    assert!(log.read_hot(positions[49], 500).is_some());
    assert_eq!(log.read(positions[0], 500).unwrap(), payload(1, 500));
    // A record from the cache shares the appended bytes.
    let bytes = payload(51, 1000);
    let position = log.append(vec![record(1, 51, bytes.clone())], |_| ()).unwrap();
    assert_eq!(log.read_hot(position.advance(40), 1000).unwrap().as_ptr(), bytes.as_ptr());
}
