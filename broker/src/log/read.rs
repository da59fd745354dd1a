//! Reading records and payload bytes, from memory if possible, else from the files.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::LogReader;
use super::format::{LOCAL_BYTES, RECORD_HEADER_BYTES, RecordHeader, chained_part_is_good};
use super::record::Record;
use super::segment::Segment;
use crate::terms::to_usize;
use crate::terms::{LogIndex, Position};

/// Bytes read at once for a range of records, unless one record is larger.
const READ_BYTES_MAX: u64 = 4 << 20;

/// How often a read starts over because a truncation ran beside it.
const READ_ATTEMPTS: usize = 8;

impl LogReader {
    /// Reads the records `from..to` (the end excluded), at most `max_bytes` of them, but at least one if
    /// there is one. Ends early at the log's end or at a segment's.
    ///
    /// Checksums of records read from files are verified: [`io::ErrorKind::InvalidData`] names the damaged place.
    /// [`io::ErrorKind::NotFound`]: `from` has been purged. Blocks on the disk if the records are not in memory.
    pub fn read_entries(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> io::Result<Vec<Record>> {
        for _ in 0..READ_ATTEMPTS {
            match self.try_read_entries(from, to, max_bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Like [`read_entries`](Self::read_entries), but only from memory: never blocks, `None` if `from` is not in the tail cache.
    pub fn read_recent(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> Option<Vec<Record>> {
        self.shared.view.read().tail.from(from, to, max_bytes)
    }

    fn try_read_entries(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> io::Result<Vec<Record>> {
        let view = self.shared.view.read();
        let Some(last) = view.last_held().filter(|last| from <= last.index && from < to) else {
            return if from < view.first_index() { Err(purged(from, view.first_index())) } else { Ok(Vec::new()) };
        };
        if from < view.first_index() {
            return Err(purged(from, view.first_index()));
        }
        let to = to.min(last.index.next());
        if let Some(recent) = view.tail.from(from, to, max_bytes) {
            return Ok(recent);
        }
        let (segment, end) = view.segment_of(from).expect("an index that is held lies in a segment");
        // Beyond this point the file may not be written yet, but all of that is in the tail cache.
        let to = view.tail.first_index().map_or(to, |tail| to.min(tail));
        let epoch = view.epoch;
        drop(view);
        let result = self.read_from_file(&segment, end, from, to, max_bytes);
        self.unless_truncated(epoch, result)
    }

    /// Reads `from..to` out of one segment.
    fn read_from_file(
        &self,
        segment: &Arc<Segment>,
        end: Position,
        from: LogIndex,
        to: LogIndex,
        max_bytes: u64,
    ) -> io::Result<Vec<Record>> {
        let disk = &*self.shared.disk;
        let file = self.shared.file_of(segment)?;
        let (mut index, mut position) = segment.near(disk, from, end)?;
        let mut records: Vec<Record> = Vec::new();
        let mut taken = 0;
        let mut wanted = max_bytes.clamp(RECORD_HEADER_BYTES, READ_BYTES_MAX);
        'chunks: while index < to && position < end {
            let len = to_usize(wanted.min(end.since(position)));
            let mut buffer = vec![0; len];
            let read = file.read_at(&mut buffer, segment.offset_of(position))?;
            buffer.truncate(read);
            let chunk = Bytes::from(buffer);
            let mut at = 0;
            while index < to && position < end {
                let rest = &chunk[at..];
                if rest.len() < to_usize(RECORD_HEADER_BYTES) {
                    if at == 0 {
                        return Err(segment.damaged(position, "the file ends within a record"));
                    }
                    break;
                }
                let header = RecordHeader::decode(rest);
                if !header.length_is_plausible()
                    || header.position != position
                    || header.index != index
                    || u64::from(header.length) > end.since(position)
                {
                    return Err(segment.damaged(position, "no record where one should begin"));
                }
                let length = header.length as usize;
                let skipped = index < from;
                if !skipped && taken + length as u64 > max_bytes && !records.is_empty() {
                    break 'chunks;
                }
                if rest.len() < length && !skipped {
                    if !records.is_empty() {
                        break 'chunks;
                    }
                    if at == 0 && (read < len || len >= length) {
                        return Err(segment.damaged(position, "the file ends within a record"));
                    }
                    // The first record is larger than the chunk: read exactly that one.
                    wanted = wanted.max(length as u64);
                    continue 'chunks;
                }
                if !skipped {
                    if !chained_part_is_good(&rest[..length]) {
                        return Err(segment.damaged(position, "a record's checksum is wrong"));
                    }
                    let payload = at + to_usize(RECORD_HEADER_BYTES)..at + length - to_usize(LOCAL_BYTES);
                    records.push(Record {
                        term: header.term,
                        index,
                        kind: header.kind,
                        position,
                        crc: header.crc,
                        payload: chunk.slice(payload),
                    });
                    taken += length as u64;
                }
                index += 1;
                position = position.advance(length as u64);
                at += length;
                if at > chunk.len() {
                    // A skipped record reaches beyond the chunk.
                    continue 'chunks;
                }
            }
        }
        if records.is_empty() {
            return Err(segment.damaged(position, "a record is missing"));
        }
        Ok(records)
    }

    /// Reads `len` payload bytes at `position`, which must lie within one record's payload (see
    /// [`Record::payload_position`]); shared with the tail cache if they are recent, else read from the file.
    /// Bytes from a file are not verified, as the record around them may be much larger.
    ///
    /// Errors: [`io::ErrorKind::NotFound`] below the first position held, [`io::ErrorKind::UnexpectedEof`]
    /// beyond the end. Blocks on the disk if the bytes are not in memory.
    pub fn read(&self, position: Position, len: usize) -> io::Result<Bytes> {
        for _ in 0..READ_ATTEMPTS {
            match self.try_read(position, len) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    fn try_read(&self, position: Position, len: usize) -> io::Result<Bytes> {
        let view = self.shared.view.read();
        if let Some(bytes) = view.tail.read(position, len) {
            return Ok(bytes);
        }
        let first = view.first_position();
        if position < first {
            let why = format!("position {position} is below the first one kept, {first}");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let (segment, end) = view.segment_at(position).ok_or_else(|| beyond(position, len))?;
        let end = end.min(Position(self.shared.written_end.load(Ordering::Acquire)));
        if position.get().checked_add(len as u64).is_none_or(|upto| upto > end.get()) {
            return Err(beyond(position, len));
        }
        let epoch = view.epoch;
        drop(view);
        let result = self.read_exact(&segment, position, len);
        self.unless_truncated(epoch, result)
    }

    fn read_exact(&self, segment: &Arc<Segment>, position: Position, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        let file = self.shared.file_of(segment)?;
        if file.read_at(&mut buffer, segment.offset_of(position))? < len {
            return Err(segment.damaged(position, "the file ends before its last record"));
        }
        Ok(buffer.into())
    }

    /// Closes the files that were opened for reading.
    #[cfg(test)]
    pub(crate) fn close_cold_files(&self) {
        self.shared.close_cold_files();
    }

    /// The part of the log around `position` that its file does not hold: all of the file's if it is missing, or the
    /// part after its end; `None` if the file has the byte, or no file should have it. Blocks on the disk.
    pub fn missing_around(&self, position: Position) -> io::Result<Option<Range<Position>>> {
        let view = self.shared.view.read();
        let Some((segment, end)) = view.segment_at(position).filter(|_| position >= view.first_position()) else {
            return Ok(None);
        };
        let end = end.min(Position(self.shared.written_end.load(Ordering::Acquire)));
        drop(view);
        let length = match self.shared.file_of(&segment) {
            Ok(file) => file.len()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(segment.start..end)),
            Err(error) => return Err(error),
        };
        if segment.offset_of(position) < length || position >= end {
            return Ok(None);
        }
        let held = length.saturating_sub(segment.offset_of(segment.start));
        Ok(Some(segment.start.advance(held)..end))
    }

    /// Like [`read`](Self::read), but only from memory: never blocks, `None` if the bytes are not in the tail cache.
    pub fn read_hot(&self, position: Position, len: usize) -> Option<Bytes> {
        self.shared.view.read().tail.read(position, len)
    }

    /// Fills `buffers`, one after the other, with payload bytes at `position` (see [`read`](Self::read)) if that needs no wait
    /// for the disk: they are in the tail cache, or the system has them in its page cache. Answers whether it did.
    pub fn read_ready(&self, position: Position, buffers: &mut [IoSliceMut<'_>]) -> bool {
        let len: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let view = self.shared.view.read();
        if let Some(bytes) = view.tail.read(position, len) {
            let mut rest = &bytes[..];
            for buffer in buffers {
                let (part, after) = rest.split_at(buffer.len());
                buffer.copy_from_slice(part);
                rest = after;
            }
            return true;
        }
        let Some((segment, end)) = view.segment_at(position).filter(|_| position >= view.first_position()) else {
            return false;
        };
        let end = end.min(Position(self.shared.written_end.load(Ordering::Acquire)));
        if position.get().checked_add(len as u64).is_none_or(|upto| upto > end.get()) {
            return false;
        }
        let epoch = view.epoch;
        drop(view);
        let Ok(file) = self.shared.file_of(&segment) else { return false };
        file.read_cached(buffers, segment.offset_of(position)) && self.shared.view.read().epoch == epoch
    }

    /// The term of the record with `index`; also that of the last purged record. `None` outside of that.
    /// Blocks on the disk if the record is old and its segment holds several terms.
    pub fn term_of(&self, index: LogIndex) -> io::Result<Option<u64>> {
        let view = self.shared.view.read();
        if let Some(record) = view.tail.get(index) {
            return Ok(Some(record.term));
        }
        match (view.purged(), view.last) {
            (Some(purged), _) if purged.index == index => return Ok(Some(purged.term)),
            (_, Some(last)) if index >= view.first_index() && index <= last.index => {
                let at = view.segments.partition_point(|segment| segment.first_index <= index) - 1;
                let before = view.segments[at].previous.map(|link| link.term);
                let after: Option<&Arc<Segment>> = view.segments.get(at + 1);
                let last_term = after.and_then(|next| next.previous).unwrap_or(last).term;
                // Terms never fall, so equal terms at both ends settle it.
                if before == Some(last_term) || after.and_then(|next| next.previous).unwrap_or(last).index == index {
                    return Ok(Some(last_term));
                }
            }
            _ => return Ok(None),
        }
        drop(view);
        Ok(self.read_entries(index, index + 1, 0)?.first().map(|record| record.term))
    }

    fn unless_truncated<T>(&self, epoch: u64, result: io::Result<T>) -> io::Result<T> {
        if self.shared.view.read().epoch == epoch { result } else { Err(io::ErrorKind::Interrupted.into()) }
    }
}

fn purged(index: LogIndex, first: LogIndex) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("record {index} has been purged, the first one is {first}"))
}

fn beyond(position: Position, len: usize) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{len} bytes at position {position} lie beyond the log's end"))
}
