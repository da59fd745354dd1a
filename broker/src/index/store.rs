//! The index as it is written: rows in memory, set aside and spilled to RocksDB. Beside `reader` and `cursor`, nothing else in the
//! workspace names RocksDB. This file knows no table: what time has made meaningless is handed in as [`Expiry`].

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::compaction_filter::Decision as CompactionDecision;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, FlushOptions, LogLevel,
    LruCacheOptions, Options, WriteBatch, WriteOptions,
};

use super::batch::IndexBatch;
use super::error::IndexError;
use super::memory::{Layer, Spilled};
use super::reader::{IndexReader, Layers};

/// Memory of one write buffer. Far above what is written at once, so that RocksDB never flushes on its own.
const WRITE_BUFFER_BYTES: usize = 128 * 1024 * 1024;
/// Rows in memory are flushed by us when they have grown to this size.
pub(crate) const FLUSH_BYTES: u64 = 16 * 1024 * 1024;
/// Apply waits for a flush beyond this.
pub(crate) const FLUSH_BOUND_BYTES: u64 = 40 * 1024 * 1024;
const _: () = assert!(
    FLUSH_BYTES < FLUSH_BOUND_BYTES && 2 * FLUSH_BOUND_BYTES < WRITE_BUFFER_BYTES as u64,
    "apply waits for a flush long before RocksDB would flush by itself"
);
/// Blocks kept in memory.
const BLOCK_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Says which rows time has made meaningless: nobody sees them any more, and merging files may leave them out.
pub(super) trait Expiry: Send + Sync {
    /// Whether a row is meaningless.
    fn is_over(&self, key: &[u8], value: &[u8]) -> bool;

    /// Moves on to the values that are in files. It never goes beyond those, so that after a crash the log is applied to the rows
    /// that were there the first time.
    fn advance(&self, index: &IndexReader) -> Result<(), IndexError>;
}

/// The index of one shard: rows in memory over rows in files. Reading it is [`IndexReader`].
///
/// One thread writes at a time. A flush is [`freeze`](Self::freeze), which must not run beside a write, then
/// [`spill`](Self::spill): what RocksDB holds is always what the index held at some freeze.
pub(crate) struct Index {
    reader: IndexReader,
    unlogged: WriteOptions,
    expiry: Arc<dyn Expiry>,
    /// RocksDB has what is set aside, in its memory: a flush that is tried again does not write it once more.
    is_written: AtomicBool,
}

impl Deref for Index {
    type Target = IndexReader;

    fn deref(&self) -> &IndexReader {
        &self.reader
    }
}

impl Index {
    /// Opens the rows in a folder, or an empty index; `in_memory` keeps its files in memory.
    pub(super) fn open_rows(path: &Path, expiry: Arc<dyn Expiry>, in_memory: bool) -> Result<Self, IndexError> {
        let mut options = options();
        if in_memory {
            options.set_env(&rocksdb::Env::mem_env()?);
            options.set_max_file_opening_threads(1);
        }
        let filter = Arc::clone(&expiry);
        options.set_compaction_filter("what time has made meaningless", move |_, key, value| {
            if filter.is_over(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
        });
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let reader = IndexReader::over(DB::open(&options, path)?, path);
        expiry.advance(&reader)?;
        Ok(Self { reader, unlogged, expiry, is_written: AtomicBool::new(false) })
    }

    /// Makes the batch visible.
    pub(crate) fn write(&self, batch: IndexBatch) {
        self.layers.load().active.write(batch.changes);
    }

    /// Sets everything that is in memory aside for [`spill`](Self::spill), which must have taken what was set aside before.
    /// Nobody writes meanwhile.
    pub(crate) fn freeze(&self) {
        let layers = self.layers.load();
        assert!(layers.frozen.is_none(), "one flush at a time");
        self.layers.store(Arc::new(Layers { active: Arc::default(), frozen: Some(Arc::clone(&layers.active)) }));
    }

    /// Whether something is set aside.
    #[cfg(test)]
    pub(crate) fn is_frozen(&self) -> bool {
        self.layers.load().frozen.is_some()
    }

    /// Writes what is set aside to files; if that fails it stays set aside. Nobody freezes meanwhile.
    ///
    /// The caller made the log durable up to what the index had applied when it was frozen.
    pub(crate) fn spill(&self) -> Result<(), IndexError> {
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
        self.expiry.advance(&self.reader)
    }

    /// Writes everything to files. Nobody writes or flushes meanwhile; see [`spill`](Self::spill).
    #[cfg(test)]
    pub(crate) fn flush(&self) -> Result<(), IndexError> {
        self.spill()?;
        self.freeze();
        self.spill()
    }

    /// Makes a copy of the files in a new folder, hard links where that is possible. Rows in memory are not in it.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<(), IndexError> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(folder)?)
    }
}

/// Opens the rows of an index that exists, without changing any file.
pub(super) fn open_rows_read_only(path: &Path) -> Result<IndexReader, IndexError> {
    let mut options = options();
    options.create_if_missing(false);
    // Every file is opened, and its footer and its own index verified, here and not at the first read.
    options.set_max_open_files(-1);
    Ok(IndexReader::over(DB::open_for_read_only(&options, path, false)?, path))
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
    // Rows that we have not flushed must not be flushed at close: the log may not be durable that far.
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}
