//! Undecided half messages, what is due for a check, and repeated sends.

use bytes::{BufMut, BytesMut};

use super::store::{Index, IndexBatch, IndexError};
use super::table;
use crate::shard::{Cursor, Malformed, ParkReason, QueueId, When, put_text};

const VERSION: u8 = 1;

/// A half message without a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfRow {
    /// The half id: its position at Prepare. The key.
    pub half: u64,
    /// Its dense counter.
    pub counter: u64,
    /// Where its unit is now.
    pub position: u64,
    /// Length of its unit.
    pub length: u32,
    /// The queue that it enters when committed.
    pub queue: QueueId,
    /// Hash of its tag.
    pub tag_hash: i32,
    /// When it becomes visible, counted from the commit.
    pub when: When,
    /// Its own wait before the first check, in milliseconds.
    pub immunity: Option<u64>,
    /// First half of its transaction, if it is not a transaction of its own.
    pub first_half: Option<u64>,
    /// When it was prepared, in milliseconds since 1970.
    pub prepared_at: u64,
    /// When the next check is due, in milliseconds since 1970; 0 while the first check, by order, is not done.
    pub next_due: u64,
    /// Checks sent that count.
    pub checks: u32,
    /// Why it is parked, and since when; `None` while it is open.
    pub parked: Option<(ParkReason, u64)>,
    /// How long after its decision a repeat still gets its identity, in milliseconds.
    pub duplicate_window: u64,
    /// CRC-32 of its body.
    pub body_crc: u32,
    /// The producer group that is asked.
    pub group: String,
    /// The client that sent it.
    pub client: String,
    /// Its unique key; may be empty.
    pub unique_id: String,
    /// Who parked it, for an operator.
    pub parked_by: String,
}

impl HalfRow {
    /// Writes the row.
    pub fn put(&self, batch: &mut IndexBatch) {
        batch.put(table::key1(table::HALF, self.half), self.encode());
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(128 + self.group.len() + self.client.len() + self.unique_id.len());
        out.put_u8(VERSION);
        out.put_u64(self.counter);
        out.put_u64(self.position);
        out.put_u32(self.length);
        out.put_u32(self.queue.0);
        out.put_i32(self.tag_hash);
        let (kind, value) = match self.when {
            When::Now => (0, 0),
            When::After(millis) => (1, millis),
            When::At(millis) => (2, millis),
        };
        out.put_u8(kind);
        out.put_u64(value);
        for optional in [self.immunity, self.first_half] {
            out.put_u8(u8::from(optional.is_some()));
            out.put_u64(optional.unwrap_or_default());
        }
        out.put_u64(self.prepared_at);
        out.put_u64(self.next_due);
        out.put_u32(self.checks);
        let (reason, since) = self.parked.map_or((0, 0), |(reason, since)| (reason as u8, since));
        out.put_u8(reason);
        out.put_u64(since);
        out.put_u64(self.duplicate_window);
        out.put_u32(self.body_crc);
        for text in [&self.group, &self.client, &self.unique_id, &self.parked_by] {
            put_text(&mut out, text);
        }
        out
    }

    pub(super) fn decode(half: u64, value: &[u8]) -> Result<Self, Malformed> {
        let mut row = Cursor::new(value);
        if row.u8("half version")? != VERSION {
            return Err(row.malformed("half version"));
        }
        let counter = row.u64("counter")?;
        let position = row.u64("position")?;
        let length = row.u32("length")?;
        let queue = QueueId(row.u32("queue")?);
        let tag_hash = row.u32("tag hash")?.cast_signed();
        let kind = row.u8("when")?;
        let value = row.u64("when")?;
        let when = match kind {
            0 => When::Now,
            1 => When::After(value),
            2 => When::At(value),
            _ => return Err(row.malformed("when")),
        };
        let mut optional = || -> Result<Option<u64>, Malformed> {
            let present = row.u8("flag")? != 0;
            let value = row.u64("value")?;
            Ok(present.then_some(value))
        };
        let immunity = optional()?;
        let first_half = optional()?;
        let prepared_at = row.u64("prepared at")?;
        let next_due = row.u64("next due")?;
        let checks = row.u32("checks")?;
        let reason = ParkReason::from_u8(row.u8("parked")?);
        let since = row.u64("parked since")?;
        let duplicate_window = row.u64("duplicate window")?;
        let body_crc = row.u32("body crc")?;
        let mut text = || row.text("text").map(str::to_owned);
        Ok(Self {
            half,
            counter,
            position,
            length,
            queue,
            tag_hash,
            when,
            immunity,
            first_half,
            prepared_at,
            next_due,
            checks,
            parked: reason.map(|reason| (reason, since)),
            duplicate_window,
            body_crc,
            group: text()?,
            client: text()?,
            unique_id: text()?,
            parked_by: text()?,
        })
    }
}

