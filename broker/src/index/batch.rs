//! Rows that are written together.

use super::memory::{Change, Key};

/// Rows that become visible together.
#[derive(Default)]
pub struct IndexBatch {
    pub(super) changes: Vec<Change>,
}

impl IndexBatch {
    /// Writes a row.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put { key: Key::from(key.as_ref()), value: value.into(), is_new: false });
    }

    /// Writes a row of which the caller knows that there is none with its key. If it is removed before the next flush,
    /// nothing of it remains.
    pub fn put_new(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put { key: Key::from(key.as_ref()), value: value.into(), is_new: true });
    }

    /// Adds to a page without its `head` first bytes, or writes it as a new one. A page below it with the same `prefix`
    /// first bytes in its key ends where this one begins.
    pub fn append(&mut self, key: impl AsRef<[u8]>, prefix: usize, value: impl Into<Vec<u8>>, head: usize) {
        self.changes.push(Change::Append { key: Key::from(key.as_ref()), prefix, value: value.into(), head });
    }

    /// Removes a row, if there is one.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.changes.push(Change::Delete { key: Key::from(key.as_ref()) });
    }

    /// Removes all rows from `from` up to `to`, exclusive.
    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        self.changes.push(Change::DeleteRange { from: Key::from(from.as_ref()), to: Key::from(to.as_ref()) });
    }
}
