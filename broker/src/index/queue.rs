//! Queue pages: where the messages of a queue are.
//!
//! Apply writes the entries that a queue got in one apply call together, and what comes until the next flush of the index
//! goes into the same page as long as it is small: a busy queue has few large pages. Key: queue id, offset of the page's first entry; the page of an offset is found by seeking backwards.
//!
//! Value: `version u8 | visible at u64 | entries`, an entry being `position u64 | length u32 | tag hash i32 | store time
//! u64 | flags u8 | half id u64 if the flags say so`. `visible at` is the log position of the record that made the first
//! entry visible; it rises from page to page, so that a position is found by binary search.

use bytes::BufMut;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::reader::IndexReader;
use super::table;
use crate::terms::{Cursor, HalfId, Malformed, Position, QueueId, QueueOffset, Stamp};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 9;
const ENTRY_BYTES: usize = 25;
/// The bytes that all keys of a queue's pages begin with.
const QUEUE_KEY_BYTES: usize = 5;

/// The kind of message that an entry points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryFlags(u8);

impl EntryFlags {
    /// An ordinary message.
    pub const PLAIN: Self = Self(0);
    /// A committed transactional message.
    pub const COMMITTED: Self = Self(1);
    /// A message that waited for its time.
    pub const FIRED: Self = Self(2);
    const HALF_ELSEWHERE: u8 = 0x80;

    /// Both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is a committed transactional message.
    pub fn is_committed(self) -> bool {
        self.0 & Self::COMMITTED.0 != 0
    }

    /// Whether it waited for its time.
    pub fn is_fired(self) -> bool {
        self.0 & Self::FIRED.0 != 0
    }

    /// The stored form.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From the stored form.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// One message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    /// Its number in the queue.
    pub offset: QueueOffset,
    /// Log position of its unit.
    pub position: Position,
    /// Length of its unit.
    pub length: u32,
    /// Hash of its tag, 0 without one.
    pub tag_hash: i32,
    /// When it entered the queue.
    pub store_time: Stamp,
    /// The kind of message.
    pub flags: EntryFlags,
    /// For a committed transactional message: its half id. Equal to the position unless the bytes were moved.
    pub half: HalfId,
}

/// A page while entries are added to it.
#[derive(Debug)]
pub(crate) struct PageBuilder {
    /// Offset of the first entry.
    pub first_offset: QueueOffset,
    count: u64,
    message_bytes: u64,
    bytes: Vec<u8>,
}

impl PageBuilder {
    /// An empty page.
    pub(crate) fn new(first_offset: QueueOffset, visible_at: Position) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + ENTRY_BYTES);
        bytes.put_u8(VERSION);
        bytes.put_u64(visible_at.get());
        Self { first_offset, count: 0, message_bytes: 0, bytes }
    }

    /// Adds an entry and says its offset; `entry.offset` is ignored.
    pub(crate) fn push(&mut self, entry: &QueueEntry) -> QueueOffset {
        let elsewhere = entry.flags.is_committed() && entry.half.position() != entry.position;
        self.bytes.put_u64(entry.position.get());
        self.bytes.put_u32(entry.length);
        self.bytes.put_i32(entry.tag_hash);
        self.bytes.put_u64(entry.store_time.get());
        self.bytes.put_u8(entry.flags.bits() | if elsewhere { EntryFlags::HALF_ELSEWHERE } else { 0 });
        if elsewhere {
            self.bytes.put_u64(entry.half.get());
        }
        let offset = self.next_offset();
        self.message_bytes += u64::from(entry.length);
        self.count += 1;
        offset
    }

    /// Bytes of the messages that its entries point at.
    pub(crate) fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    /// The offset of the next entry.
    pub(crate) fn next_offset(&self) -> QueueOffset {
        self.first_offset + self.count
    }

    /// Writes the page: as a part of the queue's last one, as long as that is in memory and small.
    pub(crate) fn put(self, queue: QueueId, batch: &mut IndexBatch) {
        if self.count > 0 {
            batch.append(page_key(queue, self.first_offset), QUEUE_KEY_BYTES, self.bytes, HEAD_BYTES);
        }
    }
}

fn page_key(queue: QueueId, offset: QueueOffset) -> [u8; 13] {
    let mut key = [table::QUEUE; 13];
    key[1..5].copy_from_slice(&queue.0.to_be_bytes());
    key[5..].copy_from_slice(&offset.get().to_be_bytes());
    key
}

/// Keys from the first to above the last page of a queue.
fn bounds(queue: QueueId) -> ([u8; 13], [u8; 14]) {
    let mut above = [0xff; 14];
    above[..13].copy_from_slice(&page_key(queue, QueueOffset::MAX));
    (page_key(queue, QueueOffset::ZERO), above)
}

