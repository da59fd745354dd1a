//! Opening a log: find its end, cut a torn tail, refuse damage.
//!
//! 1. The vote file, then the header of every segment. Neighbours must fit: the next header names the
//!    last record of its predecessor, which is looked up there. Segments other than the newest were
//!    flushed before their successor began, so any fault in them is damage.
//! 2. The newest segment is read record by record, checksum and chain verified, up to the first place where no
//!    good record is. That is the end, unless somebody claims that more had been durable: the local part of
//!    any record (also after the end, found by looking ahead), a mark, the vote file, the caller. A
//!    durable end beyond the end found means damage: refuse. Otherwise the bytes after the end are a torn write
//!    that was never acknowledged: the file is cut there.
//! 3. The records between the claimed durable end and the end found are written once more and flushed. They may have
//!    been read from the page cache only, after a flush that had failed in an earlier process, and a
//!    further flush alone would not write them.
//!
//! Opening twice gives the same as opening once; a crash in between does no harm, as every step either keeps the
//! records found or repeats itself.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::append::SPARE_PREFIX;
use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::files::Active;
use super::format::{
    FORMAT_VERSION, HeaderFault, Link, MARK_SLACK_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, is_zero,
    parse_segment_name, segment_path,
};
use super::scan::{Found, SCAN_BYTES, Scan, scan};
use super::segment::Segment;
use super::settings::LogSettings;
use super::vote::{SavedVote, VoteFile};
use super::window::Window;
use crate::terms::to_usize;
use crate::terms::{LogIndex, Position};

/// A log as found on disk.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: Option<Active>,
    pub(crate) vote: VoteFile,
    pub(crate) last: Option<Link>,
    pub(crate) end: Position,
    /// Bytes that can still be appended to the newest segment.
    pub(crate) room: u64,
    /// The highest committed index that was noted.
    pub(crate) committed: Option<LogIndex>,
}

/// The state of the files, before anything is changed.
struct Inspection {
    names: Vec<String>,
    vote: SavedVote,
    found: Vec<Found>,
    /// The newest file, if it is blank.
    blank: Option<PathBuf>,
    /// The first index of each segment but the newest.
    first_indices: Vec<LogIndex>,
    /// The newest segment's records; `None` if there is no segment.
    scan: Option<Scan>,
    /// Everything before this position had been flushed.
    claimed: Position,
}

/// Recovers the log in `dir`. Takes no lock on the folder.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, settings: &LogSettings) -> Result<Recovered, OpenError> {
    inspect(disk, dir, settings)?.repair(disk, dir)
}

/// Whether [`recover`] would succeed. Changes nothing.
pub(crate) fn judge(disk: &dyn Disk, dir: &Path, settings: &LogSettings) -> Result<(), OpenError> {
    inspect(disk, dir, settings).map(|_| ())
}

fn inspect(disk: &dyn Disk, dir: &Path, settings: &LogSettings) -> Result<Inspection, OpenError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let starts = segment_starts(&names);
    let lost = |why: String| OpenError::Corrupt { file: dir.into(), offset: 0, position: Position::ZERO, why };
    if !starts.is_empty() && !VoteFile::exists(&names) {
        return Err(lost("the vote file is missing beside log segments".into()));
    }
    let vote = VoteFile::load(disk, dir, VoteFile::exists(&names))?;
    let (found, blank) = open_segments(disk, dir, &starts)?;
    let mut claimed = vote.durable_end().max(settings.durable_at_least);
    let mut first_indices = Vec::with_capacity(found.len());
    for pair in found.windows(2) {
        first_indices.push(check_sealed(&pair[0], &pair[1].header, settings.verify_all)?);
    }
    let scan = found.last().map(scan).transpose()?;
    match (&scan, found.last()) {
        (Some(scan), Some(newest)) => {
            claimed = claimed.max(scan.durable_end);
            if claimed > scan.end {
                let why = scan.fault.as_deref().unwrap_or("the log ends here");
                let why = format!("{why}, but everything before {claimed} had been flushed");
                return Err(newest.corrupt(scan.end, why));
            }
        }
        _ if claimed > Position::ZERO => {
            return Err(lost(format!("there is no segment, but everything before {claimed} had been flushed")));
        }
        _ => {}
    }
    Ok(Inspection { names, vote, found, blank, first_indices, scan, claimed })
}

