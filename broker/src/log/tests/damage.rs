//! Damage to what had been flushed is found, and a torn tail is not taken for damage.

use std::path::PathBuf;
use std::sync::Arc;

use super::crash::{ASYNC, dir};
use super::{outcome, payload, record, small};
use crate::log::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, put_u32, put_u64, segment_path};
use crate::log::sim_disk::{Faults, Random, SimDisk};
use crate::log::{Disk, Flush, Log, LogSettings, OpenError, Record, check, salvage};
use crate::terms::{LogIndex, Position};

fn open_with(disk: &SimDisk, settings: LogSettings) -> Result<Log, OpenError> {
    Log::open(Arc::new(disk.clone()), &dir(), settings)
}

fn open(disk: &SimDisk) -> Result<Log, OpenError> {
    open_with(disk, small(Flush::Sync))
}

fn append(log: &Log, index: u64, len: usize) -> Position {
    let (done, written) = outcome();
    let position = log.append(vec![record(1, index, payload(index, len))], done).unwrap();
    written.wait().unwrap();
    position
}

fn read_all(log: &Log) -> std::io::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut next = log.first_index();
    while log.last().is_some_and(|last| next <= last.index) {
        records.extend(log.read_entries(next, LogIndex(u64::MAX), 4000)?);
        next = records.last().expect("at least one record").index + 1;
    }
    Ok(records)
}

/// A log of three segments that has been closed in order, and its records.
fn closed_log() -> (SimDisk, Vec<Record>) {
    let disk = SimDisk::new();
    let log = open(&disk).unwrap();
    for index in 1..=14 {
        append(&log, index, 2300);
    }
    let (done, saved) = outcome();
    log.save_vote(b"vote".to_vec(), done);
    saved.wait().unwrap();
    append(&log, 15, 100);
    let records = read_all(&log).unwrap();
    assert_eq!(log.segments().len(), 3);
    log.close().unwrap();
    (disk, records)
}

fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.image().into_keys().filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect()
}