fn page_offset(key: &[u8]) -> Option<QueueOffset> {
    page_id(key).map(|(_, offset)| offset)
}

/// The queue and the first offset of a page.
fn page_id(key: &[u8]) -> Option<(QueueId, QueueOffset)> {
    let (queue, offset) = key.get(1..).filter(|rest| rest.len() == 12)?.split_at(4);
    let offset = QueueOffset(u64::from_be_bytes(offset.try_into().ok()?));
    Some((QueueId(u32::from_be_bytes(queue.try_into().ok()?)), offset))
}

pub(super) struct Page<'a> {
    first_offset: QueueOffset,
    visible_at: Position,
    entries: Cursor<'a>,
}

impl<'a> Page<'a> {
    pub(super) fn decode(key: &[u8], value: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(value);
        let first_offset = page_offset(key).ok_or_else(|| cursor.malformed("page key"))?;
        if cursor.u8("page version")? != VERSION {
            return Err(cursor.malformed("page version"));
        }
        let visible_at = Position(cursor.u64("visible at")?);
        // Each entry has several bytes: none of its offsets, nor the one after the last, is beyond the largest number.
        if first_offset.get().checked_add(cursor.remaining() as u64).is_none() {
            return Err(cursor.malformed("first offset"));
        }
        Ok(Self { first_offset, visible_at, entries: cursor })
    }

    /// The offset after its last entry.
    fn end(self) -> Result<QueueOffset, Malformed> {
        let mut end = self.first_offset;
        self.entries(|_| {
            end = end.next();
            true
        })?;
        Ok(end)
    }

    /// Calls `each` with every entry until it says stop.
    pub(super) fn entries(mut self, mut each: impl FnMut(QueueEntry) -> bool) -> Result<bool, Malformed> {
        let mut offset = self.first_offset;
        while self.entries.remaining() > 0 {
            let position = Position(self.entries.u64("position")?);
            let length = self.entries.u32("length")?;
            let tag_hash = self.entries.u32("tag hash")?.cast_signed();
            let store_time = Stamp(self.entries.u64("store time")?);
            let bits = self.entries.u8("flags")?;
            let is_elsewhere = bits & EntryFlags::HALF_ELSEWHERE != 0;
            let half = if is_elsewhere { HalfId(self.entries.u64("half")?) } else { HalfId::at(position) };
            let flags = EntryFlags::from_bits(bits & !EntryFlags::HALF_ELSEWHERE);
            if !each(QueueEntry { offset, position, length, tag_hash, store_time, flags, half }) {
                return Ok(false);
            }
            offset = offset.next();
        }
        Ok(true)
    }
}

/// Calls `each` with the entries of a queue from `from` on, in order, until it says stop or there are no more.
pub(crate) fn scan(
    index: &IndexReader,
    queue: QueueId,
    from: QueueOffset,
    mut each: impl FnMut(QueueEntry) -> bool,
) -> Result<(), IndexError> {
    // The newest entries are in memory alone.
    if scan_memory(index, queue, from, &mut each)? {
        return Ok(());
    }
    scan_files(index, queue, from, each)
}

/// Like [`scan`], if the entry at `from` is in memory; answers whether it is. `each` must be short.
pub(crate) fn scan_memory(
    index: &IndexReader,
    queue: QueueId,
    from: QueueOffset,
    mut each: impl FnMut(QueueEntry) -> bool,
) -> Result<bool, IndexError> {
    let (low, high) = bounds(queue);
    let mut result = Ok(());
    let found = index.scan_memory(&low, &page_key(queue, from), &high, |key, value| {
        read_page(key, value, from, &mut each).unwrap_or_else(|error| {
            result = Err(error);
            false
        })
    });
    result.map(|()| found)
}

/// Like [`scan`], wherever the entries are: what begins in files may go on in memory.
pub(crate) fn scan_files(
    index: &IndexReader,
    queue: QueueId,
    from: QueueOffset,
    mut each: impl FnMut(QueueEntry) -> bool,
) -> Result<(), IndexError> {
    let (low, high) = bounds(queue);
    let mut rows = index.cursor(&low, &page_key(queue, from), &high)?;
    while let Some((key, value)) = rows.row() {
        if !read_page(key, value, from, &mut each)? {
            break;
        }
        rows.advance()?;
    }
    Ok(())
}

fn read_page(
    key: &[u8],
    value: &[u8],
    from: QueueOffset,
    each: &mut impl FnMut(QueueEntry) -> bool,
) -> Result<bool, IndexError> {
    let page = Page::decode(key, value);
    let read = page.and_then(|page| page.entries(|entry| entry.offset < from || each(entry)));
    read.map_err(IndexError::row(table::QUEUE))
}

