//! The version of the index as a whole: which tables there are and what their rows mean.
//!
//! Rows have versions of their own. This one changes when an older program could not make sense of the tables, or would
//! leave rows alone that it must keep up to date. It is kept in the row `format` of `meta`; an index without it is of
//! version 1.

use std::path::Path;

use super::store::{Index, IndexBatch, IndexError};
use super::{convert, meta};

/// The version that this program writes, and the newest one that it reads.
pub const INDEX_FORMAT: u32 = 3;

/// Name of the row in `meta`.
pub const FORMAT_ROW: &str = "format";

/// The version of an index; `None` where none was written yet.
pub fn version(index: &Index) -> Result<Option<u32>, IndexError> {
    let Some(bytes) = meta::bytes(index, FORMAT_ROW)? else { return Ok(None) };
    let bytes: [u8; 4] = bytes.as_slice().try_into().map_err(|_| IndexError::Cold {
        name: FORMAT_ROW.to_owned(),
        why: format!("{} bytes instead of 4", bytes.len()),
    })?;
    Ok(Some(u32::from_be_bytes(bytes)))
}

/// Refuses an index of a newer version.
pub(super) fn require(index: &Index, path: &Path) -> Result<(), IndexError> {
    match version(index)? {
        Some(found) if found > INDEX_FORMAT => {
            Err(IndexError::NewerFormat { path: path.to_owned(), found, known: INDEX_FORMAT })
        }
        _ => Ok(()),
    }
}

/// Brings an index up to this version, and writes the version into a new one; there it reaches the disk with the first
/// flush. Nobody else uses the index yet.
pub(super) fn update(index: &Index) -> Result<(), IndexError> {
    match version(index)? {
        Some(INDEX_FORMAT) => {}
        // A new index has applied nothing.
        None if meta::applied(index)?.is_none() => {
            let mut batch = IndexBatch::default();
            put(&mut batch, INDEX_FORMAT);
            index.write(batch);
        }
        Some(2) => convert::from_second(index)?,
        _ => {
            convert::from_first(index)?;
            convert::from_second(index)?;
        }
    }
    Ok(())
}

/// Writes a version.
pub(super) fn put(batch: &mut IndexBatch, version: u32) {
    meta::put_bytes(batch, FORMAT_ROW, &version.to_be_bytes());
}
