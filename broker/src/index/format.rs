//! The version of the index as a whole: which tables there are and what their rows mean.
//!
//! Rows have versions of their own. This one changes when another program could not make sense of the tables, or would leave
//! rows alone that it must keep up to date. It is kept in the row `format` of `meta`.

use std::path::Path;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::meta;
use super::reader::IndexReader;
use super::store::Index;

/// The version that this program writes, and the only one that it reads. 1 to 3 were used before the first release.
pub(crate) const INDEX_FORMAT: u32 = 4;

/// Name of the row in `meta`.
pub(crate) const FORMAT_ROW: &str = "format";

/// The version of an index; `None` where none was written yet.
fn version(index: &IndexReader) -> Result<Option<u32>, IndexError> {
    let Some(bytes) = meta::bytes(index, FORMAT_ROW)? else { return Ok(None) };
    let bytes: [u8; 4] = bytes.as_slice().try_into().map_err(|_| IndexError::Cold {
        name: FORMAT_ROW.to_owned(),
        why: format!("{} bytes instead of 4", bytes.len()),
    })?;
    Ok(Some(u32::from_be_bytes(bytes)))
}

/// Refuses an index of another version, and says whether it has one. A new index has none, and has applied nothing.
pub(super) fn require(index: &IndexReader, path: &Path) -> Result<bool, IndexError> {
    let refused = |found| IndexError::OtherFormat { path: path.to_owned(), found, known: INDEX_FORMAT };
    match version(index)? {
        Some(INDEX_FORMAT) => Ok(true),
        Some(found) => Err(refused(found)),
        None if meta::applied(index)?.is_none() => Ok(false),
        None => Err(refused(1)),
    }
}

/// Writes the version into a new index. It reaches the disk with the first flush.
pub(super) fn put(index: &Index) {
    let mut batch = IndexBatch::default();
    meta::put_bytes(&mut batch, FORMAT_ROW, &INDEX_FORMAT.to_be_bytes());
    index.write(batch);
}
