//! The log on a real file system: what goes in comes out, also after it has been opened again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::{outcome, payload, record, small};
use crate::log::{AppendError, Flush, Log, LogSettings, OpenError, RealDisk, RecordId, TruncateError};
use crate::terms::{LogIndex, Position};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn open(dir: &Path, settings: LogSettings) -> Log {
    Log::open(Arc::new(RealDisk), dir, settings).unwrap()
}

fn append(log: &Log, term: u64, index: u64, len: usize) -> Position {
    let (done, outcome) = outcome();
    let position = log.append(vec![record(term, index, payload(index, len))], done).unwrap();
    outcome.wait().unwrap();
    position
}

fn check(log: &Log, from: u64, to: u64, len: usize) {
    let mut next = from;
    while next < to {
        let records = log.read_entries(LogIndex(next), LogIndex(to), 3000).unwrap();
        assert!(!records.is_empty(), "record {next} is missing");
        for record in records {
            assert_eq!((record.index, &record.payload), (LogIndex(next), &payload(next, len)));
            assert_eq!(log.read(record.payload_position(), len).unwrap(), payload(next, len));
            assert_eq!(log.read(record.payload_position().advance(3), 4).unwrap(), payload(next, len)[3..7]);
            assert_eq!(log.term_of(LogIndex(next)).unwrap(), Some(record.term));
            next += 1;
        }
    }
}

#[test]
fn records_survive_a_clean_restart() {
    for flush in [Flush::Sync, Flush::Async { interval: HOUR }] {
        let dir = TempDir::new().unwrap();
        let log = open(dir.path(), small(flush));
        assert_eq!((log.last(), log.end(), log.first_index()), (None, Position::ZERO, LogIndex::ZERO));
        let mut position = Position::ZERO;
        for index in 1..=200 {
            assert_eq!(append(&log, 1 + index / 50, index, 500), position);
            position = position.advance(560);
            log.release_upto(LogIndex(index));
        }
        log.set_committed(LogIndex(150));
        check(&log, 1, 201, 500);
        append(&log, 9, 201, 500);
        log.close().unwrap();
        assert!(matches!(log.append(Vec::new(), |_| ()), Err(AppendError::Closed)));
        check(&log, 1, 202, 500);

        let log = open(dir.path(), small(flush));
        assert_eq!(log.last(), Some(RecordId { term: 9, index: LogIndex(201) }));
        assert_eq!((log.end(), log.durable_end()), (Position(201 * 560), Position(201 * 560)));
        assert_eq!((log.first_index(), log.committed()), (LogIndex(1), Some(LogIndex(150))));
        check(&log, 1, 202, 500);
        assert_eq!(append(&log, 9, 202, 500), Position(201 * 560));
        check(&log, 1, 203, 500);
        drop(log);
        check(&open(dir.path(), LogSettings { verify_all: true, ..small(flush) }), 1, 203, 500);
    }
}

#[test]
fn one_append_may_span_segments_and_hold_records_larger_than_one() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), small(Flush::Sync));
    let sizes = [100, 9000, 50_000, 0, 9000, 9000, 200_000, 1, 0];
    let records = sizes.iter().enumerate().map(|(i, len)| record(1, i as u64, payload(i as u64, *len))).collect();
    let (done, outcome) = outcome();
    log.append(records, done).unwrap();
    outcome.wait().unwrap();
    log.release_upto(LogIndex(100));
    let check = |log: &Log| {
        for (i, len) in sizes.iter().enumerate() {
            let records = log.read_entries(LogIndex(i as u64), LogIndex(u64::MAX), 1).unwrap();
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].payload, payload(i as u64, *len));
        }
    };
    check(&log);
    drop(log);
    check(&open(dir.path(), small(Flush::Sync)));
}

