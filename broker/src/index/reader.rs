//! The index as it is read: rows in memory over rows in RocksDB, in a few calls.
//!
//! Nothing here changes a row. To write takes an [`Index`](super::store::Index), which is a reader too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rocksdb::{DB, DBPinnableSlice, ReadOptions};

use super::cursor::{RowCursor, Rows};
use super::error::IndexError;
use super::memory::{Known, Layer};

/// A row: key and value.
pub(crate) type Row = (Box<[u8]>, Box<[u8]>);

/// A value that was read.
pub enum Value<'a> {
    /// From memory.
    Copied(Vec<u8>),
    /// From a file.
    Pinned(DBPinnableSlice<'a>),
}

impl std::ops::Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Copied(value) => value,
            Self::Pinned(value) => value,
        }
    }
}

/// Reads the index of one shard. Any number of threads may read while one writes.
pub struct IndexReader {
    pub(super) db: DB,
    pub(super) layers: ArcSwap<Layers>,
    path: PathBuf,
}

/// The rows in memory.
pub(super) struct Layers {
    /// Takes the writes.
    pub(super) active: Arc<Layer>,
    /// On its way to files.
    pub(super) frozen: Option<Arc<Layer>>,
}

impl Layers {
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<Layer>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }
}

impl IndexReader {
    pub(super) fn over(db: DB, path: &Path) -> Self {
        let layers = Layers { active: Arc::default(), frozen: None };
        Self { db, layers: ArcSwap::from_pointee(layers), path: path.to_owned() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a row.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>, IndexError> {
        let key = key.as_ref();
        for layer in self.layers.load().newest_first() {
            match layer.get(key) {
                Some(Known::Row(value)) => return Ok(Some(Value::Copied(value))),
                Some(Known::Removed) => return Ok(None),
                None => {}
            }
        }
        Ok(self.db.get_pinned(key)?.map(Value::Pinned))
    }

    /// Rows from `from` on, upwards, below `to`.
    pub fn scan(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = Result<Row, IndexError>> + use<'_> {
        let mut cursor = self.unplaced(from, to);
        let placed = cursor.seek(from);
        Rows { cursor, placed }
    }

    /// Rows whose key starts with `prefix`, from `from` on, upwards.
    pub fn scan_prefix(&self, prefix: &[u8], from: &[u8]) -> impl Iterator<Item = Result<Row, IndexError>> + use<'_> {
        self.scan(from, &after_prefix(prefix))
    }

    /// The last row at or below `key`, not below `from`.
    pub fn last_at_or_below(&self, from: &[u8], key: &[u8]) -> Result<Option<Row>, IndexError> {
        let behind = [key, &[0]].concat();
        let cursor = self.cursor(from, key, &behind)?;
        Ok(cursor.row().map(|(key, value)| (Box::from(key), Box::from(value))))
    }

    /// A cursor positioned at the last row at or below `key`, or at the first one of `from..to`.
    pub fn cursor(&self, from: &[u8], key: &[u8], to: &[u8]) -> Result<RowCursor<'_>, IndexError> {
        let mut cursor = self.unplaced(from, to);
        cursor.seek_back(key)?;
        Ok(cursor)
    }

    fn unplaced(&self, from: &[u8], to: &[u8]) -> RowCursor<'_> {
        // Memory first: what goes to files meanwhile is in both then, and not in neither.
        let layers = self.layers.load_full();
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        RowCursor::new(self.db.raw_iterator_opt(options), layers.newest_first().cloned(), from, to)
    }

    /// Calls `each` with the rows from the last one at or below `key` on, not below `from` and below `to`, until it says
    /// stop, if that row is in memory; answers whether it is. For rows of which newer ones have higher keys. `each` must be
    /// short: no write passes meanwhile.
    pub fn scan_memory(&self, from: &[u8], key: &[u8], to: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> bool) -> bool {
        let layers = self.layers.load();
        if layers.active.scan_from(from, key, to, &mut each) {
            return true;
        }
        let Some(frozen) = &layers.frozen else { return false };
        let mut goes_on = true;
        let found = frozen.scan_from(from, key, to, |key, value| {
            goes_on = each(key, value);
            goes_on
        });
        if found && goes_on {
            layers.active.for_range(key, to, each);
        }
        found
    }

    /// Reads a row as it is in files, whatever memory knows of it.
    pub fn get_from_files(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>, IndexError> {
        Ok(self.db.get_pinned(key)?.map(Value::Pinned))
    }

    /// The files that hold the rows.
    pub fn files(&self) -> Result<Vec<IndexFile>, IndexError> {
        let files = self.db.live_files()?.into_iter().map(|file| IndexFile {
            name: file.name.trim_start_matches('/').to_owned(),
            bytes: file.size as u64,
            first_key: file.start_key.unwrap_or_default(),
        });
        Ok(files.collect())
    }

    /// Calls `each` with every row of the files in the order of keys; all checksums are verified, and nothing is kept in
    /// memory.
    pub fn for_all(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), IndexError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            each(key, value);
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// Bytes in memory that are not in files yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.layers.load().newest_first().map(|layer| layer.bytes() as u64).sum()
    }
}

/// A file of the index.
#[derive(Debug, Clone)]
pub struct IndexFile {
    /// Its name in the folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The first key that it holds.
    pub first_key: Vec<u8>,
}

/// The smallest key above all keys with this prefix.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut after = prefix.to_vec();
    while let Some(last) = after.pop() {
        if last < u8::MAX {
            after.push(last + 1);
            break;
        }
    }
    after
}
