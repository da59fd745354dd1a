//! Writes and flushes that fail, and disks that are full.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::crash::{ASYNC, dir, examine, open, run};
use super::{outcome, payload, record};
use crate::log::sim_disk::{Faults, SimDisk};
use crate::log::{AppendError, Flush, Log, LogSettings, Room};
use crate::terms::LogIndex;

fn append(log: &Log, index: u64, len: usize) -> Result<std::io::Result<()>, AppendError> {
    let (done, written) = outcome();
    log.append(vec![record(1, index, payload(index, len))], done)?;
    Ok(written.wait())
}

/// Waits until the writer thread has nothing left to do: it zero-fills and marks after it has answered.
fn settle(log: &Log) {
    let (done, idle) = outcome();
    log.sync(done);
    idle.wait().unwrap();
}

/// After a failure nothing works but reading, until the log is opened again.
fn assert_stopped(disk: &SimDisk, log: &Log) {
    assert!(log.failure().is_some());
    let (writes, syncs) = (disk.writes(), disk.syncs());
    let error = append(log, 1000, 1).unwrap_err();
    assert!(matches!(error, AppendError::Failed(_)) && !error.is_retryable(), "{error}");
    let (done, refused) = outcome();
    log.sync(done);
    refused.wait().unwrap_err();
    let (done, refused) = outcome();
    log.save_vote(vec![1], done);
    refused.wait().unwrap_err();
    assert!(log.truncate_after(Some(LogIndex(1)), |_| ()).is_err());
    log.close().unwrap_err();
    assert_eq!((disk.writes(), disk.syncs()), (writes, syncs), "a failed log leaves the disk alone");
}

#[test]
fn a_failed_write_stops_the_log() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    append(&log, 1, 100).unwrap().unwrap();
    settle(&log);
    let (done, never) = outcome();
    log.when_durable(crate::terms::Position(1 << 40), done);
    disk.set_faults(Faults { fail_write_at: Some(disk.writes() + 1), ..Faults::default() });
    append(&log, 2, 5000).unwrap().unwrap_err();
    never.wait().unwrap_err();
    assert_eq!(log.read_entries(LogIndex(1), LogIndex(2), 1).unwrap()[0].payload, payload(1, 100));
    assert_stopped(&disk, &log);
    drop(log);
    let log = open(&disk, Flush::Sync).unwrap();
    assert!(log.failure().is_none());
    let next = log.last().unwrap().index + 1;
    append(&log, next.0, 10).unwrap().unwrap();
}

#[test]
fn a_failed_flush_stops_the_log_and_is_not_repeated() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    append(&log, 1, 100).unwrap().unwrap();
    settle(&log);
    disk.set_faults(Faults { fail_sync_at: Some(disk.syncs() + 1), ..Faults::default() });
    append(&log, 2, 100).unwrap().unwrap_err();
    assert_eq!(log.durable_end(), crate::terms::Position(160));
    assert_stopped(&disk, &log);
}

#[test]
fn a_failed_periodic_flush_stops_the_log() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Async { interval: Duration::from_millis(2) }).unwrap();
    append(&log, 1, 100).unwrap().unwrap();
    let (done, durable) = outcome();
    log.when_durable(log.end(), done);
    durable.wait().unwrap();
    disk.set_faults(Faults { fail_sync_at: Some(disk.syncs() + 1), ..Faults::default() });
    append(&log, 2, 100).unwrap().unwrap();
    let (done, durable) = outcome();
    log.when_durable(log.end(), done);
    durable.wait().unwrap_err();
    assert_stopped(&disk, &log);
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_room() {
    for flush in [Flush::Sync, ASYNC] {
        let disk = SimDisk::new();
        let log = open(&disk, flush).unwrap();
        disk.set_faults(Faults { capacity: Some(60 << 10), ..Faults::default() });
        let mut index = 1;
        let error = loop {
            match append(&log, index, 3000) {
                Ok(result) => result.expect("what was accepted is written"),
                Err(error) => break error,
            }
            index += 1;
        };
        assert!(matches!(error, AppendError::NoSpace { bytes: 16384 }) && error.is_retryable(), "{error}");
        assert!(index > 9, "three segments fit");
        assert_eq!(log.last().unwrap().index, LogIndex(index - 1));
        assert!(log.failure().is_none());
        // Small records still fit into the last segment, votes are saved, everything is readable.
        append(&log, index, 0).unwrap().unwrap();
        let (done, saved) = outcome();
        log.save_vote(vec![1], done);
        saved.wait().unwrap();
        assert!(log.reserve(&[3060], Room::Common).is_err());
        log.set_committed(LogIndex(index));
        log.release_upto(LogIndex(index));
        assert_eq!(log.read_entries(LogIndex(1), LogIndex(2), 1).unwrap()[0].payload, payload(1, 3000));
        // Deleting old segments makes room.
        log.purge_upto(LogIndex(index)).unwrap();
        log.reserve(&[3060], Room::Common).unwrap();
        append(&log, index + 1, 3000).unwrap().unwrap();
        let (done, synced) = outcome();
        log.sync(done);
        synced.wait().unwrap();
        let after = open(&disk.crash(0), flush).unwrap();
        assert_eq!(after.last().unwrap().index, LogIndex(index + 1));
        assert_eq!(
            after.read_entries(LogIndex(index + 1), LogIndex(index + 2), 1).unwrap()[0].payload,
            payload(index + 1, 3000)
        );
    }
}