/// Calls `each` with every queue that has a page, its first offset that is kept and the offset after its last one.
///
/// Costs a step or two for each queue, however many pages it has.
pub(crate) fn for_all_ends(
    index: &IndexReader,
    mut each: impl FnMut(QueueId, QueueOffset, QueueOffset),
) -> Result<(), IndexError> {
    let wrong = IndexError::row(table::QUEUE);
    let (low, high) = ([table::QUEUE], [table::QUEUE + 1]);
    let mut rows = index.cursor(&low, &low, &high)?;
    while let Some((key, value)) = rows.row() {
        let (queue, min) = page_id(key).ok_or_else(|| wrong(Cursor::new(key).malformed("page key")))?;
        let only = Page::decode(key, value).and_then(Page::end).map_err(&wrong)?;
        rows.advance()?;
        let more = rows.row().and_then(|(key, _)| page_id(key)).is_some_and(|(next, _)| next == queue);
        if !more {
            each(queue, min, only);
            continue;
        }
        rows.seek_back(page_key(queue, QueueOffset::MAX))?;
        let Some((key, value)) = rows.row() else { break };
        each(queue, min, Page::decode(key, value).and_then(Page::end).map_err(&wrong)?);
        rows.advance()?;
    }
    Ok(())
}

/// The page's first offset and what `probe` says of its `visible at` and first store time.
fn page_facts(
    index: &IndexReader,
    queue: QueueId,
    at: QueueOffset,
) -> Result<Option<(QueueOffset, Position, Stamp)>, IndexError> {
    let (low, _) = bounds(queue);
    let Some((key, value)) = index.last_at_or_below(&low, &page_key(queue, at))? else {
        return Ok(None);
    };
    let page = Page::decode(&key, &value).map_err(IndexError::row(table::QUEUE))?;
    let (first, visible_at) = (page.first_offset, page.visible_at);
    let mut time = Stamp::ZERO;
    page.entries(|entry| {
        time = entry.store_time;
        false
    })
    .map_err(IndexError::row(table::QUEUE))?;
    Ok(Some((first, visible_at, time)))
}

/// The entry of a plain message with this log position, between the offsets `min` and `max`.
pub(crate) fn find_position(
    index: &IndexReader,
    queue: QueueId,
    min: QueueOffset,
    max: QueueOffset,
    position: Position,
) -> Result<Option<QueueEntry>, IndexError> {
    let Some(start) = search_page(index, queue, min, max, |visible_at, _| visible_at <= position)? else {
        return Ok(None);
    };
    let mut found = None;
    let mut first_of_page = true;
    scan(index, queue, start, |entry| {
        if entry.position == position {
            found = Some(entry);
        }
        // Entries of this page only: a plain message lies in the record that made it visible, or a later one of the
        // same apply call, so the scan ends where positions of plain messages have passed it.
        let past = entry.flags == EntryFlags::PLAIN && entry.position > position && !first_of_page;
        first_of_page = false;
        found.is_none() && !past
    })?;
    Ok(found)
}

/// The first offset whose store time is at or after `time`, or `max`.
pub(crate) fn find_time(
    index: &IndexReader,
    queue: QueueId,
    min: QueueOffset,
    max: QueueOffset,
    time: Stamp,
) -> Result<QueueOffset, IndexError> {
    let start = search_page(index, queue, min, max, |_, store_time| store_time < time)?.unwrap_or(min);
    let mut found = max;
    scan(index, queue, start, |entry| {
        if entry.store_time >= time {
            found = entry.offset.min(max);
            return false;
        }
        entry.offset < max
    })?;
    Ok(found)
}

/// First offset of the last page between `min` and `max` for which `below(visible at, first store time)` holds; the
/// pages for which it holds come first.
fn search_page(
    index: &IndexReader,
    queue: QueueId,
    min: QueueOffset,
    max: QueueOffset,
    below: impl Fn(Position, Stamp) -> bool,
) -> Result<Option<QueueOffset>, IndexError> {
    let (mut low, mut high) = (min, max);
    let mut best = None;
    while low < high {
        let middle = low + high.since(low) / 2;
        let Some((first, visible_at, time)) = page_facts(index, queue, middle)? else {
            low = middle.next();
            continue;
        };
        if below(visible_at, time) {
            best = Some(first.max(min));
            low = middle.next();
        } else {
            high = first.min(middle);
        }
    }
    Ok(best)
}

/// The state of a queue after a trim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// The first offset that is kept.
    pub min: QueueOffset,
    /// Log position of that entry; `None` if nothing is left.
    pub oldest: Option<Position>,
}

/// Pages up to this number are removed one by one; more are removed as a range, which costs later readers more.
const SINGLE_DELETES_MAX: usize = 64;

