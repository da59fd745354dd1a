//! The log: the broker's single truth. A segmented, append-only, checksummed sequence of records.
//!
//! A record is an opaque payload with a Raft term and index. The log gives it a [`Position`](crate::terms::Position), makes it durable, and
//! finds it again after a crash. It knows nothing of messages, commands or consensus.
//!
//! ```text
//!  append ---> front (positions, checksums, queue) ---> writer: one write, one flush ---> done callbacks
//!                |                                         |
//!                v                                         v
//!  read <---- view (tail cache, segments) <------------ segment files
//! ```
//!
//! # Promises
//!
//! * A record whose `done` callback reported success survives: with [`Flush::Sync`] a power cut, with
//!   [`Flush::Async`] the end of the process. Votes and truncations always survive a power cut.
//! * After a crash the log is a prefix of what was appended, without holes and without altered records.
//!   Unacknowledged records at the end may be there or not.
//! * Damage to what had been flushed is never mistaken for a torn write: opening fails and changes nothing. The limit of
//!   this is the very last flush before a crash, if the mark that follows it did not reach the disk.
//! * Bytes of a truncated suffix, or of a torn write, never come back.
//! * After a failed write or flush nothing more is accepted until the log is opened again. No flush is repeated.
//!   Lack of space for a new segment is no such failure: it refuses the append and nothing else.
//!
//! # What it leaves to others
//!
//! Which records may be truncated or purged, retention, the bound of the queue, reading ahead.
//!
//! # Files
//!
//! `format` has every byte, `vote` those of the vote file, `recovery` the rules of opening, `shared` who owns what,
//! `writer` the group commit, `disk` the seam to the file system.

#![warn(clippy::cast_possible_truncation, reason = "a number of the store that is cut is a number that is lost")]

mod append;
mod check;
pub mod disk;
pub mod error;
mod files;
pub mod format;
mod look;
mod read;
mod reader;
mod record;
mod recovery;
mod room;
mod salvage;
mod scan;
mod segment;
mod settings;
mod shared;
#[cfg(any(test, feature = "sim"))]
#[allow(clippy::cast_possible_truncation, reason = "a simulated disk is small")]
pub mod sim_disk;
mod tail;
mod term_starts;
mod view;
mod vote;
mod window;
mod writer;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use escrowmq_common::clock::Clock;
use parking_lot::{Condvar, Mutex, RwLock};

pub use self::check::{Report, SeenRecord, SegmentReport, check, check_with, verify_segment};
pub use self::disk::{Disk, DiskFile, RealDisk};
pub use self::error::{AppendError, OpenError, TruncateError};
pub use self::look::LookingDisk;
pub use self::reader::{LogReader, SegmentInfo};
pub use self::record::{NewRecord, Record, RecordId};
pub use self::room::{RoomClaim, RoomClaims};
pub use self::salvage::{Salvage, make_good, salvage, salvage_end};
pub use self::settings::{ASYNC_FLUSH_INTERVAL, Drive, Flush, LogSettings, Room, SEGMENT_BYTES_MIN};
pub use self::shared::Done;
pub use self::term_starts::TermStart;
#[cfg(test)]
pub(crate) use self::vote::saved_vote;
pub use self::vote::{SlotReport, encode_vote_file, vote_for_copy};

use self::files::Files;
use self::shared::{Front, Shared};
use self::tail::Tail;
use self::view::View;
use crate::latch::{Failure, FailureLatch};
use crate::metrics::Histogram;
use crate::terms::{AtomicLogIndex, LogIndex};

const LOCK_FILE: &str = "lock";

/// A handle of an open log; clones are cheap and refer to the same log. The log is closed by [`Log::close`] or when
/// the last handle is dropped.
#[derive(Clone)]
pub struct Log {
    reader: LogReader,
    closer: Arc<Closer>,
}

impl Deref for Log {
    type Target = LogReader;

    fn deref(&self) -> &LogReader {
        &self.reader
    }
}

