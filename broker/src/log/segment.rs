//! A segment as readers see it: a file, where it starts, and a sparse index from record index to position.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};
use super::format::{Link, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES};
use super::window::Window;
use crate::terms::to_usize;
use crate::terms::{LogIndex, Position};

/// One entry of the sparse index is kept per this many bytes of log.
const SPARSE_STEP_BYTES: u64 = 32 << 10;

/// A segment file.
pub(crate) struct Segment {
    /// Position of the first record.
    pub(crate) start: Position,
    /// The record before the first one.
    pub(crate) previous: Option<Link>,
    /// Seeds the checksums of this file's local parts and marks.
    pub(crate) salt: u64,
    /// Index of the first record. Known before there is one, except in the first segment of a new log.
    pub(crate) first_index: LogIndex,
    pub(crate) path: PathBuf,
    /// Opened when first needed.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Some (index, position) pairs in rising order; `None` until the segment has been walked through.
    sparse: Mutex<Option<Vec<(LogIndex, Position)>>>,
}

/// The identity of a segment before it is opened.
pub(crate) struct SegmentPlace {
    pub(crate) start: Position,
    pub(crate) previous: Option<Link>,
    pub(crate) salt: u64,
    pub(crate) first_index: LogIndex,
    pub(crate) path: PathBuf,
}

impl Segment {
    /// A segment whose records are noted as they are appended.
    pub(crate) fn fresh(place: SegmentPlace, file: Arc<dyn DiskFile>) -> Segment {
        Segment::new(place, Some(file), Some(Vec::new()))
    }

    /// A segment of earlier days, opened and walked through when somebody reads it.
    pub(crate) fn sealed(place: SegmentPlace) -> Segment {
        Segment::new(place, None, None)
    }

    fn new(place: SegmentPlace, file: Option<Arc<dyn DiskFile>>, sparse: Option<Vec<(LogIndex, Position)>>) -> Segment {
        Segment {
            start: place.start,
            previous: place.previous,
            salt: place.salt,
            first_index: place.first_index,
            path: place.path,
            file: Mutex::new(file),
            sparse: Mutex::new(sparse),
        }
    }

    /// The offset in the file of a position within this segment.
    pub(crate) fn offset_of(&self, position: Position) -> u64 {
        SEGMENT_HEADER_BYTES + position.since(self.start)
    }

    /// The open file.
    pub(crate) fn file(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        self.file_or_open(disk).map(|(file, _)| file)
    }

    /// The open file, and whether it had to be opened.
    pub(crate) fn file_or_open(&self, disk: &dyn Disk) -> io::Result<(Arc<dyn DiskFile>, bool)> {
        let mut file = self.file.lock();
        if let Some(open) = &*file {
            return Ok((Arc::clone(open), false));
        }
        let open = disk.open(&self.path).map_err(|error| {
            io::Error::new(error.kind(), format!("log file {} cannot be opened: {error}", self.path.display()))
        })?;
        *file = Some(Arc::clone(&open));
        Ok((open, true))
    }

    /// Closes the file until it is needed again. Reads in progress keep their handle.
    pub(crate) fn close_file(&self) {
        *self.file.lock() = None;
    }

    /// Notes a record that has been appended or found by recovery.
    pub(crate) fn note(&self, index: LogIndex, position: Position) {
        if let Some(sparse) = &mut *self.sparse.lock() {
            note(sparse, self.start, index, position);
        }
    }

    /// Forgets records at or after `cut`.
    pub(crate) fn cut(&self, cut: Position) {
        if let Some(sparse) = &mut *self.sparse.lock() {
            sparse.retain(|(_, position)| *position < cut);
        }
    }

    /// A record at or before `index`, near it: its index and position. `end` is where this segment's
    /// records end.
    pub(crate) fn near(&self, disk: &dyn Disk, index: LogIndex, end: Position) -> io::Result<(LogIndex, Position)> {
        if self.sparse.lock().is_none() {
            // Walked through without the lock: two readers may do it at once, with the same result.
            let walked = self.walk(disk, end)?;
            self.sparse.lock().get_or_insert(walked);
        }
        let sparse = self.sparse.lock();
        let entries = sparse.as_deref().unwrap_or_default();
        let after = entries.partition_point(|(noted, _)| *noted <= index);
        Ok(after.checked_sub(1).map_or((self.first_index, self.start), |at| entries[at]))
    }

    /// Builds the sparse index by hopping from header to header. Checksums are left to the read that follows.
    fn walk(&self, disk: &dyn Disk, end: Position) -> io::Result<Vec<(LogIndex, Position)>> {
        let file = self.file(disk)?;
        let mut window = Window::new(&*file, to_usize(SPARSE_STEP_BYTES))?;
        let mut sparse = Vec::new();
        let mut position = self.start;
        while position < end {
            let header = window
                .get(self.offset_of(position), to_usize(RECORD_HEADER_BYTES))?
                .map(RecordHeader::decode)
                .filter(|header| header.length_is_plausible() && header.position == position)
                .ok_or_else(|| self.damaged(position, "no record where one should begin"))?;
            note(&mut sparse, self.start, header.index, position);
            position = position.advance(u64::from(header.length));
        }
        Ok(sparse)
    }

    /// An error that names the place of the damage.
    pub(crate) fn damaged(&self, position: Position, why: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "log file {} is damaged at byte {} (position {position}): {why}",
                self.path.display(),
                self.offset_of(position)
            ),
        )
    }
}

fn note(sparse: &mut Vec<(LogIndex, Position)>, start: Position, index: LogIndex, position: Position) {
    let last = sparse.last().map_or(start, |(_, position)| *position);
    if sparse.is_empty() || position.since(last) >= SPARSE_STEP_BYTES {
        sparse.push((index, position));
    }
}