/// Where the segments among a folder's files start, in rising order.
pub(crate) fn segment_starts(names: &[String]) -> Vec<Position> {
    let mut starts: Vec<Position> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    starts.sort_unstable();
    starts
}

impl Inspection {
    /// Cuts what is torn, makes the rest durable, and puts the log together.
    fn repair(self, disk: &dyn Disk, dir: &Path) -> Result<Recovered, OpenError> {
        let (Some(newest), Some(scan)) = (self.found.last(), self.scan) else {
            remove_leftovers(disk, dir, &self.names, self.blank)?;
            return Ok(Recovered::empty(self.vote.open(disk, dir)?));
        };
        let used = scan.end.since(newest.header.start);
        let mut file_len = newest.file_len;
        if let Some(fault) = &scan.fault {
            tracing::warn!(event = "torn_write_cut", file = %newest.path.display(), end = %scan.end, %fault, "cutting a torn write off the log");
            file_len = SEGMENT_HEADER_BYTES + used;
            newest.file.set_len(file_len).map_err(io_error("cut", &newest.path))?;
        }
        if scan.fault.is_some() || self.claimed < scan.end {
            let from = self.claimed.max(newest.header.start);
            rewrite(newest, from, scan.end).map_err(io_error("rewrite the end of", &newest.path))?;
        }
        remove_leftovers(disk, dir, &self.names, self.blank)?;
        let vote = self.vote.open(disk, dir)?;
        let sealed = self.found.iter().zip(&self.first_indices);
        let mut segments: Vec<_> =
            sealed.map(|(segment, first_index)| Arc::new(Segment::sealed(segment.place(*first_index)))).collect();
        // Without a record before it, it begins with the first one ever.
        let place = newest.place(scan.first_index.unwrap_or(LogIndex::ZERO));
        let segment = Arc::new(Segment::fresh(place, Arc::clone(&newest.file)));
        for (index, position) in scan.records {
            segment.note(index, position);
        }
        segments.push(Arc::clone(&segment));
        let capacity = file_len.saturating_sub(SEGMENT_HEADER_BYTES + MARK_SLACK_BYTES);
        Ok(Recovered {
            segments,
            active: Some(Active {
                segment,
                file: Arc::clone(&newest.file),
                written: scan.end,
                zeroed: scan.end,
                file_len,
                unsynced: false,
            }),
            vote,
            last: scan.last,
            end: scan.end,
            // An empty segment is replaced by the next one, see `start_segment`.
            room: if used == 0 { 0 } else { capacity.saturating_sub(used) },
            committed: scan.committed.min(scan.last.map(|last| last.index)),
        })
    }
}

impl Recovered {
    fn empty(vote: VoteFile) -> Recovered {
        Recovered {
            segments: Vec::new(),
            active: None,
            vote,
            last: None,
            end: Position::ZERO,
            room: 0,
            committed: None,
        }
    }
}

/// Removes what an earlier process had prepared and not used. Durable with the folder's flush that follows.
fn remove_leftovers(disk: &dyn Disk, dir: &Path, names: &[String], blank: Option<PathBuf>) -> Result<(), OpenError> {
    let spares = names.iter().filter(|name| name.starts_with(SPARE_PREFIX));
    for path in spares.map(|name| dir.join(name)).chain(blank) {
        disk.remove(&path).map_err(io_error("remove", &path))?;
    }
    Ok(())
}