#[track_caller]
fn assert_corrupt(result: Result<Log, OpenError>, says: &str) {
    match result {
        Err(error @ OpenError::Corrupt { .. }) => {
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("escrowmq fsck"), "{text}");
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("the damage went unseen"),
    }
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let (disk, records) = closed_log();
    let mut random = Random::new(1);
    let (mut refused, mut unreadable, mut harmless) = (0, 0, 0);
    for path in disk.image().into_keys() {
        let len = disk.image()[&path].len();
        // One bit of each third byte: headers, checksums, payloads, local parts, marks, votes, empty space.
        for byte in (0..len).filter(|byte| byte % 3 == 0 || *byte < 80) {
            let bad = disk.fork();
            bad.flip(&path, byte * 8 + random.below(8) as usize);
            match open(&bad) {
                Err(OpenError::Corrupt { file, .. }) => {
                    assert_eq!(file, path, "the damaged file is named");
                    refused += 1;
                }
                Err(OpenError::NewerFormat { .. }) => refused += 1,
                Err(error) => panic!("{} byte {byte}: {error}", path.display()),
                Ok(log) => {
                    assert_eq!(log.vote().as_deref(), Some(&b"vote"[..]), "{} byte {byte}", path.display());
                    match read_all(&log) {
                        Ok(found) if found == records => harmless += 1,
                        Ok(_) => panic!("{} byte {byte} altered the log unseen", path.display()),
                        Err(error) => {
                            assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                            let whole = LogSettings { verify_all: true, ..small(Flush::Sync) };
                            drop(log);
                            assert_corrupt(open_with(&bad, whole), "");
                            unreadable += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 1000 && unreadable > 1000 && harmless > 1000, "{refused} {unreadable} {harmless}");
}

#[test]
fn refusing_a_damaged_log_changes_nothing() {
    let (disk, _) = closed_log();
    let files = segment_files(&disk);
    disk.flip(&files[2], 8 * (SEGMENT_HEADER_BYTES as usize + 50));
    let before = disk.image();
    assert_corrupt(open(&disk), "had been flushed");
    assert!(disk.image() == before);
}

#[test]
fn a_torn_tail_is_cut() {
    for garbage in [vec![1; 30], vec![0xFF; 3000], [vec![0; 700], vec![5; 9]].concat()] {
        let (disk, records) = closed_log();
        let path = segment_files(&disk).pop().unwrap();
        let end = records.last().unwrap().end();
        let mut content = disk.image()[&path].clone();
        let start = files_start(&path);
        let at = (SEGMENT_HEADER_BYTES + end.since(start)) as usize;
        content.resize(at + 4000, 0);
        content[at..].fill(0);
        content[at..at + garbage.len()].copy_from_slice(&garbage);
        disk.replace(&path, &content);
        let log = open(&disk).unwrap();
        assert!(disk.image()[&path][at..].iter().all(|byte| *byte == 0), "nothing of it is left");
        assert_eq!(read_all(&log).unwrap(), records);
        assert_eq!(append(&log, 16, 10), end);
        drop(log);
        assert_eq!(read_all(&open(&disk).unwrap()).unwrap().len(), 16);
    }
}

/// A log whose record 3 was written but not flushed, as the next process sees it; and where record 2 begins.
fn unflushed_third(third: Vec<u8>) -> (SimDisk, Position, Position) {
    let disk = SimDisk::new();
    let log = open_with(&disk, small(ASYNC)).unwrap();
    append(&log, 1, 100);
    let second = append(&log, 2, 100);
    let (done, synced) = outcome();
    log.sync(done);
    synced.wait().unwrap();
    let (done, written) = outcome();
    let third = log.append(vec![record(1, 3, third)], done).unwrap();
    written.wait().unwrap();
    (disk.fork(), second, third)
}

fn wipe(disk: &SimDisk, position: Position, len: usize) {
    let path = segment_path(&dir(), Position::ZERO);
    let mut content = disk.image()[&path].clone();
    let at = (SEGMENT_HEADER_BYTES + position.get()) as usize;
    content[at..at + len].fill(0);
    disk.replace(&path, &content);
}

#[test]
fn a_later_record_tells_that_an_earlier_one_had_been_flushed() {
    let (disk, second, third) = unflushed_third(vec![7; 500]);
    let torn = disk.fork();
    wipe(&torn, third, 40);
    assert_eq!(read_all(&open(&torn).unwrap()).unwrap().len(), 2, "the third was never flushed");
    wipe(&disk, second, 40);
    assert_corrupt(open(&disk), "had been flushed");
}

#[test]
fn records_of_another_history_do_not_continue_this_one() {
    let log_of = |seed: u64| {
        let disk = SimDisk::new();
        let log = open_with(&disk, small(ASYNC)).unwrap();
        for index in 1..=3 {
            let (done, written) = outcome();
            log.append(vec![record(1, index, payload(seed + index, 400))], done).unwrap();
            written.wait().unwrap();
        }
        // The next process sees the records, none of them flushed.
        disk.fork()
    };
    let (ours, theirs) = (log_of(0), log_of(100));
    let path = segment_path(&dir(), Position::ZERO);
    let mut mixed = ours.image()[&path].clone();
    let second = SEGMENT_HEADER_BYTES as usize + 460;
    mixed[second..].copy_from_slice(&theirs.image()[&path][second..]);
    ours.replace(&path, &mixed);
    let records = read_all(&open(&ours).unwrap()).unwrap();
    assert_eq!(records.len(), 1, "the second record has the right place and checksum, but another predecessor");
    assert_eq!(records[0].payload, payload(1, 400));
}

#[test]
fn message_bytes_cannot_pose_as_a_claim() {
    // The payload holds, at the right place, a record that says that everything had been flushed.
    let third = unflushed_third(Vec::new()).2;
    let fake_at = third.advance(RECORD_HEADER_BYTES + 100);
    let mut forged = vec![0; 400];
    put_u32(&mut forged, 100, 60);
    put_u64(&mut forged, 128, fake_at.get());
    put_u64(&mut forged, 140, u64::MAX);
    // The sender knows the position and the format, so only the salt is missing.
    let crc = crc32fast::hash(&[&fake_at.get().to_be_bytes(), &forged[140..156]].concat());
    put_u32(&mut forged, 156, crc);
    let (disk, _, third) = unflushed_third(forged);
    wipe(&disk, third, 40);
    assert_eq!(read_all(&open(&disk).unwrap()).unwrap().len(), 2);
}

#[test]
fn missing_and_foreign_segments_are_named() {
    let (disk, records) = closed_log();
    let files = segment_files(&disk);

    let middle = disk.fork();
    middle.delete(&files[1]);
    assert_corrupt(open(&middle), "a segment is missing");

    let swapped = disk.fork();
    swapped.replace(&files[1], &disk.image()[&files[2]]);
    assert_corrupt(open(&swapped), "belongs to another segment");

    let short = disk.fork();
    short.replace(&files[0], &disk.image()[&files[0]][..9000]);
    assert_corrupt(open(&short), "a segment is missing or damaged");

    let all = disk.fork();
    for file in &files {
        all.delete(file);
    }
    assert_corrupt(open(&all), "there is no segment");

    let newest = disk.fork();
    newest.delete(&files[2]);
    assert_corrupt(open(&newest), "had been flushed");
    let known = LogSettings { durable_at_least: records[14].end(), ..small(Flush::Sync) };
    let cut = disk.fork();
    cut.replace(&files[2], &disk.image()[&files[2]][..4097]);
    assert_corrupt(open_with(&cut, known.clone()), "had been flushed");
    open_with(&disk.fork(), known).unwrap();

    let voteless = disk.fork();
    voteless.delete(&dir().join("vote"));
    assert_corrupt(open(&voteless), "the vote file is missing");
}

#[test]
fn a_blank_newest_segment_is_no_loss() {
    for len in [0, 100, 4096, 9000] {
        let (disk, records) = closed_log();
        let path = segment_path(&dir(), records.last().unwrap().end());
        disk.create(&path).unwrap();
        disk.replace(&path, &vec![0; len]);
        let log = open(&disk).unwrap();
        assert_eq!(read_all(&log).unwrap(), records);
        // The segment that begins there later replaces it.
        for index in 16..=30 {
            append(&log, index, 2000);
        }
        drop(log);
        assert_eq!(read_all(&open(&disk).unwrap()).unwrap().len(), 30);
    }
}

#[test]
fn a_newer_format_is_not_touched() {
    let (disk, _) = closed_log();
    let path = segment_files(&disk).pop().unwrap();
    let mut content = disk.image()[&path].clone();
    put_u32(&mut content, 8, 9);
    let crc = crc32fast::hash(&content[..4092]);
    put_u32(&mut content, 4092, crc);
    disk.replace(&path, &content);
    let before = disk.image();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, OpenError::NewerFormat { found: 9, known: 1, .. }), "{error}");
    assert!(disk.image() == before);
}

#[test]
fn damage_found_while_reading_is_an_error_with_a_place() {
    let (disk, records) = closed_log();
    let files = segment_files(&disk);
    let log = open(&disk).unwrap();
    disk.flip(&files[0], 8 * (SEGMENT_HEADER_BYTES as usize + 2360 + 100));
    assert_eq!(log.read_entries(LogIndex(1), LogIndex(2), 1).unwrap(), records[..1]);
    let error = log.read_entries(LogIndex(2), LogIndex(3), 1).unwrap_err();
    assert!(error.to_string().contains("(position 2360)"), "{error}");
    assert_eq!(
        log.read_entries(LogIndex(1), LogIndex(3), 1 << 20).unwrap_err().kind(),
        std::io::ErrorKind::InvalidData
    );
    assert_eq!(log.read_entries(LogIndex(3), LogIndex(4), 1).unwrap(), records[2..3]);
    let _ = disk.list(&dir());
}

#[test]
fn a_check_tells_where_the_damage_is_and_salvage_keeps_what_is_in_front_of_it() {
    let (sound, records) = closed_log();
    let files = segment_files(&sound);
    let report = check(&sound, &dir()).unwrap();
    assert!(report.verdict.is_ok());
    assert_eq!(report.segments.iter().map(|segment| segment.records).sum::<u64>(), 15);
    let image = sound.image();
    let kept = salvage(&sound, &dir()).unwrap();
    assert_eq!((kept.end, kept.set_aside.len()), (records[14].end(), 0));
    assert!(sound.image() == image, "nothing to do");

    // A record in the middle of each segment, then each header.
    for (nth, path) in files.iter().enumerate() {
        for in_header in [false, true] {
            let disk = sound.fork();
            let at = if in_header { 20 } else { SEGMENT_HEADER_BYTES as usize + 2360 + 100 };
            disk.flip(path, at * 8);
            let report = check(&disk, &dir()).unwrap();
            assert!(matches!(report.verdict, Err(OpenError::Corrupt { .. })));
            assert!(report.segments[nth].fault.is_some());
            // Whenever the power goes off, salvaging again ends the same way.
            for cut in 1.. {
                let broken = disk.fork();
                broken.set_faults(Faults { power_off_at: Some(disk.operations() + cut), ..Faults::default() });
                let whole = salvage(&broken, &dir()).is_ok() && !broken.is_off();
                let after = broken.crash(if whole { 0 } else { cut });
                let kept = salvage(&after, &dir()).unwrap();
                let log = open(&after).unwrap();
                let found = read_all(&log).unwrap();
                let good = records.iter().take_while(|record| {
                    let damaged = files_start(path).advance(if in_header { 0 } else { 2360 });
                    record.position < damaged
                });
                assert!(found.iter().eq(good), "segment {nth}, header {in_header}, cut {cut}");
                assert_eq!((kept.end, log.vote()), (log.end(), Some(b"vote".to_vec())));
                append(&log, found.len() as u64 + 1, 5000);
                if whole {
                    let names: Vec<_> = after.image().into_keys().collect();
                    assert!(names.iter().any(|path| path.extension().is_some_and(|ext| ext == "damaged")));
                    break;
                }
            }
        }
    }
}

fn files_start(path: &std::path::Path) -> Position {
    Position(path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
}
