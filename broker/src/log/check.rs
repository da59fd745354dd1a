//! Looking at a closed log: what `escrowmq fsck` does.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};

use super::LOCK_FILE;
use super::disk::Disk;
use super::error::OpenError;
use super::format::{FORMAT_VERSION, HeaderFault, Link, SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use super::record::RecordId;
use super::recovery::{io_error, judge, segment_starts};
use super::scan::{Found, Scan, scan_with};
use super::settings::LogSettings;
use super::vote::{SlotReport, VoteFile};
use crate::terms::to_usize;
use crate::terms::{LogIndex, Position};

/// The findings of [`check`].
#[derive(Debug)]
pub struct Report {
    /// The segments from the oldest to the newest.
    pub segments: Vec<SegmentReport>,
    /// The vote file's slots that are damaged.
    pub votes: Vec<SlotReport>,
    /// Whether the log can be opened, every record of every segment verified.
    pub verdict: Result<(), OpenError>,
}

/// One segment file.
#[derive(Debug)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Position of its first record, as its name says.
    pub start: Position,
    /// Where its good records end.
    pub end: Position,
    /// The number of good records.
    pub records: u64,
    /// The last good record, or the one before the segment if it has none.
    pub last: Option<RecordId>,
    /// The index of its first record; `None` while it is unknown.
    pub first_index: Option<LogIndex>,
    /// Everything before this position had been flushed, according to this file.
    pub durable_end: Position,
    /// A description of the bytes after the good records, if they are not free space; or why nothing could be read.
    pub fault: Option<String>,
    /// Good records whose local part is damaged: nothing is lost but what that part claimed.
    pub damaged_locals: Vec<Position>,
}

impl SegmentReport {
    /// The offset in the file of a position.
    pub fn offset_of(&self, position: Position) -> u64 {
        SEGMENT_HEADER_BYTES + position.since(self.start)
    }
}

/// A good record, as [`check_with`] shows it.
#[derive(Clone, Copy, Debug)]
pub struct SeenRecord<'a> {
    /// The file that it is in.
    pub path: &'a Path,
    /// Offset of its payload in that file.
    pub payload_offset: u64,
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: LogIndex,
    /// The kind of the payload, as given at the append.
    pub kind: u8,
    /// Where the record begins.
    pub position: Position,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Reads every record of the log in `dir`, which must not be open, and says what is there. Changes nothing.
pub fn check(disk: &dyn Disk, dir: &Path) -> Result<Report, OpenError> {
    check_with(disk, dir, |_| ())
}

/// Like [`check`], and shows each good record.
pub fn check_with(disk: &dyn Disk, dir: &Path, mut show: impl FnMut(SeenRecord<'_>)) -> Result<Report, OpenError> {
    let _lock = lock(disk, dir)?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let mut segments = Vec::new();
    let mut damage = None;
    let mut before: Option<(Found, Scan)> = None;
    for start in segment_starts(&names) {
        let path = segment_path(dir, start);
        let scanned = open_found(disk, &path, start).and_then(|found| {
            scan_with(&found, |header, payload| {
                show(SeenRecord {
                    path: &path,
                    payload_offset: found.offset_of(header.position) + super::format::RECORD_HEADER_BYTES,
                    term: header.term,
                    index: header.index,
                    kind: header.kind,
                    position: header.position,
                    payload,
                });
            })
            .map(|scan| (found, scan))
        });
        match scanned {
            Ok((found, scan)) => {
                segments.push(report_of(&path, start, &scan));
                if let Some((sealed, its)) = &before {
                    damage = damage.or_else(|| broken_joint(sealed, its, &found));
                }
                before = Some((found, scan));
            }
            Err(error) => {
                segments.push(unreadable(path, start, &error));
                before = None;
            }
        }
    }
    let votes = VoteFile::damaged_slots(disk, dir, VoteFile::exists(&names))?;
    // All records were read above: the judgement itself looks at the newest segment and at all headers.
    let verdict = judge(disk, dir, &LogSettings::default());
    let verdict = match (damage, verdict) {
        (Some(damage), Ok(()) | Err(OpenError::Corrupt { .. })) => Err(damage),
        (_, verdict) => verdict,
    };
    Ok(Report { segments, votes, verdict })
}

/// Reads a segment file that was cut after its last record, under any name, and fails unless every byte of it is good.
/// `start` is the position of its first record.
pub fn verify_segment(disk: &dyn Disk, path: &Path, start: Position) -> Result<(), OpenError> {
    let found = open_found(disk, path, start)?;
    let scan = scan_with(&found, |_, _| ())?;
    if scan.fault.is_some() || found.offset_of(scan.end) != found.file_len {
        let why = scan.fault.clone().unwrap_or_else(|| "its records end before the file does".into());
        return Err(found.corrupt(scan.end, why));
    }
    Ok(())
}

/// A description of the mismatch between a segment and its successor, if there is one.
fn broken_joint(sealed: &Found, scan: &Scan, next: &Found) -> Option<OpenError> {
    let joins = scan.end == next.header.start && scan.last == next.header.previous;
    let why = || scan.fault.clone().unwrap_or_else(|| "its records do not lead to the next segment".into());
    (!joins).then(|| sealed.corrupt(scan.end, why()))
}

fn report_of(path: &Path, start: Position, scan: &Scan) -> SegmentReport {
    SegmentReport {
        path: path.into(),
        start,
        end: scan.end,
        records: scan.records.len() as u64,
        last: scan.last.map(id_of),
        first_index: scan.first_index,
        durable_end: scan.durable_end,
        fault: scan.fault.clone(),
        damaged_locals: scan.damaged_locals.clone(),
    }
}

fn unreadable(path: PathBuf, start: Position, error: &OpenError) -> SegmentReport {
    SegmentReport {
        path,
        start,
        end: start,
        records: 0,
        last: None,
        first_index: None,
        durable_end: start,
        fault: Some(error.to_string()),
        damaged_locals: Vec::new(),
    }
}

/// Opens a segment whose header must be good.
pub(super) fn open_found(disk: &dyn Disk, path: &Path, start: Position) -> Result<Found, OpenError> {
    let file = disk.open(path).map_err(io_error("open", path))?;
    let file_len = file.len().map_err(io_error("measure", path))?;
    let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
    let read = file.read_at(&mut block, 0).map_err(io_error("read", path))?;
    let header = match SegmentHeader::decode(&block[..read]) {
        Err(HeaderFault::Newer(found)) => {
            return Err(OpenError::NewerFormat { file: path.into(), found, known: FORMAT_VERSION });
        }
        decoded => decoded.ok().filter(|header| header.start == start),
    };
    let header = header.ok_or_else(|| OpenError::Corrupt {
        file: path.into(),
        offset: 0,
        position: start,
        why: "the segment's header is missing or damaged".into(),
    })?;
    Ok(Found { path: path.into(), file, file_len, header })
}

/// Takes the exclusive right to a log's folder.
pub(super) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    disk.lock(&dir.join(LOCK_FILE)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.into() },
        _ => io_error("lock", dir)(source),
    })
}

pub(super) fn id_of(link: Link) -> RecordId {
    RecordId { term: link.term, index: link.index }
}