/// Opens the segments and reads their headers. Also answers the newest file's path if it is blank.
pub(crate) fn open_segments(
    disk: &dyn Disk,
    dir: &Path,
    starts: &[Position],
) -> Result<(Vec<Found>, Option<PathBuf>), OpenError> {
    let mut blank = None;
    let mut found: Vec<Found> = Vec::with_capacity(starts.len());
    for (nth, &start) in starts.iter().enumerate() {
        let path = segment_path(dir, start);
        let newest = nth + 1 == starts.len();
        let file = disk.open(&path).map_err(io_error("open", &path))?;
        let file_len = file.len().map_err(io_error("measure", &path))?;
        let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
        let read = file.read_at(&mut block, 0).map_err(io_error("read", &path))?;
        let corrupt =
            |why: &str| OpenError::Corrupt { file: path.clone(), offset: 0, position: start, why: why.into() };
        match SegmentHeader::decode(&block[..read]) {
            Ok(header) if header.start == start => found.push(Found { path, file, file_len, header }),
            Ok(_) => return Err(corrupt("the header belongs to another segment")),
            Err(HeaderFault::Newer(version)) => {
                return Err(OpenError::NewerFormat { file: path, found: version, known: FORMAT_VERSION });
            }
            Err(HeaderFault::Blank) if newest && all_zero(&*file).map_err(io_error("read", &path))? => {
                // A segment gets its name after its header, so this never held a record.
                tracing::warn!(file = %path.display(), "removing a log segment that is blank");
                blank = Some(path);
            }
            Err(HeaderFault::Blank) => return Err(corrupt("the segment's header is missing")),
            Err(HeaderFault::Damaged) => return Err(corrupt("the segment's header is damaged")),
        }
    }
    Ok((found, blank))
}

/// Checks that the segment's last record is the one that the next segment continues. Answers the index of
/// its first record.
fn check_sealed(segment: &Found, next: &SegmentHeader, whole: bool) -> Result<LogIndex, OpenError> {
    let end = next.start;
    let Some(link) = next.previous else {
        return Err(segment.corrupt(end, "the next segment claims to be the first one".into()));
    };
    if whole {
        let scan = scan(segment)?;
        // Records after the end would overlap the next segment.
        if scan.end != end || scan.last != Some(link) {
            let why = scan.fault.unwrap_or_else(|| "its records do not lead to the next segment".into());
            return Err(segment.corrupt(scan.end, why));
        }
    }
    let header = (link.position >= segment.header.start)
        .then(|| segment.header_at(link.position))
        .transpose()
        .map_err(io_error("read", &segment.path))?
        .flatten();
    let joins =
        header.is_some_and(|header| header.link() == link && header.position.advance(u64::from(header.length)) == end);
    if !joins {
        let why =
            format!("the record at {} that ends at {end} is not here: a segment is missing or damaged", link.position);
        return Err(segment.corrupt(end, why));
    }
    if let Some(previous) = segment.header.previous {
        return Ok(previous.index.next());
    }
    let start = segment.header.start;
    let first = segment.header_at(start).map_err(io_error("read", &segment.path))?;
    first
        .filter(|first| first.position == start && first.index <= link.index)
        .map(|first| first.index)
        .ok_or_else(|| segment.corrupt(start, "the first record is missing".into()))
}

/// Writes the bytes of `from..to` again and flushes them.
fn rewrite(segment: &Found, from: Position, to: Position) -> io::Result<()> {
    let mut buffer = vec![0; SCAN_BYTES.min(to_usize(to.since(from)))];
    let mut at = from;
    while at < to {
        let len = buffer.len().min(to_usize(to.since(at)));
        let read = segment.file.read_at(&mut buffer[..len], segment.offset_of(at))?;
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        segment.file.write_vectored_at(&[IoSlice::new(&buffer[..len])], segment.offset_of(at))?;
        at = at.advance(len as u64);
    }
    segment.file.sync_data()
}

fn all_zero(file: &dyn DiskFile) -> io::Result<bool> {
    let mut window = Window::new(file, SCAN_BYTES)?;
    let mut offset = 0;
    while offset < window.file_len() {
        let len = (window.file_len() - offset).min(SCAN_BYTES as u64);
        if !window.get(offset, to_usize(len))?.is_none_or(is_zero) {
            return Ok(false);
        }
        offset += len;
    }
    Ok(true)
}

/// Makes an error out of what the operating system answered.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io { action, path: path.clone(), source }
}
