//! Reading one segment from its start: which records are good, what anything in the file claims.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::DiskFile;
use super::error::OpenError;
use super::format::{
    Claim, LOCAL_BYTES, Link, MARK_BYTES, RECORD_HEADER_BYTES, RECORD_OVERHEAD_BYTES, RECORD_VERSION, RecordHeader,
    SEGMENT_HEADER_BYTES, SegmentHeader, chained_part_is_good, is_zero,
};
use super::recovery::io_error;
use super::segment::SegmentPlace;
use super::window::Window;
use crate::planted::{Bug, planted};
use crate::terms::to_usize;
use crate::terms::{LogIndex, Position};

/// Bytes per read while scanning.
pub(crate) const SCAN_BYTES: usize = 1 << 20;

/// A segment file with a good header.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) file_len: u64,
    pub(crate) header: SegmentHeader,
}

/// The result of a scan of one segment.
pub(crate) struct Scan {
    /// Where the good records end.
    pub(crate) end: Position,
    pub(crate) last: Option<Link>,
    pub(crate) first_index: Option<LogIndex>,
    /// (index, position) of each record.
    pub(crate) records: Vec<(LogIndex, Position)>,
    /// The highest durable end that anything in the file claims.
    pub(crate) durable_end: Position,
    pub(crate) committed: Option<LogIndex>,
    /// Why the scan ended, if there is something else than preallocated space.
    pub(crate) fault: Option<String>,
    /// Good records whose local part is damaged: nothing is lost but what they claimed.
    pub(crate) damaged_locals: Vec<Position>,
}

impl Found {
    pub(crate) fn offset_of(&self, position: Position) -> u64 {
        SEGMENT_HEADER_BYTES + position.since(self.header.start)
    }

    /// The record header at a position, if the file reaches that far.
    pub(crate) fn header_at(&self, position: Position) -> io::Result<Option<RecordHeader>> {
        let mut bytes = [0; to_usize(RECORD_HEADER_BYTES)];
        let read = self.file.read_at(&mut bytes, self.offset_of(position))?;
        let header = RecordHeader::decode(&bytes);
        let whole = self.offset_of(position).saturating_add(u64::from(header.length)) <= self.file_len;
        Ok((read == bytes.len() && whole && u64::from(header.length) >= RECORD_OVERHEAD_BYTES).then_some(header))
    }

    pub(crate) fn place(&self, first_index: LogIndex) -> SegmentPlace {
        SegmentPlace {
            start: self.header.start,
            previous: self.header.previous,
            salt: self.header.salt,
            first_index,
            path: self.path.clone(),
        }
    }

    pub(crate) fn corrupt(&self, position: Position, why: String) -> OpenError {
        OpenError::Corrupt { file: self.path.clone(), offset: self.offset_of(position), position, why }
    }
}

/// Reads a segment's records from its start as far as they are good.
pub(crate) fn scan(segment: &Found) -> Result<Scan, OpenError> {
    scan_with(segment, |_, _| ())
}

/// Like [`scan`], and shows each good record: its header and its payload.
pub(crate) fn scan_with(segment: &Found, mut show: impl FnMut(&RecordHeader, &[u8])) -> Result<Scan, OpenError> {
    let failed = io_error("read", &segment.path);
    let mut window = Window::new(&*segment.file, SCAN_BYTES).map_err(&failed)?;
    let mut scan = Scan {
        end: segment.header.start,
        last: segment.header.previous,
        first_index: segment.header.previous.map(|previous| previous.index.next()),
        records: Vec::new(),
        // The segment before was flushed before this one began.
        durable_end: segment.header.start,
        committed: segment.header.committed,
        fault: None,
        damaged_locals: Vec::new(),
    };
    loop {
        let offset = segment.offset_of(scan.end);
        let Some(bytes) = window.get(offset, to_usize(RECORD_HEADER_BYTES)).map_err(&failed)? else {
            break;
        };
        let header = RecordHeader::decode(bytes);
        if !header.length_is_plausible() || header.position != scan.end {
            break;
        }
        let Some(bytes) = window.get(offset, header.length as usize).map_err(&failed)? else {
            break;
        };
        if !chained_part_is_good(bytes) && !planted(Bug::TornRecordTaken) {
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
        show(&header, &bytes[to_usize(RECORD_HEADER_BYTES)..header.length as usize - to_usize(LOCAL_BYTES)]);
        let local = &bytes[header.length as usize - to_usize(LOCAL_BYTES)..];
        if let Some(claim) = Claim::decode_local(local, segment.header.salt, header.position) {
            scan.note(claim);
        } else {
            // The record itself is good; only what it claims is lost.
            tracing::warn!(file = %segment.path.display(), position = %scan.end, "a record's local part is damaged");
            scan.damaged_locals.push(scan.end);
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
    if planted(Bug::TornRecordTaken) {
        return last.is_none_or(|last| header.index == last.index.next());
    }
    match last {
        Some(last) => header.previous_crc == last.crc && header.index == last.index.next() && header.term >= last.term,
        None => header.previous_crc == 0,
    }
}

/// Searches the bytes after the last good record for claims of durability, and notes a fault if there is anything but
/// zeros and a mark.
///
/// Records are recognised at any byte, because the length that would lead to the next one may be what is damaged.
/// The salted checksum of the local part is tested before anything expensive or believed: message
/// bytes cannot forge it.
fn look_ahead(segment: &Found, window: &mut Window<'_>, scan: &mut Scan) -> io::Result<()> {
    const STEP: usize = 4096;
    let salt = segment.header.salt;
    let mut position = scan.end;
    let mark = window.get(segment.offset_of(position), to_usize(MARK_BYTES))?;
    if let Some(claim) = mark.and_then(|bytes| Claim::decode_mark(bytes, salt, position)) {
        scan.note(claim);
        position = position.advance(MARK_BYTES);
    }
    while segment.offset_of(position) < window.file_len() {
        let rest = to_usize(window.file_len() - segment.offset_of(position));
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

/// The claim of a mark or of a record's local part, if there is one for this very position.
fn claim_at(window: &mut Window<'_>, offset: u64, salt: u64, position: Position) -> io::Result<Option<Claim>> {
    let Some(bytes) = window.get(offset, to_usize(MARK_BYTES))? else {
        return Ok(None);
    };
    if let Some(claim) = Claim::decode_mark(bytes, salt, position) {
        return Ok(Some(claim));
    }
    let Some(bytes) = window.get(offset, to_usize(RECORD_HEADER_BYTES))? else {
        return Ok(None);
    };
    let header = RecordHeader::decode(bytes);
    if header.position != position || !header.length_is_plausible() {
        return Ok(None);
    }
    let local = offset + u64::from(header.length) - LOCAL_BYTES;
    Ok(window.get(local, to_usize(LOCAL_BYTES))?.and_then(|bytes| Claim::decode_local(bytes, salt, position)))
}

impl Scan {
    fn note(&mut self, claim: Claim) {
        self.durable_end = self.durable_end.max(claim.durable_end);
        self.committed = self.committed.max(claim.committed);
    }
}