/// The undecided half with this id.
pub fn get(index: &Index, half: u64) -> Result<Option<HalfRow>, IndexError> {
    index
        .get(table::key1(table::HALF, half))?
        .map(|value| HalfRow::decode(half, &value).map_err(IndexError::row(table::HALF)))
        .transpose()
}

/// Calls `each` with the undecided halves from id `from` on, in order, until it says stop.
pub fn scan(index: &Index, from: u64, mut each: impl FnMut(HalfRow) -> bool) -> Result<(), IndexError> {
    for row in index.scan_prefix(&[table::HALF], &table::key1(table::HALF, from)) {
        let (key, value) = row?;
        let half = table::number_of_key1(&key).unwrap_or_default();
        if !each(HalfRow::decode(half, &value).map_err(IndexError::row(table::HALF))?) {
            break;
        }
    }
    Ok(())
}

/// Removes an undecided half.
pub fn delete(batch: &mut IndexBatch, half: u64) {
    batch.delete(table::key1(table::HALF, half));
}

/// Makes a half due at a time.
pub fn put_due(batch: &mut IndexBatch, due: u64, half: u64) {
    batch.put(table::key2(table::DUE, due, half), []);
}

/// Takes a due time back.
pub fn delete_due(batch: &mut IndexBatch, due: u64, half: u64) {
    batch.delete(table::key2(table::DUE, due, half));
}

/// Calls `each` with `(due, half id)` of the halves due from `from` up to `upto`, earliest first, until it says stop.
pub fn scan_due(
    index: &Index,
    from: u64,
    upto: u64,
    mut each: impl FnMut(u64, u64) -> Result<bool, IndexError>,
) -> Result<(), IndexError> {
    let low = table::key2(table::DUE, from, 0);
    let high = table::key2(table::DUE, upto.saturating_add(1), 0);
    for row in index.scan(&low, &high) {
        let (due, half) = table::numbers_of_key2(&row?.0).unwrap_or_default();
        if !each(due, half)? {
            break;
        }
    }
    Ok(())
}

/// The earliest due time at or after `from`.
pub fn next_due(index: &Index, from: u64) -> Result<Option<u64>, IndexError> {
    let low = table::key2(table::DUE, from, 0);
    let row = index.scan_prefix(&[table::DUE], &low).next().transpose()?;
    Ok(row.and_then(|(key, _)| table::numbers_of_key2(&key)).map(|(due, _)| due))
}

/// The key under which a half send is recognised when it is repeated.
pub fn open_key(group: &str, topic: &str, unique_id: &str) -> Vec<u8> {
    table::key_of_texts(table::OPEN, &[group, topic, unique_id])
}

/// Remembers a half under its unique id.
pub fn put_open(batch: &mut IndexBatch, key: &[u8], half: u64, body_crc: u32) {
    let mut value = BytesMut::with_capacity(12);
    value.put_u64(half);
    value.put_u32(body_crc);
    batch.put(key, &value);
}

/// The half id and body checksum remembered under a key.
pub fn get_open(index: &Index, key: &[u8]) -> Result<Option<(u64, u32)>, IndexError> {
    let Some(value) = index.get(key)? else { return Ok(None) };
    decode_open(&value).map(Some).map_err(IndexError::row(table::OPEN))
}

pub(super) fn decode_open(value: &[u8]) -> Result<(u64, u32), Malformed> {
    let mut cursor = Cursor::new(value);
    Ok((cursor.u64("half")?, cursor.u32("body crc")?))
}

/// Lets the key of a decided half go at a time.
pub fn put_open_end(batch: &mut IndexBatch, end: u64, half: u64, key: &[u8]) {
    batch.put(table::key2(table::OPEN_END, end, half), key);
}

/// A duplicate window that has ended.
#[derive(Debug)]
pub struct EndedWindow {
    /// The window's own row.
    pub row: Box<[u8]>,
    /// The key under which the half was recognised.
    pub open_key: Box<[u8]>,
    /// The half.
    pub half: u64,
}

/// The windows that ended before `before`, at most `limit`.
pub fn ended_opens(index: &Index, before: u64, limit: usize) -> Result<Vec<EndedWindow>, IndexError> {
    let low = table::key2(table::OPEN_END, 0, 0);
    let high = table::key2(table::OPEN_END, before, 0);
    index
        .scan(&low, &high)
        .take(limit)
        .map(|row| {
            row.map(|(row, open_key)| {
                let half = table::numbers_of_key2(&row).unwrap_or_default().1;
                EndedWindow { row, open_key, half }
            })
        })
        .collect()
}

/// When the first duplicate window of a decided half ends, in milliseconds since 1970.
pub fn first_open_end(index: &Index) -> Result<Option<u64>, IndexError> {
    let row = index.scan_prefix(&[table::OPEN_END], &[table::OPEN_END]).next().transpose()?;
    Ok(row.and_then(|(key, _)| table::numbers_of_key2(&key)).map(|(end, _)| end))
}