impl Log {
    /// Opens the log in `dir`, creating it if there is none, and recovers it from whatever state a crash left.
    /// Files in the folder that are not the log's are ignored. Reads the newest segment: call it where
    /// blocking is allowed.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, settings: LogSettings) -> Result<Log, OpenError> {
        settings.validate()?;
        let io_error = |action| move |source| OpenError::Io { action, path: dir.into(), source };
        disk.create_dir(dir).map_err(io_error("create the folder"))?;
        let lock = check::lock(disk.as_ref(), dir)?;
        let found = recovery::recover(&*disk, dir, &settings)?;
        let newest = found.segments.last().map_or(0, |segment| segment.start.get());
        let shared = Arc::new(Shared {
            front: Mutex::new(Front {
                queue: VecDeque::new(),
                writing: false,
                closing: false,
                unanswered: Vec::new(),
                end: found.end,
                last: found.last,
                room: found.room,
                spares: VecDeque::new(),
                reserve: None,
                spare_retry: None,
                epoch: 0,
                vote: found.vote.vote().map(<[u8]>::to_vec),
                waiters: Vec::new(),
                flush_due: None,
            }),
            wake: Condvar::new(),
            files: Mutex::new(Files { active: found.active, vote: found.vote, arena: Vec::new() }),
            view: RwLock::new(View {
                tail: Tail::default(),
                segments: found.segments,
                last: found.last,
                end: found.end,
                epoch: 0,
            }),
            written_end: AtomicU64::new(found.end.get()),
            durable_end: AtomicU64::new(found.end.get()),
            rolled: AtomicU64::new(newest),
            committed: AtomicLogIndex::new(found.committed),
            released: AtomicLogIndex::default(),
            ack_after_sync: AtomicBool::new(false),
            spare_count: AtomicU64::new(0),
            flushes: Histogram::default(),
            purging: Mutex::new(()),
            cold: Mutex::new(VecDeque::new()),
            disk,
            dir: dir.into(),
            settings,
        });
        let log = Arc::downgrade(&shared);
        shared.settings.latch.on_close(move |failure| {
            if let Some(log) = log.upgrade() {
                log.give_up(failure);
            }
        });
        let writer = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "the log joins its thread itself, as a part of being closed")]
        let thread = match shared.settings.drive {
            Drive::Step { .. } => None,
            Drive::Thread => {
                let thread = thread::Builder::new().name("log-writer".into()).spawn(move || writer.run_writer());
                Some(thread.map_err(io_error("start the writer thread of"))?)
            }
        };
        let closer = Closer { shared: Arc::clone(&shared), thread: Mutex::new(thread), lock: Mutex::new(Some(lock)) };
        Ok(Log { reader: LogReader { shared }, closer: Arc::new(closer) })
    }

    /// Notes that records up to `index` are committed. It travels along with later writes, without a flush of its
    /// own, and protects these records from truncation. Never goes back.
    pub fn set_committed(&self, index: LogIndex) {
        self.shared.committed.raise(index);
    }

    /// Allows the tail cache to drop records up to `index`, because nobody needs them soon.
    pub fn release_upto(&self, index: LogIndex) {
        self.shared.released.raise(index);
        self.shared.evict();
    }

    /// With [`Flush::Async`]: whether appends are nevertheless answered after a flush, as a group of
    /// several voters needs it. No effect with [`Flush::Sync`].
    pub fn ack_after_sync(&self, on: bool) {
        self.shared.ack_after_sync.store(on, Ordering::Relaxed);
    }

    /// The latch that the first failure closes.
    pub fn latch(&self) -> &FailureLatch {
        &self.shared.settings.latch
    }

    /// The clock that this log was opened with.
    pub fn clock(&self) -> &Clock {
        &self.shared.settings.clock
    }

    /// The highest feature level of what the log may hold.
    pub fn feature_level(&self) -> u32 {
        self.shared.settings.feature_level
    }

    /// Whether the log has no thread and is driven step by step.
    pub fn is_stepped(&self) -> bool {
        matches!(self.shared.settings.drive, Drive::Step { .. })
    }

    /// With [`Drive::Step`]: the seed of its holder's random numbers.
    pub fn seed(&self) -> Option<u64> {
        match self.shared.settings.drive {
            Drive::Thread => None,
            Drive::Step { seed } => Some(seed),
        }
    }

    /// Stops accepting, writes and flushes everything accepted, and ends the writer thread. Blocks until
    /// then. Reading keeps working. Calling it again is harmless.
    pub fn close(&self) -> Result<(), Failure> {
        self.closer.close();
        self.failure().map_or(Ok(()), Err)
    }
}

/// Ends the writer thread with the last handle.
struct Closer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The exclusive right to the folder.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl Closer {
    fn close(&self) {
        self.shared.front.lock().closing = true;
        self.shared.wake.notify_all();
        match self.thread.lock().take() {
            // The last handle may be dropped by a callback on the writer thread, which cannot wait for itself.
            Some(thread) if thread.thread().id() == thread::current().id() => {}
            Some(thread) => {
                if thread.join().is_err() {
                    tracing::error!("the log's writer thread panicked");
                }
            }
            // Without a thread, closing is the last step. It was done before if the folder was given back.
            None if self.lock.lock().is_some() && matches!(self.shared.settings.drive, Drive::Step { .. }) => {
                while self.shared.step() {}
                self.shared.end();
            }
            None => return,
        }
        let waiters: Vec<Done> = self.shared.front.lock().waiters.drain(..).map(|(_, done)| done).collect();
        for done in waiters {
            done(Err(io::Error::other(AppendError::Closed)));
        }
        *self.lock.lock() = None;
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.close();
    }
}