#[test]
fn reads_stop_at_both_ends() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), small(Flush::Sync));
    for index in 1..=100 {
        append(&log, 1, index, 1000);
        log.release_upto(LogIndex(index));
    }
    assert_eq!(log.read(log.end(), 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(log.read(Position(40), usize::MAX).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(log.read_entries(LogIndex(101), LogIndex(200), 1 << 20).unwrap().is_empty());
    assert_eq!(log.term_of(LogIndex(101)).unwrap(), None);
    let purged = log.purge_upto(LogIndex(60)).unwrap().unwrap();
    assert!(purged.index <= LogIndex(60) && purged.index > LogIndex(40), "{purged:?}");
    assert_eq!(log.first_index(), purged.index.next());
    assert_eq!(log.read(Position(40), 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.read_entries(LogIndex(1), LogIndex(5), 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.term_of(purged.index).unwrap(), Some(1));
    assert_eq!(log.term_of(LogIndex(purged.index.0 - 1)).unwrap(), None);
    check(&log, purged.index.next().0, 101, 1000);
    // Everything may be purged but the newest segment.
    let purged = log.purge_upto(LogIndex(100)).unwrap().unwrap();
    drop(log);
    let log = open(dir.path(), small(Flush::Sync));
    assert_eq!(log.purged(), Some(purged));
    assert_eq!(log.segments().len(), 1);
    check(&log, purged.index.next().0, 101, 1000);
}

#[test]
fn the_begins_of_terms_are_found_in_memory_in_files_and_after_a_purge() {
    let dir = TempDir::new().unwrap();
    let mut log = open(dir.path(), small(Flush::Sync));
    assert_eq!(log.term_starts(10).unwrap(), []);
    // Term 3 has one record, 4 has none, and 7 goes over several segments.
    let term_of = |index: u64| match index {
        1..=9 => 1,
        10..=59 => 2,
        60 => 3,
        61..=150 => 5,
        _ => 7,
    };
    let mut positions = vec![Position::ZERO];
    for index in 1..=260 {
        positions.push(append(&log, term_of(index), index, 300));
        log.release_upto(LogIndex(index));
    }
    let starts = |log: &Log, max| {
        let starts = log.term_starts(max).unwrap();
        assert!(starts.iter().all(|start| start.position == positions[start.index.0 as usize]), "{starts:?}");
        starts.iter().map(|start| (start.term, start.index.0)).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(starts(&log, 10), [(1, 1), (2, 10), (3, 60), (5, 61), (7, 151)]);
        assert_eq!(starts(&log, 2), [(5, 61), (7, 151)]);
        assert_eq!(log.end_of(LogIndex(60)).unwrap(), Some(positions[61]));
        assert_eq!(log.end_of(LogIndex(260)).unwrap(), Some(log.end()));
        drop(log);
        log = open(dir.path(), small(Flush::Sync));
    }
    let first = log.purge_upto(LogIndex(120)).unwrap().unwrap().index.next();
    assert!(first > LogIndex(61) && first < LogIndex(121), "{first}");
    assert_eq!(starts(&log, 10), [(5, first.0), (7, 151)], "a term begins with what is left of it");
    assert_eq!((log.end_of(LogIndex(5)).unwrap(), log.end_of(LogIndex(261)).unwrap()), (None, None));
}

#[test]
fn a_truncated_suffix_is_gone_and_can_be_written_anew() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), small(Flush::Sync));
    for index in 1..=60 {
        append(&log, 1, index, 1000);
    }
    log.set_committed(LogIndex(20));
    assert!(matches!(
        log.truncate_after(Some(LogIndex(19)), |_| ()),
        Err(TruncateError::Committed { committed: LogIndex(20), .. })
    ));
    assert!(matches!(log.truncate_after(Some(LogIndex(61)), |_| ()), Err(TruncateError::OutOfRange { .. })));
    let (done, outcome) = outcome();
    log.truncate_after(Some(LogIndex(30)), done).unwrap();
    assert_eq!(log.last(), Some(RecordId { term: 1, index: LogIndex(30) }));
    assert!(log.read_entries(LogIndex(31), LogIndex(60), 1).unwrap().is_empty());
    for index in 31..=40 {
        append(&log, 2, index, 1000);
    }
    outcome.wait().unwrap();
    check(&log, 1, 41, 1000);
    drop(log);
    let log = open(dir.path(), small(Flush::Sync));
    assert_eq!(log.last(), Some(RecordId { term: 2, index: LogIndex(40) }));
    check(&log, 1, 41, 1000);
}

#[test]
fn a_log_can_be_truncated_to_nothing() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), small(Flush::Sync));
    for index in 1..=60 {
        append(&log, 1, index, 1000);
    }
    log.truncate_after(None, |result| result.unwrap()).unwrap();
    assert_eq!((log.last(), log.end()), (None, Position::ZERO));
    drop(log);
    let log = open(dir.path(), small(Flush::Sync));
    assert_eq!((log.last(), log.end()), (None, Position::ZERO));
    assert_eq!(append(&log, 2, 7, 1000), Position::ZERO);
    drop(log);
    check(&open(dir.path(), small(Flush::Sync)), 7, 8, 1000);
}

