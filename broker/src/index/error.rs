//! Why the index did not answer.

use std::path::PathBuf;

use crate::terms::Malformed;

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// RocksDB failed: the disk, or a file that is not what it was.
    #[error("index: {0}")]
    Store(#[from] rocksdb::Error),
    /// The index was written by another version of this program.
    #[error(
        "index folder {} has format version {found}, this program knows version {known}; use the {} that wrote it",
        path.display(),
        if found > known { "newer program" } else { "program before the first release" }
    )]
    OtherFormat {
        /// Its folder.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// A row does not decode.
    #[error("index: a row of table {table}: {source}")]
    Row {
        /// The table's letter.
        table: char,
        /// The fault in its bytes.
        source: Malformed,
    },
    /// A cold row (settings) does not decode.
    #[error("index: row {name}: {why}")]
    Cold {
        /// Which row.
        name: String,
        /// The fault in its bytes.
        why: String,
    },
}

impl IndexError {
    /// Whether the disk had no room; nothing is lost then, and it works again when there is room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Store(error) if error.as_ref().contains("No space left"))
    }

    /// Names the table of a row that does not decode.
    pub fn row(table: u8) -> impl Fn(Malformed) -> Self {
        move |source| Self::Row { table: char::from(table), source }
    }
}
