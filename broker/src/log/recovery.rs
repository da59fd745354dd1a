//! Opening a log: find its end, cut a torn tail, refuse damage.
//!
//! 1. The vote file, then the header of every segment. Neighbours must fit: the next header names the
//!    last record of its predecessor, which is looked up there. Segments other than the newest were
//!    flushed before their successor began, so any fault in them is damage.
//! 2. The newest segment is read record by record, checksum and chain verified, up to the first place where no
//!    good record is. That is the end, unless somebody claims that more had been durable: the local part of
//!    any record (also behind the end, found by looking ahead), a mark, the vote file, the caller. A
//!    durable end beyond the end found means damage: refuse. Otherwise what follows is a torn write
//!    that was never acknowledged: the file is cut there.
//! 3. What lies between the claimed durable end and the end found is written once more and flushed. It may have
//!    been read from the page cache only, after a flush that had failed in an earlier process, and a
//!    further flush alone would not write it.
//!
//! Opening twice gives the same as opening once; a crash in between does no harm, as every step either keeps the
//! records found or repeats itself.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::append::SPARE_PREFIX;
use super::disk::{Disk, DiskFile};
use super::error::OpenError;
use super::format::{
    Claim, FORMAT_VERSION, HeaderFault, LOCAL_BYTES, Link, MARK_BYTES, MARK_SLACK_BYTES, RECORD_HEADER_BYTES,
    RECORD_OVERHEAD_BYTES, RECORD_VERSION, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, chained_part_is_good,
    is_zero, parse_segment_name, segment_path,
};
use super::position::Position;
use super::segment::{Segment, SegmentPlace};
use super::settings::LogSettings;
use super::vote::VoteFile;
use super::window::Window;
use super::writer::Active;

/// Bytes per read while scanning.
const SCAN_BYTES: usize = 1 << 20;

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
    pub(crate) committed: Option<u64>,
}

/// A segment file with a good header.
struct Found {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    file_len: u64,
    header: SegmentHeader,
}

/// What a scan of one segment came to.
struct Scan {
    /// Where the good records end.
    end: Position,
    last: Option<Link>,
    first_index: Option<u64>,
    /// (index, position) of each record.
    records: Vec<(u64, Position)>,
    /// The highest durable end that anything in the file claims.
    durable_end: Position,
    committed: Option<u64>,
    /// Why the scan ended, if there is something else than preallocated space.
    fault: Option<String>,
}

