//! The open files and what is written to them: records, flushes, marks, zeros.
//!
//! Plain file operations without locks or callbacks; [`super::writer`] decides what is done when.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::disk::DiskFile;
use super::format::{Claim, LOCAL_BYTES, MARK_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::segment::Segment;
use super::shared::Frame;
use super::vote::VoteFile;
use crate::latch::{Broken, Promise};
use crate::planted::{Bug, planted};
use crate::terms::Position;
use crate::terms::to_usize;

/// Records per write call: each takes two of the kernel's 1024 buffers.
const RECORDS_PER_WRITE: usize = 500;
const HEADER: usize = to_usize(RECORD_HEADER_BYTES);
const LOCAL: usize = to_usize(LOCAL_BYTES);
/// Zeros are written in pieces of this size.
const ZERO_CHUNK_BYTES: usize = 256 << 10;

static ZEROS: [u8; ZERO_CHUNK_BYTES] = [0; ZERO_CHUNK_BYTES];

/// The files that are written to.
pub(crate) struct Files {
    pub(crate) active: Option<Active>,
    pub(crate) vote: VoteFile,
    /// Headers and local parts of the records being written; kept to reuse its memory.
    pub(crate) arena: Vec<u8>,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the written records end.
    pub(crate) written: Position,
    /// The file reads as zeros, without need for metadata, from `written` to here.
    pub(crate) zeroed: Position,
    /// The file's allocated length in bytes.
    pub(crate) file_len: u64,
    /// Whether records were written since the last flush.
    pub(crate) unsynced: bool,
}

impl Files {
    /// Writes frames one after the other at the end of the active segment.
    pub(crate) fn write(&mut self, frames: &[Frame], claim: Claim) -> io::Result<()> {
        for frames in frames.chunks(RECORDS_PER_WRITE) {
            self.write_some(frames, claim)?;
        }
        Ok(())
    }

    fn write_some(&mut self, frames: &[Frame], claim: Claim) -> io::Result<()> {
        let Some(first) = frames.first() else {
            return Ok(());
        };
        let active = self.active.as_mut().expect("a roll precedes the first write");
        // Headers and local parts alternate with payloads: h0 [payload 0] l0 h1 [payload 1] l1 ...
        self.arena.clear();
        let mut end = first.position;
        for frame in frames {
            self.arena.extend_from_slice(&frame.header);
            claim.encode_local(active.segment.salt, frame.position, &mut self.arena);
            end = frame.position.advance((HEADER + LOCAL + frame.payload.len()) as u64);
        }
        let mut buffers = Vec::with_capacity(2 * frames.len() + 1);
        let mut from = 0;
        for (nth, frame) in frames.iter().enumerate() {
            let payload_at = nth * (HEADER + LOCAL) + HEADER;
            buffers.push(IoSlice::new(&self.arena[from..payload_at]));
            if !frame.payload.is_empty() {
                buffers.push(IoSlice::new(&frame.payload));
            }
            from = payload_at;
        }
        buffers.push(IoSlice::new(&self.arena[from..]));
        active.unsynced = true;
        active.file.write_vectored_at(&buffers, active.segment.offset_of(first.position))?;
        active.written = end;
        Ok(())
    }

    /// Checks the place of records that are about to be written: each must begin where the one before ends, in the
    /// active segment. Describes the first one that does not.
    pub(crate) fn gap(&self, frames: &[Frame]) -> Option<Broken> {
        let mut next = match (&self.active, frames) {
            (_, []) => return None,
            (Some(active), _) => active.written,
            (None, [first, ..]) => first.position,
        };
        for frame in frames {
            if frame.position != next || self.active.is_none() {
                let found = format!("a record at {} would be written at {next}", frame.position);
                let position = Some(frame.position);
                return Some(Broken { promise: Promise::PositionsRise, entry: None, position, found });
            }
            next = next.advance((HEADER + LOCAL + frame.payload.len()) as u64);
        }
        None
    }

    /// Flushes the active segment if it has anything to flush.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        match &mut self.active {
            Some(active) if active.unsynced => {
                match active.file.sync_data() {
                    Err(_) if planted(Bug::FailedFlushIgnored) => {}
                    result => result?,
                }
                active.unsynced = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes the mark after the last record. Not flushed: if it is lost, recovery merely knows less.
    pub(crate) fn mark(&self, claim: Claim) -> io::Result<()> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        let offset = active.segment.offset_of(active.written);
        if offset + MARK_BYTES > active.file_len {
            return Ok(());
        }
        let mark = claim.encode_mark(active.segment.salt, active.written);
        active.file.write_vectored_at(&[IoSlice::new(&mark)], offset)
    }

    /// Fills the file with zeros up to `ahead` bytes beyond the last record, and flushes, so that the next
    /// flushes have data to write and no metadata.
    pub(crate) fn zero_ahead(&mut self, ahead: u64) -> io::Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let limit = active.segment.start.advance(active.file_len.saturating_sub(SEGMENT_HEADER_BYTES));
        let to = active.written.advance(ahead).min(limit);
        let mut from = active.zeroed.max(active.written);
        if from.since(active.written) > ahead / 8 || from >= to {
            return Ok(());
        }
        while from < to {
            let len = to.since(from).min(ZERO_CHUNK_BYTES as u64);
            active.file.write_vectored_at(&[IoSlice::new(&ZEROS[..to_usize(len)])], active.segment.offset_of(from))?;
            from = from.advance(len);
        }
        active.file.sync_data()?;
        active.zeroed = to;
        Ok(())
    }
}
