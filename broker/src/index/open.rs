//! Opening an index: its format is looked at, and rows that time has made meaningless may go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::IndexError;
use super::half::Repeat;
use super::reader::IndexReader;
use super::store::{Expiry, Index, open_rows_read_only};
use super::{decision, format, meta, table};
use crate::terms::{Cursor, Stamp};

/// Forgotten decisions and ended windows of repeated halves.
#[derive(Debug, Default)]
struct Horizon {
    /// Decisions that were made before are forgotten: none of them was made before [`Stamp::ZERO`].
    forgotten: AtomicU64,
    /// Windows of repeated halves that ended before are over, in the same way.
    now: AtomicU64,
}

impl Expiry for Horizon {
    fn is_over(&self, key: &[u8], value: &[u8]) -> bool {
        match key.first() {
            Some(&table::DECISION) => decision::is_forgotten(value, Stamp(self.forgotten.load(Ordering::Relaxed))),
            Some(&table::REPEAT) => {
                Repeat::decode(value).is_ok_and(|repeat| repeat.has_ended(Stamp(self.now.load(Ordering::Relaxed))))
            }
            _ => false,
        }
    }

    fn advance(&self, index: &IndexReader) -> Result<(), IndexError> {
        let stored = |name: &str| index.get_from_files(meta::key(name));
        if let Some(value) = stored(meta::FORGOTTEN)? {
            let before = Cursor::new(&value).u64("forgotten").map_err(IndexError::row(table::META))?;
            self.forgotten.store(before, Ordering::Relaxed);
        }
        if let Some(value) = stored(meta::APPLIED)? {
            let applied = meta::decode_applied(&value)?;
            self.now.store(applied.stamp.get(), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Index {
    /// Opens the index, or creates an empty one.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let index = Self::open_rows(path, Arc::new(Horizon::default()), false)?;
        if !format::require(&index, path)? {
            format::put(&index);
        }
        Ok(index)
    }

    /// An empty index that keeps its files in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Result<Self, IndexError> {
        Self::open_rows(Path::new("/index"), Arc::new(Horizon::default()), true)
    }
}

/// Opens an index that exists, without changing any file.
pub(crate) fn open_read_only(path: &Path) -> Result<IndexReader, IndexError> {
    let index = open_rows_read_only(path)?;
    format::require(&index, path)?;
    Ok(index)
}
