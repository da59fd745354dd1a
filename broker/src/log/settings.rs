//! The layout of a log and the times of its flushes.

use std::time::Duration;

use escrowmq_common::clock::Clock;

use super::error::OpenError;
use super::format::{MARK_SLACK_BYTES, RECORD_OVERHEAD_BYTES, SEGMENT_HEADER_BYTES};
use crate::latch::FailureLatch;
use crate::terms::{FEATURE_LEVEL, Position};

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After it has been flushed to the device.
    Sync,
    /// After the operating system has taken it. A crash of the process loses nothing, one of the machine
    /// may lose what was appended within the last `interval`.
    Async {
        /// Time between flushes while there is something to flush.
        interval: Duration,
    },
}

/// Whether a part that has a thread of its own in a running broker has one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// A thread of its own.
    Thread,
    /// No thread: its holder makes it work step by step. One thread and a seed then run a whole shard, and the same
    /// seed does the same again.
    Step {
        /// The random numbers of the log's files follow from it.
        seed: u64,
    },
}

/// Which space may be promised to records, see [`Log::reserve`](super::Log::reserve).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The free space of the disk, without the reserve.
    Common,
    /// The reserve too, if there is nothing else.
    Reserve,
}

/// The interval of [`Flush::Async`] unless configured.
pub const ASYNC_FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// The smallest segment: 1 MiB.
pub const SEGMENT_BYTES_MIN: u64 = if cfg!(any(test, feature = "sim")) { 8 << 10 } else { 1 << 20 };

const _: () = assert!(
    SEGMENT_HEADER_BYTES + RECORD_OVERHEAD_BYTES + 2 * MARK_SLACK_BYTES < SEGMENT_BYTES_MIN,
    "the smallest segment has room for records"
);

/// Settings of one log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Size of a segment file in bytes; 128 MiB by default, at least 1 MiB. Old data is deleted in whole
    /// segments, so smaller ones free disk space in finer steps. May change between starts.
    pub segment_bytes: u64,
    /// When an append counts as done; [`Flush::Sync`] by default.
    pub flush: Flush,
    /// Memory for recently appended records, in bytes; 32 MiB by default. Records that are not yet written or not yet
    /// released by [`Log::release_upto`](super::Log::release_upto) are kept beyond it.
    pub tail_cache_bytes: usize,
    /// How far ahead of the writer the file is filled with zeros, in bytes; 4 MiB by default, 0 turns it off.
    /// A flush then has no file metadata to write. Only done while flushes are small and synchronous.
    pub zero_ahead_bytes: u64,
    /// Bytes of a preallocated file that only [`Log::reserve`](super::Log::reserve) with
    /// [`Room::Reserve`](super::Room::Reserve) and [`Log::append`](super::Log::append) may fall back on when the disk is full.
    /// Default: none (0).
    pub reserve_bytes: u64,
    /// A position up to which the caller knows that the log had been flushed, for instance the end of what
    /// the index had durably applied. A log that ends before it is refused as damaged. Default: unknown (zero).
    pub durable_at_least: Position,
    /// Whether opening verifies every record of every segment instead of the last segment and the links
    /// between all. Takes as long as reading the whole log. Default: no.
    pub verify_all: bool,
    /// Closed by the first failure, of the log or of anybody else who holds it. Default: one of the log's own.
    pub latch: FailureLatch,
    /// Whether the log has a writer thread of its own. Default: it has.
    pub drive: Drive,
    /// The highest feature level of what the log may hold: what holds more is not applied. Default: that of this version.
    pub feature_level: u32,
    /// When flushes and retries are due. Default: the machine's clock.
    pub clock: Clock,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            segment_bytes: 128 << 20,
            flush: Flush::Sync,
            tail_cache_bytes: 32 << 20,
            zero_ahead_bytes: 4 << 20,
            reserve_bytes: 0,
            durable_at_least: Position::ZERO,
            verify_all: false,
            latch: FailureLatch::default(),
            drive: Drive::Thread,
            feature_level: FEATURE_LEVEL,
            clock: Clock::system(),
        }
    }
}

impl LogSettings {
    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        if self.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(OpenError::Settings(format!(
                "a segment of {} bytes is below the minimum of {SEGMENT_BYTES_MIN}",
                self.segment_bytes
            )));
        }
        match self.flush {
            Flush::Async { interval } if interval.is_zero() => {
                Err(OpenError::Settings("the flush interval must not be zero".into()))
            }
            Flush::Sync | Flush::Async { .. } => Ok(()),
        }
    }
}