/// Recovers the log in `dir`. Takes no lock on the folder.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, settings: &LogSettings) -> Result<Recovered, OpenError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let mut starts: Vec<Position> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    starts.sort_unstable();
    if !starts.is_empty() && !VoteFile::exists(&names) {
        return Err(OpenError::Corrupt {
            file: dir.into(),
            offset: 0,
            position: Position::ZERO,
            why: "the vote file is missing beside log segments".into(),
        });
    }
    let vote = VoteFile::load(disk, dir, VoteFile::exists(&names))?;
    let (found, blank) = open_segments(disk, dir, &starts)?;
    let Some((newest, sealed)) = found.split_last() else {
        let claimed = vote.durable_end().max(settings.durable_at_least);
        if claimed > Position::ZERO {
            return Err(OpenError::Corrupt {
                file: dir.into(),
                offset: 0,
                position: Position::ZERO,
                why: format!("there is no segment, but everything before {claimed} had been flushed"),
            });
        }
        remove_leftovers(disk, dir, &names, blank)?;
        return Ok(Recovered::empty(vote.open(disk, dir)?));
    };
    let mut segments = Vec::with_capacity(found.len());
    for (segment, next) in sealed.iter().zip(&found[1..]) {
        let first_index = check_sealed(segment, &next.header, settings.verify_all)?;
        segments.push(Arc::new(Segment::sealed(segment.place(first_index))));
    }
    let scan = scan(newest)?;
    let claimed = scan.durable_end.max(vote.durable_end()).max(settings.durable_at_least);
    if claimed > scan.end {
        let why = scan.fault.as_deref().unwrap_or("the log ends here");
        return Err(newest.corrupt(scan.end, format!("{why}, but everything before {claimed} had been flushed")));
    }
    let used = scan.end.since(newest.header.start);
    let mut file_len = newest.file_len;
    if let Some(fault) = &scan.fault {
        tracing::warn!(file = %newest.path.display(), end = %scan.end, %fault, "cutting a torn write off the log");
        file_len = SEGMENT_HEADER_BYTES + used;
        newest.file.set_len(file_len).map_err(io_error("cut", &newest.path))?;
    }
    if scan.fault.is_some() || claimed < scan.end {
        let from = claimed.max(newest.header.start);
        rewrite(newest, from, scan.end).map_err(io_error("rewrite the end of", &newest.path))?;
    }
    let capacity = file_len.saturating_sub(SEGMENT_HEADER_BYTES + MARK_SLACK_BYTES);
    remove_leftovers(disk, dir, &names, blank)?;
    let vote = vote.open(disk, dir)?;
    // An empty segment is replaced by the next one, see `start_segment`.
    let room = if used == 0 { 0 } else { capacity.saturating_sub(used) };
    let place = newest.place(scan.first_index.unwrap_or(0));
    let segment = Arc::new(Segment::fresh(place, Arc::clone(&newest.file)));
    for (index, position) in scan.records {
        segment.note(index, position);
    }
    segments.push(Arc::clone(&segment));
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
        room,
        committed: scan.committed.min(scan.last.map(|last| last.index)),
    })
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
fn open_segments(disk: &dyn Disk, dir: &Path, starts: &[Position]) -> Result<(Vec<Found>, Option<PathBuf>), OpenError> {
    let mut blank = None;
    let mut found: Vec<Found> = Vec::with_capacity(starts.len());
    for (nth, &start) in starts.iter().enumerate() {
        let path = segment_path(dir, start);
        let newest = nth + 1 == starts.len();
        let file = disk.open(&path).map_err(io_error("open", &path))?;
        let file_len = file.len().map_err(io_error("measure", &path))?;
        let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
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
fn check_sealed(segment: &Found, next: &SegmentHeader, whole: bool) -> Result<u64, OpenError> {
    let end = next.start;
    let Some(link) = next.previous else {
        return Err(segment.corrupt(end, "the next segment claims to be the first one".into()));
    };
    if whole {
        let scan = scan(segment)?;
        // Records behind the end would overlap the next segment.
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
        return Ok(previous.index + 1);
    }
    let start = segment.header.start;
    let first = segment.header_at(start).map_err(io_error("read", &segment.path))?;
    first
        .filter(|first| first.position == start && first.index <= link.index)
        .map(|first| first.index)
        .ok_or_else(|| segment.corrupt(start, "the first record is missing".into()))
}

/// Reads a segment's records from its start as far as they are good.
fn scan(segment: &Found) -> Result<Scan, OpenError> {
    let failed = io_error("read", &segment.path);
    let mut window = Window::new(&*segment.file, SCAN_BYTES).map_err(&failed)?;
    let mut scan = Scan {
        end: segment.header.start,
        last: segment.header.previous,
        first_index: segment.header.previous.map(|previous| previous.index + 1),
        records: Vec::new(),
        // The segment before was flushed before this one began.
        durable_end: segment.header.start,
        committed: segment.header.committed,
        fault: None,
    };
    loop {
        let offset = segment.offset_of(scan.end);
        let Some(bytes) = window.get(offset, RECORD_HEADER_BYTES as usize).map_err(&failed)? else {
            break;
        };
        let header = RecordHeader::decode(bytes);
        if !header.length_is_plausible() || header.position != scan.end {
            break;
        }
        let Some(bytes) = window.get(offset, header.length as usize).map_err(&failed)? else {
            break;
        };
        if !chained_part_is_good(bytes) {
            scan.fault = Some("the record's checksum is wrong".into());
            break;
        }
        if header.version > RECORD_VERSION {
            return Err(OpenError::NewerFormat {
                file: segment.path.clone(),
                found: u32::from(header.version),
                known: u32::from(RECORD_VERSION),
            });
        }
        if !follows(&header, scan.last) {
            scan.fault = Some("the record does not continue the one before".into());
            break;
        }
        let local = &bytes[header.length as usize - LOCAL_BYTES as usize..];
        if let Some(claim) = Claim::decode_local(local, segment.header.salt, header.position) {
            scan.note(claim);
        } else {
            // The record itself is good; only what it claims is lost.
            tracing::warn!(file = %segment.path.display(), position = %scan.end, "a record's local part is damaged");
        }
        scan.first_index.get_or_insert(header.index);
        scan.records.push((header.index, header.position));
        scan.last = Some(header.link());
        scan.end = header.position.advance(u64::from(header.length));
    }
    look_ahead(segment, &mut window, &mut scan).map_err(&failed)?;
    Ok(scan)
}

fn follows(header: &RecordHeader, last: Option<Link>) -> bool {
    match last {
        Some(last) => header.previous_crc == last.crc && header.index == last.index + 1 && header.term >= last.term,
        None => header.previous_crc == 0,
    }
}

/// Searches the bytes behind the last good record for claims of durability, and notes a fault if there is
/// anything but zeros and a mark.
///
/// Records are recognised at any byte, because the length that would lead to the next one may be what is damaged.
/// The salted checksum of the local part is tested before anything expensive or believed: message
/// bytes cannot forge it.
fn look_ahead(segment: &Found, window: &mut Window<'_>, scan: &mut Scan) -> io::Result<()> {
    const STEP: usize = 4096;
    let salt = segment.header.salt;
    let mut position = scan.end;
    let mark = window.get(segment.offset_of(position), MARK_BYTES as usize)?;
    if let Some(claim) = mark.and_then(|bytes| Claim::decode_mark(bytes, salt, position)) {
        scan.note(claim);
        position = position.advance(MARK_BYTES);
    }
    while segment.offset_of(position) < window.file_len() {
        let rest = (window.file_len() - segment.offset_of(position)) as usize;
        let bytes = window.get(segment.offset_of(position), rest.min(STEP))?.unwrap_or_default();
        if bytes.is_empty() || is_zero(bytes) {
            position = position.advance(rest.min(STEP) as u64);
            continue;
        }
        if scan.fault.is_none() {
            scan.fault = Some("there is no whole record here".into());
        }
        for _ in 0..rest.min(STEP) {
            let offset = segment.offset_of(position);
            if let Some(claim) = claim_at(window, offset, salt, position)? {
                scan.note(claim);
            }
            position = position.advance(1);
        }
    }
    Ok(())
}

/// What a mark or a record's local part claims, if there is one for this very position.
fn claim_at(window: &mut Window<'_>, offset: u64, salt: u64, position: Position) -> io::Result<Option<Claim>> {
    let Some(bytes) = window.get(offset, MARK_BYTES as usize)? else {
        return Ok(None);
    };
    if let Some(claim) = Claim::decode_mark(bytes, salt, position) {
        return Ok(Some(claim));
    }
    let Some(bytes) = window.get(offset, RECORD_HEADER_BYTES as usize)? else {
        return Ok(None);
    };
    let header = RecordHeader::decode(bytes);
    if header.position != position || !header.length_is_plausible() {
        return Ok(None);
    }
    let local = offset + u64::from(header.length) - LOCAL_BYTES;
    Ok(window.get(local, LOCAL_BYTES as usize)?.and_then(|bytes| Claim::decode_local(bytes, salt, position)))
}

impl Scan {
    fn note(&mut self, claim: Claim) {
        self.durable_end = self.durable_end.max(claim.durable_end);
        self.committed = self.committed.max(claim.committed);
    }
}

/// Writes the bytes of `from..to` again and flushes them.
fn rewrite(segment: &Found, from: Position, to: Position) -> io::Result<()> {
    let mut buffer = vec![0; SCAN_BYTES.min(to.since(from) as usize)];
    let mut at = from;
    while at < to {
        let len = buffer.len().min(to.since(at) as usize);
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
        if !window.get(offset, len as usize)?.is_none_or(is_zero) {
            return Ok(false);
        }
        offset += len;
    }
    Ok(true)
}

impl Found {
    fn offset_of(&self, position: Position) -> u64 {
        SEGMENT_HEADER_BYTES + position.since(self.header.start)
    }

    /// The record header at a position, if the file reaches that far.
    fn header_at(&self, position: Position) -> io::Result<Option<RecordHeader>> {
        let mut bytes = [0; RECORD_HEADER_BYTES as usize];
        let read = self.file.read_at(&mut bytes, self.offset_of(position))?;
        let header = RecordHeader::decode(&bytes);
        let whole = self.offset_of(position).saturating_add(u64::from(header.length)) <= self.file_len;
        Ok((read == bytes.len() && whole && u64::from(header.length) >= RECORD_OVERHEAD_BYTES).then_some(header))
    }

    fn place(&self, first_index: u64) -> SegmentPlace {
        SegmentPlace {
            start: self.header.start,
            previous: self.header.previous,
            salt: self.header.salt,
            first_index,
            path: self.path.clone(),
        }
    }

    fn corrupt(&self, position: Position, why: String) -> OpenError {
        OpenError::Corrupt { file: self.path.clone(), offset: self.offset_of(position), position, why }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| OpenError::Io { action, path: path.clone(), source }
}
