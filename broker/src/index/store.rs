//! RocksDB behind the few calls that the tables need; nothing else in the workspace names it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBPinnableSlice,
    Direction, FlushOptions, IteratorMode, LogLevel, LruCacheOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::format;
use crate::shard::Malformed;

/// Memory of one write buffer. Far above [`FLUSH_BYTES`], so that RocksDB never flushes on its own.
const WRITE_BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// Batches flushed by us after so many bytes.
pub const FLUSH_BYTES: u64 = 16 * 1024 * 1024;
/// Apply waits for a flush beyond this, well before RocksDB would flush by itself.
pub const FLUSH_BOUND_BYTES: u64 = 40 * 1024 * 1024;
/// Blocks kept in memory.
const BLOCK_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// RocksDB failed: the disk, or a file that is not what it was.
    #[error("index: {0}")]
    Store(#[from] rocksdb::Error),
    /// The index was written by a newer version of this program.
    #[error(
        "index folder {} has format version {found}, this program knows versions up to {known}; use a newer program",
        path.display()
    )]
    NewerFormat {
        /// Its folder.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// A row does not decode.
    #[error("index: a row of table {table}: {source}")]
    Row {
        /// The table's letter.
        table: char,
        /// What was wrong.
        source: Malformed,
    },
    /// A cold row (settings) does not decode.
    #[error("index: row {name}: {why}")]
    Cold {
        /// Which row.
        name: String,
        /// What was wrong.
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

/// A row: key and value.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// Rows that become visible together.
#[derive(Default)]
pub struct IndexBatch {
    rows: WriteBatch,
}

impl IndexBatch {
    /// Writes a row.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.rows.put(key, value);
    }

    /// Removes a row that may have been written more than once.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.rows.delete(key);
    }

    /// Removes all rows from `from` up to `to`, exclusive.
    pub fn delete_range(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        self.rows.delete_range(from.as_ref(), to.as_ref());
    }

    /// Bytes that the batch takes.
    pub fn size_bytes(&self) -> usize {
        self.rows.size_in_bytes()
    }
}

/// The index of one shard.
///
/// RocksDB writes what is in memory to files when it is closed. That is right only if the log is durable up to there;
/// else the index must be [abandoned](Self::abandon) instead.
pub struct Index {
    db: Arc<DB>,
    unlogged: WriteOptions,
    path: PathBuf,
}

