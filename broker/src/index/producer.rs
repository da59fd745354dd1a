//! Producer groups: the numbers that stand for them in keys, and how many undecided halves they have.

use bytes::BufMut;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::reader::IndexReader;
use super::table;
use crate::terms::{Cursor, Malformed, Stamp, put_text};

const VERSION: u8 = 1;

/// A producer group that has sent half messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    /// Its number. The key.
    pub id: u32,
    /// Undecided halves that are not parked.
    pub open: u64,
    /// Parked halves.
    pub parked: u64,
    /// Those of them that are further halves of their transactions: open ones and parked ones. Written where there are
    /// some, after the rest: older programs pass over it.
    pub further: [u64; 2],
    /// When its halves changed last.
    pub used_at: Stamp,
    /// Its name.
    pub name: String,
}

impl ProducerRow {
    /// Writes the row.
    pub(crate) fn put(&self, batch: &mut IndexBatch) {
        let mut value = Vec::with_capacity(32 + self.name.len());
        value.put_u8(VERSION);
        value.put_u64(self.open);
        value.put_u64(self.parked);
        value.put_u64(self.used_at.get());
        put_text(&mut value, &self.name);
        if self.further != [0, 0] {
            self.further.into_iter().for_each(|count| value.put_u64(count));
        }
        batch.put(key(self.id), value);
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let id = Cursor::new(key.get(1..).unwrap_or_default()).u32("producer group")?;
        let mut row = Cursor::new(value);
        if row.u8("producer group version")? != VERSION {
            return Err(row.malformed("producer group version"));
        }
        let (open, parked, used_at) = (row.u64("open")?, row.u64("parked")?, Stamp(row.u64("used at")?));
        let name = row.text("name")?.to_owned();
        let further =
            if row.remaining() == 0 { [0, 0] } else { [row.u64("further open")?, row.u64("further parked")?] };
        Ok(Self { id, open, parked, further, used_at, name })
    }
}

fn key(id: u32) -> [u8; 5] {
    let mut key = [table::PRODUCERS; 5];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Forgets a group that has no undecided halves.
pub(crate) fn delete(batch: &mut IndexBatch, id: u32) {
    batch.delete(key(id));
}

/// All of them.
pub(crate) fn all(index: &IndexReader) -> Result<Vec<ProducerRow>, IndexError> {
    let prefix = [table::PRODUCERS];
    let decode = |row: Result<_, IndexError>| {
        let (key, value): super::reader::Row = row?;
        ProducerRow::decode(&key, &value).map_err(IndexError::row(table::PRODUCERS))
    };
    index.scan_prefix(&prefix, &prefix).map(decode).collect()
}