#[test]
fn records_must_continue_the_log() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), small(Flush::Sync));
    append(&log, 2, 5, 10);
    for bad in [record(2, 5, ""), record(2, 7, ""), record(1, 6, "")] {
        let error = log.append(vec![bad], |_| ()).unwrap_err();
        assert!(matches!(error, AppendError::OutOfOrder { last_term: 2, last_index: LogIndex(5), .. }), "{error}");
        assert!(!error.is_retryable());
    }
    let error = log.append_at(Position(71), vec![record(2, 6, "")], |_| ()).unwrap_err();
    assert!(matches!(error, AppendError::WrongPosition { end: Position(70), .. }), "{error}");
    let (done, outcome) = outcome();
    assert_eq!(log.append_at(Position(70), vec![record(2, 6, "")], done).unwrap(), Position(70));
    outcome.wait().unwrap();
}

#[test]
fn the_vote_survives() {
    let dir = TempDir::new().unwrap();
    assert_eq!(open(dir.path(), small(Flush::Sync)).vote(), None);
    for vote in [b"first".to_vec(), Vec::new(), vec![7; 4060]] {
        let log = open(dir.path(), small(Flush::Sync));
        let (done, saved) = outcome();
        log.save_vote(vote.clone(), done);
        assert_eq!(log.vote().as_ref(), Some(&vote));
        saved.wait().unwrap();
        let (done, too_large) = outcome();
        log.save_vote(vec![0; 4061], done);
        assert_eq!(too_large.wait().unwrap_err().kind(), ErrorKind::InvalidInput);
        log.close().unwrap();
        let (done, closed) = outcome();
        log.save_vote(Vec::new(), done);
        closed.wait().unwrap_err();
        assert_eq!(open(dir.path(), small(Flush::Sync)).vote(), Some(vote));
    }
}

#[test]
fn a_folder_has_one_user_and_foreign_files_are_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("notes.txt"), "keep me").unwrap();
    fs::write(dir.path().join("123.log"), "keep me too").unwrap();
    let log = open(dir.path(), small(Flush::Sync));
    let error = Log::open(Arc::new(RealDisk), dir.path(), small(Flush::Sync)).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    append(&log, 1, 1, 10);
    drop(log);
    let log = open(dir.path(), small(Flush::Sync));
    check(&log, 1, 2, 10);
    assert_eq!(fs::read(dir.path().join("123.log")).unwrap(), b"keep me too");
    assert!(dir.path().join("notes.txt").exists());
}

#[test]
fn what_is_async_becomes_durable_by_sync_by_time_and_on_demand() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), small(Flush::Async { interval: HOUR }));
    let end = append(&log, 1, 1, 10).advance(70);
    assert_eq!(log.durable_end(), Position::ZERO);
    let (done, durable) = outcome();
    log.when_durable(end, done);
    let (done, synced) = outcome();
    log.sync(done);
    synced.wait().unwrap();
    durable.wait().unwrap();
    assert_eq!(log.durable_end(), end);
    log.ack_after_sync(true);
    append(&log, 1, 2, 10);
    assert_eq!(log.durable_end(), log.end());
    drop(log);

    let log = open(dir.path(), small(Flush::Async { interval: Duration::from_millis(5) }));
    append(&log, 1, 3, 10);
    let (done, durable) = outcome();
    log.when_durable(log.end(), done);
    durable.wait().unwrap();
}

#[test]
fn many_threads_append_and_read_at_once() {
    for flush in [Flush::Sync, Flush::Async { interval: Duration::from_millis(3) }] {
        let dir = TempDir::new().unwrap();
        let log = open(dir.path(), LogSettings { tail_cache_bytes: 8 << 10, segment_bytes: 64 << 10, ..small(flush) });
        let (appended, answered) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let next = parking_lot::Mutex::new(1_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let answered = Arc::clone(&answered);
                        let mut next = next.lock();
                        let done = move |result: std::io::Result<()>| {
                            result.unwrap();
                            answered.fetch_add(1, Ordering::SeqCst);
                        };
                        log.append(vec![record(1, *next, payload(*next, 300))], done).unwrap();
                        log.release_upto(LogIndex(*next));
                        *next += 1;
                        appended.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while appended.load(Ordering::SeqCst) < 1200 {
                        if let Some(last) = log.last() {
                            check(&log, last.index.0.saturating_sub(40).max(1), last.index.next().0, 300);
                        }
                    }
                });
            }
        });
        let (done, synced) = outcome();
        log.sync(done);
        synced.wait().unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), 1200);
        assert!(log.tail_bytes() <= 8 << 10, "the tail cache is bounded");
        check(&log, 1, 1201, 300);
        drop(log);
        check(&open(dir.path(), small(flush)), 1, 1201, 300);
    }
}