impl Index {
    /// Opens the index, or creates an empty one.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let index = Self::open_with(&options(), path)?;
        format::require(&index, path)?;
        format::put(&index)?;
        Ok(index)
    }

    /// An empty index that keeps its files in memory.
    #[cfg(test)]
    pub fn in_memory() -> Result<Self, IndexError> {
        let mut options = options();
        options.set_env(&rocksdb::Env::mem_env()?);
        options.set_max_file_opening_threads(1);
        let mut index = Self::open_with(&options, Path::new("/index"))?;
        // With a log RocksDB has nothing to flush when it is closed: many of these are opened and closed.
        index.unlogged = WriteOptions::default();
        Ok(index)
    }

    fn open_with(options: &Options, path: &Path) -> Result<Self, IndexError> {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let db = DB::open(options, path)?;
        Ok(Self { db: Arc::new(db), unlogged, path: path.to_owned() })
    }

    /// Opens an index that exists, without changing any file.
    pub fn open_read_only(path: &Path) -> Result<Self, IndexError> {
        let mut options = options();
        options.create_if_missing(false);
        // Every file is opened, and its footer and its own index verified, here and not at the first read.
        options.set_max_open_files(-1);
        let db = DB::open_for_read_only(&options, path, false)?;
        let index = Self { db: Arc::new(db), unlogged: WriteOptions::default(), path: path.to_owned() };
        format::require(&index, path)?;
        Ok(index)
    }

    /// Leaves the database open for ever, so that what is in memory never reaches files: the log may not be durable that
    /// far. The process should end soon; the folder stays locked until then.
    pub fn abandon(&self) {
        std::mem::forget(Arc::clone(&self.db));
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the batch visible.
    pub fn write(&self, batch: IndexBatch) -> Result<(), IndexError> {
        Ok(self.db.write_opt(batch.rows, &self.unlogged)?)
    }

    /// Reads a row.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<DBPinnableSlice<'_>>, IndexError> {
        Ok(self.db.get_pinned(key)?)
    }

    /// Whether a row exists.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool, IndexError> {
        Ok(self.get(key)?.is_some())
    }

    /// Rows from `from` on, upwards, below `to`.
    pub fn scan(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = Result<Row, IndexError>> + use<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        self.db
            .iterator_opt(IteratorMode::From(from, Direction::Forward), options)
            .map(|row| row.map_err(IndexError::from))
    }

    /// Rows whose key starts with `prefix`, from `from` on, upwards.
    pub fn scan_prefix(&self, prefix: &[u8], from: &[u8]) -> impl Iterator<Item = Result<Row, IndexError>> + use<'_> {
        self.scan(from, &after_prefix(prefix))
    }

    /// The last row at or below `key`, not below `from`.
    pub fn last_at_or_below(&self, from: &[u8], key: &[u8]) -> Result<Option<Row>, IndexError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek_for_prev(key);
        let row = rows.item().map(|(key, value)| (Box::from(key), Box::from(value)));
        rows.status()?;
        Ok(row)
    }

    /// A cursor positioned at the last row at or below `key`, or at the first one of `from..to`; see
    /// [`RowCursor`].
    pub fn cursor(&self, from: &[u8], key: &[u8], to: &[u8]) -> Result<RowCursor<'_>, IndexError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek_for_prev(key);
        if !rows.valid() {
            rows.seek_to_first();
        }
        rows.status()?;
        Ok(RowCursor { rows })
    }

    /// Starts writing what is in memory to files, and returns when the next write goes to a new buffer: everything
    /// written before is in this flush, nothing written later is.
    ///
    /// The caller made the log durable up to what the index has applied.
    pub fn begin_flush(&self) -> Result<(), IndexError> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        Ok(self.db.flush_opt(&options)?)
    }

    /// Like [`begin_flush`](Self::begin_flush), and waits until the files are written.
    pub fn flush(&self) -> Result<(), IndexError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_opt(&options)?)
    }

    /// Makes a copy of the files in a new folder, hard links where that is possible. What is in memory is written first:
    /// the caller made the log durable up to what the index has applied.
    pub fn copy_to(&self, folder: &Path) -> Result<(), IndexError> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(folder)?)
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

    /// Calls `each` with every row in the order of keys; all checksums are verified, and nothing is kept in memory.
    pub fn for_all(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), IndexError> {
        let mut rows = self.rows();
        while let Some((key, value)) = rows.row() {
            each(key, value);
            rows.advance()?;
        }
        Ok(rows.rows.status()?)
    }

    /// All rows, from the first on.
    pub fn rows(&self) -> RowCursor<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek_to_first();
        RowCursor { rows }
    }

    /// Bytes in memory that are not in files yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.db.property_int_value("rocksdb.size-all-mem-tables").ok().flatten().unwrap_or(0)
    }
}

/// How RocksDB works for us.
fn options() -> Options {
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(BLOCK_CACHE_BYTES);
    // Few threads read; of many shards each would be too small for anything but data blocks.
    cache.set_num_shard_bits(2);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache_opts(&cache));
    blocks.set_bloom_filter(10.0, false);
    // A file of small rows has a filter of a megabyte. In parts, what is looked at stays in the cache: new keys are near
    // each other.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4096);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_top_level_index_and_filter(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    // Nearly all rows are new or soon gone. With levels each flush would rewrite rows of all queues: 1.6 to 1.7 times the
    // CPU time in the background, measured with 8,000,000 stored messages and with 500,000 transactions.
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(4);
    // One thread writes; concurrent inserts would only cost.
    options.set_allow_concurrent_memtable_write(false);
    // Most rows that are looked for are new: what is in memory can say no at once as well.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.02);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    // What is not flushed by us must not be flushed at close: the log may not be durable that far.
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
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

/// Rows in key order, borrowed: no copy per row.
pub struct RowCursor<'a> {
    rows: rocksdb::DBRawIterator<'a>,
}

impl RowCursor<'_> {
    /// The row at hand.
    pub fn row(&self) -> Option<(&[u8], &[u8])> {
        self.rows.item()
    }

    /// Goes to the last row at or below `key`.
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) -> Result<(), IndexError> {
        self.rows.seek_for_prev(key);
        Ok(self.rows.status()?)
    }

    /// Goes to the next row.
    pub fn advance(&mut self) -> Result<(), IndexError> {
        self.rows.next();
        Ok(self.rows.status()?)
    }
}

/// The smallest key above all keys with this prefix.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut after = prefix.to_vec();
    while let Some(last) = after.pop() {
        if last < u8::MAX {
            after.push(last + 1);
            break;
        }
    }
    after
}
