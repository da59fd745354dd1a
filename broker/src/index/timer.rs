//! Messages that wait for their time, and where they went.

use bytes::BufMut;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::pin;
use super::queue::EntryFlags;
use super::reader::IndexReader;
use super::table;
use crate::terms::{Cursor, HalfId, Malformed, PinOwner, Position, QueueId, QueueOffset, Stamp};

const VERSION: u8 = 1;

/// A message that waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerRow {
    /// When it is due.
    pub due: Stamp,
    /// Log position of its unit.
    pub position: Position,
    /// The queue that it enters.
    pub queue: QueueId,
    /// Length of its unit.
    pub length: u32,
    /// Hash of its tag.
    pub tag_hash: i32,
    /// Its kind.
    pub flags: EntryFlags,
    /// For a committed transactional message: its half id.
    pub half: HalfId,
}

impl TimerRow {
    /// Writes the row and pins the bytes.
    pub fn put(&self, batch: &mut IndexBatch) {
        let mut out = Vec::with_capacity(32);
        out.put_u8(VERSION);
        out.put_u32(self.queue.0);
        out.put_u32(self.length);
        out.put_i32(self.tag_hash);
        out.put_u8(self.flags.bits());
        out.put_u64(self.half.get());
        batch.put_new(table::key2(table::TIMER, self.due.get(), self.position.get()), out);
        pin::put(batch, self.position, PinOwner::Timer { due: self.due });
    }

    /// Removes the row, because its time has come, and remembers where the message went.
    pub fn fired(&self, batch: &mut IndexBatch, offset: QueueOffset, queue: QueueId) {
        self.delete(batch);
        if queue == self.queue {
            batch.put(table::key1(table::FIRED, self.position.get()), offset.get().to_be_bytes());
        } else {
            put_moved(batch, self.position, offset, queue);
        }
    }

    /// Removes the row: the message is never seen.
    pub fn delete(&self, batch: &mut IndexBatch) {
        batch.delete(table::key2(table::TIMER, self.due.get(), self.position.get()));
        pin::delete(batch, self.position);
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut row = Cursor::new(value);
        let (due, position) = table::numbers_of_key2(key).ok_or_else(|| row.malformed("timer key"))?;
        if row.u8("timer version")? != VERSION {
            return Err(row.malformed("timer version"));
        }
        Ok(Self {
            due: Stamp(due),
            position: Position(position),
            queue: QueueId(row.u32("queue")?),
            length: row.u32("length")?,
            tag_hash: row.u32("tag hash")?.cast_signed(),
            flags: EntryFlags::from_bits(row.u8("flags")?),
            half: HalfId(row.u64("half")?),
        })
    }
}

/// The timers due at or before `upto`, earliest first, at most `limit`.
pub(crate) fn due(index: &IndexReader, from: Stamp, upto: Stamp, limit: usize) -> Result<Vec<TimerRow>, IndexError> {
    let low = table::key2(table::TIMER, from.get(), 0);
    let high = table::key2(table::TIMER, upto.saturating_add(1).get(), 0);
    index
        .scan(&low, &high)
        .take(limit)
        .map(|row| row.and_then(|(key, value)| TimerRow::decode(&key, &value).map_err(IndexError::row(table::TIMER))))
        .collect()
}

/// The timer with this due time and position.
pub(crate) fn get(index: &IndexReader, due: Stamp, position: Position) -> Result<Option<TimerRow>, IndexError> {
    let key = table::key2(table::TIMER, due.get(), position.get());
    let Some(value) = index.get(key)? else { return Ok(None) };
    TimerRow::decode(&key, &value).map(Some).map_err(IndexError::row(table::TIMER))
}

/// The earliest due time at or after `from`.
pub(crate) fn next_due(index: &IndexReader, from: Stamp) -> Result<Option<Stamp>, IndexError> {
    let low = table::key2(table::TIMER, from.get(), 0);
    let row = index.scan_prefix(&[table::TIMER], &low).next().transpose()?;
    Ok(row.and_then(|(key, _)| table::numbers_of_key2(&key)).map(|(due, _)| Stamp(due)))
}

/// Forgets where messages went whose bytes lie below a position.
pub(crate) fn forget_fired(batch: &mut IndexBatch, below: Position) {
    batch.delete_range(table::key1(table::FIRED, 0), table::key1(table::FIRED, below.get()));
}

/// Remembers where a message went that entered another queue than the one it was sent to.
pub(crate) fn put_moved(batch: &mut IndexBatch, position: Position, offset: QueueOffset, queue: QueueId) {
    let mut value = Vec::with_capacity(12);
    value.put_u64(offset.get());
    value.put_u32(queue.0);
    batch.put(table::key1(table::FIRED, position.get()), value);
}

/// Where a message went that waited, and is visible now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fired {
    /// Its queue offset.
    pub offset: QueueOffset,
    /// The queue, if it is another one than the message was sent to.
    pub queue: Option<QueueId>,
}

/// Where the message at a position went that waited for its time, or for its commit while its topic shrank.
pub(crate) fn fired(index: &IndexReader, position: Position) -> Result<Option<Fired>, IndexError> {
    let Some(value) = index.get(table::key1(table::FIRED, position.get()))? else { return Ok(None) };
    decode_fired(&value).map(Some).map_err(IndexError::row(table::FIRED))
}

pub(super) fn decode_fired(value: &[u8]) -> Result<Fired, Malformed> {
    let mut row = Cursor::new(value);
    let offset = QueueOffset(row.u64("fired offset")?);
    let queue = if row.remaining() == 0 { None } else { Some(QueueId(row.u32("fired queue")?)) };
    if row.remaining() == 0 { Ok(Fired { offset, queue }) } else { Err(row.malformed("end of fired row")) }
}