#[test]
fn opening_on_a_full_disk_fails_or_works_but_breaks_nothing() {
    let disk = SimDisk::new();
    disk.set_faults(Faults { capacity: Some(100), ..Faults::default() });
    open(&disk, Flush::Sync).map(|_| ()).unwrap_err();
    disk.set_faults(Faults::default());
    let log = open(&disk, Flush::Sync).unwrap();
    append(&log, 1, 3000).unwrap().unwrap();
    drop(log);
    disk.set_faults(Faults { capacity: Some(100), ..Faults::default() });
    let log = open(&disk, Flush::Sync).unwrap();
    assert_eq!(log.read_entries(LogIndex(1), LogIndex(2), 1).unwrap()[0].payload, payload(1, 3000));
    append(&log, 2, 3000).unwrap().unwrap();
}

#[test]
fn any_write_or_flush_may_fail_and_what_was_acknowledged_survives() {
    for (seed, flush) in [(7, Flush::Sync), (8, ASYNC)] {
        let whole = SimDisk::new();
        run(&whole, flush, seed);
        let writes = (1..whole.writes()).step_by(9).map(|nth| Faults { fail_write_at: Some(nth), ..Faults::default() });
        let syncs = (1..whole.syncs()).step_by(5).map(|nth| Faults { fail_sync_at: Some(nth), ..Faults::default() });
        for (nth, faults) in writes.chain(syncs).enumerate() {
            let disk = SimDisk::new();
            disk.set_faults(faults);
            let (history, acked) = run(&disk, flush, seed);
            disk.set_faults(Faults::default());
            // The process is started again, or the power goes off.
            for after in [disk.fork(), disk.crash(0), disk.crash(2 + nth as u64)] {
                examine(&after, flush, &history, acked, &format!("workload {seed}, {faults:?}"));
            }
        }
    }
}

#[test]
fn a_callback_that_panics_stops_the_log_instead_of_hanging_it() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    log.append(vec![record(1, 1, payload(1, 10))], |_| panic!("on purpose")).unwrap();
    let (done, refused) = outcome();
    log.when_durable(crate::terms::Position(1 << 40), done);
    refused.wait().unwrap_err();
    assert!(log.failure().is_some());
    log.close().unwrap_err();
    assert!(Log::open(Arc::new(disk), &dir(), super::small(Flush::Sync)).is_ok());
    assert_eq!(ErrorKind::Other, log.failure().unwrap().kind());
}

#[test]
fn what_was_reserved_can_be_appended_on_a_full_disk() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    append(&log, 1, 9000).unwrap().unwrap();
    for (index, len) in [(2, 9000), (3, 40_000)] {
        log.reserve(&[record(1, index, payload(index, len)).bytes()], Room::Common).unwrap();
        let full: u64 = disk.image().values().map(|content| content.len() as u64).sum();
        disk.set_faults(Faults { capacity: Some(full), ..Faults::default() });
        append(&log, index, len).unwrap().unwrap();
        disk.set_faults(Faults::default());
    }
    drop(log);
    assert_eq!(open(&disk, Flush::Sync).unwrap().last().unwrap().index, LogIndex(3));
}

#[test]
fn what_was_reserved_can_be_appended_after_a_cut_too() {
    let disk = SimDisk::new();
    let log = open(&disk, Flush::Sync).unwrap();
    append(&log, 1, 3000).unwrap().unwrap();
    append(&log, 2, 3000).unwrap().unwrap();
    // The small one has room here, the large one needs a segment of its own, and what begins after a cut needs another.
    let records = [(2, 3000), (3, 40_000)].map(|(index, len)| record(2, index, payload(index, len)).bytes());
    log.reserve(&[records[0], records[1], log.segment_capacity()], Room::Common).unwrap();
    let full: u64 = disk.image().values().map(|content| content.len() as u64).sum();
    disk.set_faults(Faults { capacity: Some(full), ..Faults::default() });
    let (done, cut) = outcome();
    log.truncate_after(Some(LogIndex(1)), done).unwrap();
    cut.wait().unwrap();
    append(&log, 2, 3000).unwrap().unwrap();
    append(&log, 3, 40_000).unwrap().unwrap();
    drop(log);
    assert_eq!(open(&disk, Flush::Sync).unwrap().last().unwrap().index, LogIndex(3));
}

#[test]
fn the_reserve_is_kept_for_what_must_pass() {
    let disk = SimDisk::new();
    let settings = LogSettings { reserve_bytes: 8 << 10, ..super::small(Flush::Sync) };
    let log = Log::open(Arc::new(disk.clone()), &dir(), settings.clone()).unwrap();
    append(&log, 1, 3000).unwrap().unwrap();
    log.replenish().unwrap();
    let full: u64 = disk.image().values().map(|content| content.len() as u64).sum();
    disk.set_faults(Faults { capacity: Some(full), ..Faults::default() });
    let mut index = 2;
    while log.reserve(&[3060], Room::Common).is_ok() {
        append(&log, index, 3000).unwrap().unwrap();
        index += 1;
    }
    // Records that are reserved together fit together: the reserve takes two of these, not three.
    assert!(log.reserve(&[3060, 3060, 3060], Room::Reserve).is_err());
    for _ in 0..2 {
        log.reserve(&[3060], Room::Reserve).unwrap();
        append(&log, index, 3000).unwrap().unwrap();
        index += 1;
    }
    assert!(log.replenish().is_err(), "still full");
    assert!(log.failure().is_none());
    disk.set_faults(Faults::default());
    log.replenish().unwrap();
    log.reserve(&[3060], Room::Common).unwrap();
    append(&log, index, 3000).unwrap().unwrap();
    drop(log);
    assert_eq!(Log::open(Arc::new(disk), &dir(), settings).unwrap().last().unwrap().index, LogIndex(index));
}
