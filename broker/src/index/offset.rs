//! The rows of consumer groups per queue: their offset, and the lock of an ordered consumer.

use bytes::BufMut;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::reader::IndexReader;
use super::table;
use crate::terms::{Cursor, QueueId, QueueOffset, Stamp, put_text};

fn key(table: u8, group: &str, queue: QueueId) -> Vec<u8> {
    let mut key = table::key_of_texts(table, &[group]);
    key.extend_from_slice(&queue.0.to_be_bytes());
    key
}

fn queue_of(key: &[u8]) -> Option<QueueId> {
    let at = key.len().checked_sub(4)?;
    Some(QueueId(u32::from_be_bytes(key.get(at..)?.try_into().ok()?)))
}

/// Writes an offset.
pub(crate) fn put(batch: &mut IndexBatch, group: &str, queue: QueueId, offset: QueueOffset) {
    batch.put(key(table::OFFSET, group, queue), offset.get().to_be_bytes());
}

/// The offset of a group in a queue.
pub(crate) fn get(index: &IndexReader, group: &str, queue: QueueId) -> Result<Option<QueueOffset>, IndexError> {
    let Some(value) = index.get(key(table::OFFSET, group, queue))? else { return Ok(None) };
    Cursor::new(&value).u64("offset").map(|offset| Some(QueueOffset(offset))).map_err(IndexError::row(table::OFFSET))
}

/// All offsets of a group.
pub(crate) fn of_group(index: &IndexReader, group: &str) -> Result<Vec<(QueueId, QueueOffset)>, IndexError> {
    let prefix = table::key_of_texts(table::OFFSET, &[group]);
    let mut offsets = Vec::new();
    for row in index.scan_prefix(&prefix, &prefix) {
        let (key, value) = row?;
        let offset = Cursor::new(&value).u64("offset").map_err(IndexError::row(table::OFFSET))?;
        if let Some(queue) = queue_of(&key) {
            offsets.push((queue, QueueOffset(offset)));
        }
    }
    Ok(offsets)
}

/// All offsets there are: group, queue, offset.
pub(crate) fn all(index: &IndexReader) -> Result<Vec<(String, QueueId, QueueOffset)>, IndexError> {
    let mut offsets = Vec::new();
    for row in index.scan_prefix(&[table::OFFSET], &[table::OFFSET]) {
        let (key, value) = row?;
        let mut cursor = Cursor::new(key.get(1..).unwrap_or_default());
        let group = cursor.text("group").map_err(IndexError::row(table::OFFSET))?.to_owned();
        let queue = QueueId(cursor.u32("queue").map_err(IndexError::row(table::OFFSET))?);
        let offset = Cursor::new(&value).u64("offset").map_err(IndexError::row(table::OFFSET))?;
        offsets.push((group, queue, QueueOffset(offset)));
    }
    Ok(offsets)
}

/// Removes all offsets of a group.
pub(crate) fn delete_group(batch: &mut IndexBatch, group: &str) {
    let prefix = table::key_of_texts(table::OFFSET, &[group]);
    batch.delete_range(&prefix, super::reader::after_prefix(&prefix));
}

/// A queue lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockRow {
    /// The client that holds it.
    pub client: String,
    /// Until when.
    pub until: Stamp,
}

/// Writes a lock.
pub(crate) fn put_lock(batch: &mut IndexBatch, group: &str, queue: QueueId, lock: &LockRow) {
    let mut value = Vec::with_capacity(16 + lock.client.len());
    value.put_u64(lock.until.get());
    put_text(&mut value, &lock.client);
    batch.put(key(table::LOCK, group, queue), value);
}

/// Removes a lock.
pub(crate) fn delete_lock(batch: &mut IndexBatch, group: &str, queue: QueueId) {
    batch.delete(key(table::LOCK, group, queue));
}

/// The lock on a queue.
pub(crate) fn get_lock(index: &IndexReader, group: &str, queue: QueueId) -> Result<Option<LockRow>, IndexError> {
    index.get(key(table::LOCK, group, queue))?.map(|value| decode_lock(&value)).transpose()
}

/// Whether any lock of a group lives at `now`.
pub(crate) fn any_lock(index: &IndexReader, group: &str, now: Stamp) -> Result<bool, IndexError> {
    let prefix = table::key_of_texts(table::LOCK, &[group]);
    for row in index.scan_prefix(&prefix, &prefix) {
        if decode_lock(&row?.1)?.until > now {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn decode_lock(value: &[u8]) -> Result<LockRow, IndexError> {
    let mut cursor = Cursor::new(value);
    let until = Stamp(cursor.u64("until").map_err(IndexError::row(table::LOCK))?);
    let client = cursor.text("client").map_err(IndexError::row(table::LOCK))?.to_owned();
    Ok(LockRow { client, until })
}