/// Removes the oldest entries of a queue whose bytes lie below `upto`, up to the first one that is kept.
pub(crate) fn trim(
    index: &IndexReader,
    batch: &mut IndexBatch,
    queue: QueueId,
    (min, max): (QueueOffset, QueueOffset),
    upto: Position,
) -> Result<Trimmed, IndexError> {
    let (low, high) = bounds(queue);
    let mut rows = index.cursor(&low, &page_key(queue, min), &high)?;
    let mut gone: Vec<QueueOffset> = Vec::new();
    let mut left = Trimmed { min: max, oldest: None };
    while let Some((key, value)) = rows.row() {
        let page = Page::decode(key, value).map_err(IndexError::row(table::QUEUE))?;
        let first = page.first_offset;
        let all_gone = page
            .entries(|entry| {
                let goes = entry.offset < min || entry.position < upto;
                if !goes {
                    left = Trimmed { min: entry.offset, oldest: Some(entry.position) };
                }
                goes
            })
            .map_err(IndexError::row(table::QUEUE))?;
        if !all_gone {
            break;
        }
        gone.push(first);
        rows.advance()?;
    }
    if gone.len() <= SINGLE_DELETES_MAX {
        for first in gone {
            batch.delete(page_key(queue, first));
        }
    } else if let Some(last) = gone.last() {
        batch.delete_range(page_key(queue, QueueOffset::ZERO), page_key(queue, last.next()));
    }
    Ok(left)
}

/// Removes all pages of a queue.
pub(crate) fn delete_all(batch: &mut IndexBatch, queue: QueueId) {
    let (low, high) = bounds(queue);
    batch.delete_range(low, high);
}

#[cfg(test)]
mod tests {
    use super::super::store::Index;
    use super::*;

    fn entry(position: Position) -> QueueEntry {
        QueueEntry {
            offset: QueueOffset::ZERO,
            position,
            length: 1,
            tag_hash: 0,
            store_time: Stamp(1),
            flags: EntryFlags::PLAIN,
            half: HalfId::at(position),
        }
    }

    fn page(index: &Index, queue: u32, first_offset: u64, entries: u64) {
        let (mut page, mut batch) = (PageBuilder::new(QueueOffset(first_offset), Position(1)), IndexBatch::default());
        for each in 0..entries {
            page.push(&entry(Position(first_offset + each)));
        }
        page.put(QueueId(queue), &mut batch);
        index.write(batch);
    }

    #[test]
    fn a_page_whose_offsets_do_not_fit_is_malformed() {
        let index = Index::in_memory().expect("an index");
        page(&index, 1, u64::MAX - 1, 2);
        let outcome = scan(&index, QueueId(1), QueueOffset(u64::MAX - 1), |_| true);
        assert!(outcome.unwrap_err().to_string().contains("first offset"));
    }

    #[test]
    fn the_ends_of_all_queues_are_those_of_their_pages() {
        let index = Index::in_memory().expect("an index");
        page(&index, 1, 0, 3);
        page(&index, 2, 5, 2);
        page(&index, 2, 7, 1);
        page(&index, 2, 8, 4);
        page(&index, 7, 0, 1);
        page(&index, 7, 1, 1);
        page(&index, u32::MAX, 9, 1);
        // Neighbours in other tables are not looked at.
        let mut others = IndexBatch::default();
        others.put([table::QUEUE - 1; 13], [1]);
        others.put([table::QUEUE + 1; 13], [1]);
        index.write(others);
        for flushed in [false, true] {
            let mut found = Vec::new();
            for_all_ends(&index, |queue, min, max| found.push((queue.0, min.0, max.0))).expect("readable");
            assert_eq!(found, [(1, 0, 3), (2, 5, 12), (7, 0, 2), (u32::MAX, 9, 10)], "flushed: {flushed}");
            index.flush().expect("a flush");
        }
    }

    #[test]
    fn entries_are_found_in_memory_and_in_files() {
        let index = Index::in_memory().expect("an index");
        for round in 0..6 {
            for part in 0..50 {
                page(&index, 3, round * 500 + part * 10, 10);
                page(&index, 4, round * 50 + part, 1);
            }
            for from in (0..(round + 1) * 500).step_by(37) {
                let mut next = from;
                scan(&index, QueueId(3), QueueOffset(from), |entry| {
                    assert_eq!((entry.offset, entry.position), (QueueOffset(next), Position(next)));
                    next += 1;
                    true
                })
                .expect("readable");
                assert_eq!(next, (round + 1) * 500, "from {from}");
            }
            match round % 3 {
                0 => index.freeze(),
                1 => index.spill().expect("a spill"),
                _ => index.flush().expect("a flush"),
            }
        }
        let mut pages = 0;
        index.flush().expect("a flush");
        index
            .for_all(|key, value| {
                pages += 1;
                assert!(key[0] == table::QUEUE || value.len() < 4096);
            })
            .expect("readable");
        assert!(pages < 60, "{pages} pages for 600 parts");
    }
}
