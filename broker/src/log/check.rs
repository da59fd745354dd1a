//! Looking at a closed log, and saving what is left of a damaged one: what `escrowmq fsck` does.

use std::any::Any;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LOCK_FILE;
use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::format::{Link, SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use super::position::Position;
use super::record::RecordId;
use super::recovery::{io_error, judge, segment_starts};
use super::scan::{Found, SCAN_BYTES, scan};
use super::settings::LogSettings;
use super::vote::VoteFile;

/// What [`check`] found.
#[derive(Debug)]
pub struct Report {
    /// The segments from the oldest to the newest.
    pub segments: Vec<SegmentReport>,
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
    /// Everything before this position had been flushed, according to this file.
    pub durable_end: Position,
    /// What is behind the good records, if it is something else than free space; or why nothing could be read.
    pub fault: Option<String>,
}

/// What [`salvage`] did.
#[derive(Debug)]
pub struct Salvage {
    /// Where the log ends now.
    pub end: Position,
    /// The last record kept.
    pub last: Option<RecordId>,
    /// Copies of what did not stay, for an expert to look at.
    pub set_aside: Vec<PathBuf>,
}

/// Reads every record of the log in `dir`, which must not be open, and says what is there. Changes nothing.
pub fn check(disk: &dyn Disk, dir: &Path) -> Result<Report, OpenError> {
    let _lock = lock(disk, dir)?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let segments = segment_starts(&names).into_iter().map(|start| report(disk, dir, start)).collect();
    let settings = LogSettings { verify_all: true, ..LogSettings::default() };
    Ok(Report { segments, verdict: judge(disk, dir, &settings) })
}

fn report(disk: &dyn Disk, dir: &Path, start: Position) -> SegmentReport {
    let path = segment_path(dir, start);
    match open_found(disk, &path, start).and_then(|found| scan(&found)) {
        Ok(scan) => SegmentReport {
            path,
            start,
            end: scan.end,
            records: scan.records.len() as u64,
            last: scan.last.map(id_of),
            durable_end: scan.durable_end,
            fault: scan.fault,
        },
        Err(error) => SegmentReport {
            path,
            start,
            end: start,
            records: 0,
            last: None,
            durable_end: start,
            fault: Some(error.to_string()),
        },
    }
}

/// Cuts a damaged log behind its last good record before the damage, so that it can be opened. **This gives up
/// records that had been acknowledged.** It is for a broker without replicas, when the disk has lost them anyway. What
/// does not stay is kept beside the log in files that end in `.damaged`. State derived from the lost records
/// must be rebuilt by the caller.
///
/// A log that can be opened is left as it is. Fails if the vote file is missing or unreadable: a replica
/// without its vote must not come back by itself.
pub fn salvage(disk: &dyn Disk, dir: &Path) -> Result<Salvage, OpenError> {
    let _lock = lock(disk, dir)?;
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let starts = segment_starts(&names);
    let settings = LogSettings { verify_all: true, ..LogSettings::default() };
    let sound = match judge(disk, dir, &settings) {
        Ok(()) => true,
        Err(OpenError::Corrupt { .. }) if VoteFile::exists(&names) => false,
        Err(error) => return Err(error),
    };
    let mut good = good_prefix(disk, dir, &starts)?;
    if good.segments == 0 {
        // Nothing is left, so the log begins anew.
        good.end = Position::ZERO;
    }
    let mut set_aside = Vec::new();
    let outcome = |set_aside| Salvage { end: good.end, last: good.last.map(id_of), set_aside };
    if sound {
        return Ok(outcome(set_aside));
    }
    // First the claim, then from the newest file on: after a crash this can simply be run again.
    let mut vote = VoteFile::load(disk, dir, VoteFile::exists(&names))?.open(disk, dir)?;
    vote.lower_durable_end(good.end).map_err(io_error("write the vote file in", dir))?;
    for &start in starts[good.segments..].iter().rev() {
        let path = segment_path(dir, start);
        let aside = aside(&path);
        disk.rename(&path, &aside).map_err(io_error("set aside", &path))?;
        disk.sync_dir(dir).map_err(io_error("flush the folder", dir))?;
        set_aside.push(aside);
    }
    if let Some(newest) = good.newest {
        let aside = aside(&newest.path);
        copy(disk, &*newest.file, &aside).map_err(io_error("copy to", &aside))?;
        disk.sync_dir(dir).map_err(io_error("flush the folder", dir))?;
        set_aside.push(aside);
        let len = SEGMENT_HEADER_BYTES + good.end.since(newest.header.start);
        newest.file.set_len(len).and_then(|()| newest.file.sync_data()).map_err(io_error("cut", &newest.path))?;
    }
    Ok(outcome(set_aside))
}

/// The segments from the oldest on as far as all is well.
struct GoodPrefix {
    /// How many segments have something to keep.
    segments: usize,
    /// The last of these.
    newest: Option<Found>,
    end: Position,
    last: Option<Link>,
}

fn good_prefix(disk: &dyn Disk, dir: &Path, starts: &[Position]) -> Result<GoodPrefix, OpenError> {
    let first = starts.first().copied().unwrap_or_default();
    let mut good = GoodPrefix { segments: 0, newest: None, end: first, last: None };
    for &start in starts {
        let found = match open_found(disk, &segment_path(dir, start), start) {
            Ok(found) => found,
            Err(error @ (OpenError::Io { .. } | OpenError::NewerFormat { .. })) => return Err(error),
            Err(_) => break,
        };
        // What comes before the first segment has been purged; all others continue their predecessor.
        if good.segments > 0 && (start != good.end || found.header.previous != good.last) {
            break;
        }
        let scan = scan(&found)?;
        good.segments += 1;
        good.newest = Some(found);
        good.end = scan.end;
        good.last = scan.last;
        if scan.fault.is_some() {
            break;
        }
    }
    Ok(good)
}

fn open_found(disk: &dyn Disk, path: &Path, start: Position) -> Result<Found, OpenError> {
    let file = disk.open(path).map_err(io_error("open", path))?;
    let file_len = file.len().map_err(io_error("measure", path))?;
    let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
    let read = file.read_at(&mut block, 0).map_err(io_error("read", path))?;
    let header = SegmentHeader::decode(&block[..read]).ok().filter(|header| header.start == start);
    let header = header.ok_or_else(|| OpenError::Corrupt {
        file: path.into(),
        offset: 0,
        position: start,
        why: "the segment's header is missing or damaged".into(),
    })?;
    Ok(Found { path: path.into(), file, file_len, header })
}

fn copy(disk: &dyn Disk, from: &dyn DiskFile, to: &Path) -> io::Result<()> {
    let to: Arc<dyn DiskFile> = disk.create(to)?;
    let mut buffer = vec![0; SCAN_BYTES];
    let mut offset = 0;
    loop {
        let read = from.read_at(&mut buffer, offset)?;
        if read == 0 {
            return to.sync_data();
        }
        to.write_vectored_at(&[IoSlice::new(&buffer[..read])], offset)?;
        offset += read as u64;
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}

/// Takes the exclusive right to a log's folder.
pub(super) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    disk.lock(&dir.join(LOCK_FILE)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.into() },
        _ => io_error("lock", dir)(source),
    })
}

fn id_of(link: Link) -> RecordId {
    RecordId { term: link.term, index: link.index }
}
