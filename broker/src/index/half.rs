//! Undecided half messages, what is due for a check, and repeated sends.

use bytes::BufMut;
use sha2::{Digest, Sha256};

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
    /// Writes the row of a new half.
    pub fn put_new(&self, batch: &mut IndexBatch) {
        batch.put_new(table::key1(table::HALF, self.half), self.encode());
    }

    /// Writes the row of a known half.
    pub fn put(&self, batch: &mut IndexBatch) {
        batch.put(table::key1(table::HALF, self.half), self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.group.len() + self.client.len() + self.unique_id.len());
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
    batch.put_new(table::key2(table::DUE, due, half), Vec::new());
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
pub type RepeatKey = [u8; 17];

/// The key of a half with this unique id. A digest, cut to 128 bits: short, and nobody finds two texts with the same one.
pub fn repeat_key(group: &str, topic: &str, unique_id: &str) -> RepeatKey {
    let mut digest = Sha256::new();
    for text in [group, topic, unique_id] {
        // Behind their lengths, so that no two lists of texts are the same bytes.
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    let mut key = [table::REPEAT; 17];
    key[1..].copy_from_slice(&digest.finalize()[..16]);
    key
}

/// What a repeated half send is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// The half that was sent first.
    pub half: u64,
    /// CRC-32 of its body.
    pub body_crc: u32,
    /// Until when a repeat gets its identity, in milliseconds since 1970; 0 while nothing is decided.
    pub ends: u64,
}

impl Repeat {
    /// Remembers the half under its key.
    pub fn put(&self, key: RepeatKey, batch: &mut IndexBatch) {
        let mut value = Vec::with_capacity(20);
        value.put_u64(self.half);
        value.put_u32(self.body_crc);
        value.put_u64(self.ends);
        batch.put(key, value);
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut row = Cursor::new(value);
        Ok(Self { half: row.u64("half")?, body_crc: row.u32("body crc")?, ends: row.u64("end of window")? })
    }

    /// Whether its window has ended at `now`: then it is as if it were not there.
    pub fn has_ended(&self, now: u64) -> bool {
        self.ends != 0 && self.ends < now
    }
}

/// The half that is remembered under a key, even if its window has ended: such rows go when RocksDB merges files.
pub fn get_repeat(index: &Index, key: RepeatKey) -> Result<Option<Repeat>, IndexError> {
    let Some(value) = index.get(key)? else { return Ok(None) };
    Repeat::decode(&value).map(Some).map_err(IndexError::row(table::REPEAT))
}
