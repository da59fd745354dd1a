//! The index as the tables see it: rows in memory over rows in RocksDB, behind a few calls. Beside `cursor`, nothing else
//! in the workspace names RocksDB.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::compaction_filter::Decision as CompactionDecision;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBPinnableSlice,
    FlushOptions, LogLevel, LruCacheOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::cursor::{RowCursor, Rows};
use super::half::Repeat;
use super::memory::{Change, Key, Known, Layer, Spilled};
use super::{decision, format, meta, table};
use crate::terms::{Cursor, Malformed, Stamp};

/// Memory of one write buffer. Far above what is written at once, so that RocksDB never flushes on its own.
const WRITE_BUFFER_BYTES: usize = 128 * 1024 * 1024;
/// Rows in memory are flushed by us after so many bytes.
pub const FLUSH_BYTES: u64 = 16 * 1024 * 1024;
/// Apply waits for a flush beyond this.
pub const FLUSH_BOUND_BYTES: u64 = 40 * 1024 * 1024;
/// Blocks kept in memory.
const BLOCK_CACHE_BYTES: usize = 16 * 1024 * 1024;

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
    changes: Vec<Change>,
}

impl IndexBatch {
    /// Writes a row.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) {
        self.changes.push(Change::Put { key: Key::from(key.as_ref()), value: value.into(), is_new: false });
    }

    /// Writes a row of which the caller knows that there is none with its key. Removed before the next flush it leaves
    /// nothing behind.
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

/// The index of one shard: rows in memory over rows in files.
///
/// One thread writes at a time. A flush is [`freeze`](Self::freeze), which must not run beside a write, then
/// [`spill`](Self::spill): what RocksDB holds is always what the index held at some freeze.
pub struct Index {
    db: DB,
    layers: ArcSwap<Layers>,
    unlogged: WriteOptions,
    path: PathBuf,
    horizon: Arc<Horizon>,
    /// RocksDB has what is set aside, in its memory: a flush that is tried again does not write it once more.
    is_written: AtomicBool,
}

/// What time has made meaningless: rows that nobody sees any more and that merging files may leave out. It never goes beyond
/// what is in files, so that after a crash the log is applied to what was there the first time.
#[derive(Debug, Default)]
struct Horizon {
    /// Decisions that were made before are forgotten.
    forgotten: AtomicU64,
    /// Windows of repeated halves that ended before are over.
    now: AtomicU64,
}

impl Horizon {
    fn is_behind(&self, key: &[u8], value: &[u8]) -> bool {
        match key.first() {
            Some(&table::DECISION) => decision::is_forgotten(value, Stamp(self.forgotten.load(Ordering::Relaxed))),
            Some(&table::REPEAT) => {
                Repeat::decode(value).is_ok_and(|repeat| repeat.has_ended(Stamp(self.now.load(Ordering::Relaxed))))
            }
            _ => false,
        }
    }
}

/// What is in memory.
struct Layers {
    /// Takes the writes.
    active: Arc<Layer>,
    /// On its way to files.
    frozen: Option<Arc<Layer>>,
}

impl Layers {
    fn newest_first(&self) -> impl Iterator<Item = &Arc<Layer>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }
}

impl Index {
    /// Opens the index, or creates an empty one.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let index = Self::open_with(options(), path)?;
        if !format::require(&index, path)? {
            format::put(&index);
        }
        Ok(index)
    }

    /// An empty index that keeps its files in memory.
    #[cfg(test)]
    pub fn in_memory() -> Result<Self, IndexError> {
        let mut options = options();
        options.set_env(&rocksdb::Env::mem_env()?);
        options.set_max_file_opening_threads(1);
        Self::open_with(options, Path::new("/index"))
    }

    fn open_with(mut options: Options, path: &Path) -> Result<Self, IndexError> {
        let horizon = Arc::new(Horizon::default());
        let behind = Arc::clone(&horizon);
        options.set_compaction_filter("what time has made meaningless", move |_, key, value| {
            if behind.is_behind(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
        });
        let index = Self::over(DB::open(&options, path)?, path, horizon);
        index.move_horizon()?;
        Ok(index)
    }

    fn over(db: DB, path: &Path, horizon: Arc<Horizon>) -> Self {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let layers = Layers { active: Arc::default(), frozen: None };
        Self {
            db,
            layers: ArcSwap::from_pointee(layers),
            unlogged,
            path: path.to_owned(),
            horizon,
            is_written: AtomicBool::new(false),
        }
    }

    /// What is behind the state in files may go from them.
    fn move_horizon(&self) -> Result<(), IndexError> {
        let stored = |name: &str| self.db.get_pinned(meta::key(name));
        if let Some(value) = stored(meta::FORGOTTEN)? {
            let before = Cursor::new(&value).u64("forgotten").map_err(IndexError::row(table::META))?;
            self.horizon.forgotten.store(before, Ordering::Relaxed);
        }
        if let Some(value) = stored(meta::APPLIED)? {
            let applied = meta::decode_applied(&value)?;
            self.horizon.now.store(applied.stamp.get(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Opens an index that exists, without changing any file.
    pub fn open_read_only(path: &Path) -> Result<Self, IndexError> {
        let mut options = options();
        options.create_if_missing(false);
        // Every file is opened, and its footer and its own index verified, here and not at the first read.
        options.set_max_open_files(-1);
        let index = Self::over(DB::open_for_read_only(&options, path, false)?, path, Arc::default());
        format::require(&index, path)?;
        Ok(index)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the batch visible.
    pub fn write(&self, batch: IndexBatch) {
        self.layers.load().active.write(batch.changes);
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

    /// Sets everything that is in memory aside for [`spill`](Self::spill), which must have taken what was set aside before.
    /// Nobody writes meanwhile.
    pub fn freeze(&self) {
        let layers = self.layers.load();
        assert!(layers.frozen.is_none(), "one flush at a time");
        self.layers.store(Arc::new(Layers { active: Arc::default(), frozen: Some(Arc::clone(&layers.active)) }));
    }

    /// Whether something is set aside.
    pub fn is_frozen(&self) -> bool {
        self.layers.load().frozen.is_some()
    }

    /// Writes what is set aside to files; if that fails it stays set aside. Nobody freezes meanwhile.
    ///
    /// The caller made the log durable up to what the index had applied when it was frozen.
    pub fn spill(&self) -> Result<(), IndexError> {
        let Some(frozen) = self.layers.load().frozen.clone() else { return Ok(()) };
        if !self.is_written.load(Ordering::Acquire) {
            self.db.write_opt(as_one_write(&frozen), &self.unlogged)?;
            self.is_written.store(true, Ordering::Release);
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options)?;
        let active = Arc::clone(&self.layers.load().active);
        self.layers.store(Arc::new(Layers { active, frozen: None }));
        self.is_written.store(false, Ordering::Release);
        self.move_horizon()
    }

    /// Writes everything to files. Nobody writes or flushes meanwhile; see [`spill`](Self::spill).
    pub fn flush(&self) -> Result<(), IndexError> {
        self.spill()?;
        self.freeze();
        self.spill()
    }

    /// Makes a copy of the files in a new folder, hard links where that is possible. What is in memory is not in it.
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

/// All of a layer in one write: whenever RocksDB takes what is in its memory to a file, it is all of it.
fn as_one_write(layer: &Layer) -> WriteBatch {
    let mut batch = WriteBatch::default();
    layer.for_all(|row| match row {
        Spilled::Row(key, value) => batch.put(key, value),
        Spilled::Removed(key) => batch.delete(key),
        Spilled::RemovedRange(from, to) => batch.delete_range(from, to),
    });
    batch
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
