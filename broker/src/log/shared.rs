//! The state that appenders, readers and the writer thread share, and who may touch what.
//!
//! | state | under | changed by |
//! | --- | --- | --- |
//! | [`Front`]: queue, end, spares | `front` | whoever appends, truncates or finishes a write |
//! | [`View`]: tail cache, segments | `view` | appenders and truncation, with `front` held; purging and eviction without |
//! | [`Files`]: open files, what is on disk | `files` | the one that holds the `writing` role |
//!
//! Locks are taken in the order `files`, `front`, `view`. No callback runs and no file is touched under `front` or
//! `view`, with one exception: readers open files outside of both.
//!
//! The **writing role** (`Front::writing`) says that somebody is taking operations from the queue. It is the
//! writer thread, or, when nothing must be flushed and the queue is empty, the appending thread itself:
//! a write into the page cache costs less than waking another thread.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::disk::{Disk, DiskFile};
use super::error::AppendError;
use super::files::Files;
use super::format::{Link, RECORD_HEADER_BYTES};
use super::segment::Segment;
use super::settings::{Flush, LogSettings};
use super::view::View;
use crate::latch::{Broken, Failure, FailureLatch, Promise};
use crate::metrics::Histogram;
use crate::terms::to_usize;
use crate::terms::{AtomicLogIndex, LogIndex, Position};

/// Old segments kept open for readers, so that a large log does not use up the process's files.
const COLD_FILES_MAX: usize = 64;

/// Called once with the outcome of an operation.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send + 'static>;

/// Everything that the handles of one log share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) settings: LogSettings,
    pub(crate) front: Mutex<Front>,
    /// Wakes the writer thread.
    pub(crate) wake: Condvar,
    pub(crate) files: Mutex<Files>,
    pub(crate) view: RwLock<View>,
    /// Everything before this position can be read from the files.
    pub(crate) written_end: AtomicU64,
    /// Everything before this position has been flushed.
    pub(crate) durable_end: AtomicU64,
    /// Start of the newest segment that is on disk, name and header, and that no truncation under way removes:
    /// older ones may be deleted.
    pub(crate) rolled: AtomicU64,
    /// Committed index, if it is known.
    pub(crate) committed: AtomicLogIndex,
    /// Highest index that the tail cache may drop.
    pub(crate) released: AtomicLogIndex,
    /// With [`Flush::Async`]: answer after a flush all the same.
    pub(crate) ack_after_sync: AtomicBool,
    /// Numbers the spare files.
    pub(crate) spare_count: AtomicU64,
    /// How long flushes of records took.
    pub(crate) flushes: Histogram,
    /// Held while segments are deleted.
    pub(crate) purging: Mutex<()>,
    /// Old segments that readers have opened, in that order; bounded by [`COLD_FILES_MAX`].
    pub(crate) cold: Mutex<VecDeque<Weak<Segment>>>,
}

/// The appenders' side.
pub(crate) struct Front {
    /// Operations in order. Bounded by the callers, who wait for answers; the log refuses nothing for its length.
    pub(crate) queue: VecDeque<Op>,
    /// Whether somebody has the writing role.
    pub(crate) writing: bool,
    pub(crate) closing: bool,
    /// Answers of operations that were at hand when the store failed; older than those in the queue.
    pub(crate) unanswered: Vec<Done>,
    /// Where the next record begins.
    pub(crate) end: Position,
    pub(crate) last: Option<Link>,
    /// Bytes of records that still fit into the last segment.
    pub(crate) room: u64,
    /// Preallocated files, the next segments.
    pub(crate) spares: VecDeque<Spare>,
    /// Space for what must pass when the disk is full; becomes a spare when it is needed.
    pub(crate) reserve: Option<Spare>,
    /// Not before this time does the writer thread try again to prepare a spare, after it found no space.
    pub(crate) spare_retry: Option<Duration>,
    /// Raised by each truncation: writes queued before it no longer count for `written_end`.
    pub(crate) epoch: u64,
    pub(crate) vote: Option<Vec<u8>>,
    /// Callbacks that wait for a position to become durable.
    pub(crate) waiters: Vec<(Position, Done)>,
    /// When to flush next, on the monotonic clock; `None` while everything written is flushed or flushed at once.
    pub(crate) flush_due: Option<Duration>,
}

/// A preallocated file that has no name of a segment yet.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Bytes of records that fit.
    pub(crate) capacity: u64,
}

/// A record ready to be written, but for its local part.
pub(crate) struct Frame {
    pub(crate) position: Position,
    pub(crate) header: [u8; to_usize(RECORD_HEADER_BYTES)],
    pub(crate) payload: Bytes,
}

/// An operation for whoever has the writing role.
pub(crate) enum Op {
    Write {
        frames: Vec<Frame>,
        end: Position,
        epoch: u64,
        done: Option<Done>,
    },
    /// The next write goes to this new segment, whose file is still called `spare`.
    Roll {
        segment: Arc<Segment>,
        spare: PathBuf,
        epoch: u64,
    },
    Vote {
        vote: Vec<u8>,
        done: Done,
    },
    Truncate {
        cut: Position,
        keep: Option<Arc<Segment>>,
        remove: Vec<Arc<Segment>>,
        epoch: u64,
        done: Done,
    },
    Sync {
        done: Done,
    },
}

impl Op {
    pub(crate) fn into_done(self) -> Option<Done> {
        match self {
            Op::Write { done, .. } => done,
            Op::Roll { .. } => None,
            Op::Vote { done, .. } | Op::Truncate { done, .. } | Op::Sync { done } => Some(done),
        }
    }
}

impl Front {
    /// Whether operations are accepted.
    pub(crate) fn check(&self, latch: &FailureLatch) -> Result<(), AppendError> {
        match latch.failure() {
            Some(failure) => Err(AppendError::Failed(failure.clone())),
            None if self.closing => Err(AppendError::Closed),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Whether each group is flushed before it is answered.
    pub(crate) fn syncs_each(&self) -> bool {
        self.settings.flush == Flush::Sync || self.ack_after_sync.load(Ordering::Relaxed)
    }

    /// A segment's file for reading. Opening one too many closes the one that was opened first.
    pub(crate) fn file_of(&self, segment: &Arc<Segment>) -> io::Result<Arc<dyn DiskFile>> {
        let (file, opened) = segment.file_or_open(&*self.disk)?;
        if opened {
            let mut cold = self.cold.lock();
            cold.push_back(Arc::downgrade(segment));
            if cold.len() > COLD_FILES_MAX
                && let Some(oldest) = cold.pop_front().and_then(|oldest| oldest.upgrade())
            {
                oldest.close_file();
            }
        }
        Ok(file)
    }

    /// Closes what was opened for reading, as if much else had been read since.
    #[cfg(test)]
    pub(crate) fn close_cold_files(&self) {
        let cold = std::mem::take(&mut *self.cold.lock());
        cold.into_iter().filter_map(|segment| segment.upgrade()).for_each(|segment| segment.close_file());
    }

    pub(crate) fn committed(&self) -> Option<LogIndex> {
        self.committed.load()
    }

    /// Drops from the tail cache what is over its bound.
    pub(crate) fn evict(&self) {
        let budget = self.settings.tail_cache_bytes;
        if self.view.read().tail.bytes() > budget {
            let written = Position(self.written_end.load(Ordering::Acquire));
            self.view.write().tail.evict(budget, written, self.released.load());
        }
    }

    /// Records that a segment is on disk, unless a truncation has been asked for since.
    pub(crate) fn note_rolled(&self, start: Position, epoch: u64) {
        let front = self.front.lock();
        if front.epoch == epoch {
            self.rolled.store(start.get(), Ordering::Release);
        }
    }

    /// Records what has been flushed and calls those who waited for it.
    pub(crate) fn note_durable(&self, end: Position, epoch: u64) {
        let ready: Vec<Done> = {
            let mut front = self.front.lock();
            if front.epoch != epoch {
                return;
            }
            let written = Position(self.written_end.load(Ordering::Acquire));
            if end > written {
                drop(front);
                let found = format!("{end} would be durable, and only {written} is written");
                let broken = Broken { promise: Promise::PositionsRise, entry: None, position: Some(end), found };
                self.fail(Failure::Broken(broken), Vec::new());
                return;
            }
            self.durable_end.fetch_max(end.get(), Ordering::AcqRel);
            let durable = Position(self.durable_end.load(Ordering::Acquire));
            front.waiters.extract_if(.., |(position, _)| *position <= durable).map(|(_, done)| done).collect()
        };
        for done in ready {
            done(Ok(()));
        }
    }

    /// Stops the store for good: `answers`, everything queued and everything later gets the failure. Answers the failure
    /// that closed the latch, which may be an earlier one.
    pub(crate) fn fail(&self, failure: Failure, answers: Vec<Done>) -> Failure {
        self.front.lock().unanswered.extend(answers);
        let failure = self.settings.latch.close(failure);
        // Closing the latch calls `give_up`, but only the first time, and another holder may have been first:
        //
        //   another holder                     this thread
        //   closes the latch
        //   `give_up` answers all that waits
        //                                      hands over its answers
        //                                      closes the latch, which is closed already: no `give_up`
        //
        // Without this call these answers would wait for ever. None is called twice: `give_up` takes them out under the
        // lock.
        self.give_up(&failure);
        failure
    }

    /// The latch is closed, so nothing is accepted any more: answers all that waits, in the order of appends.
    pub(crate) fn give_up(&self, failure: &Failure) {
        let mut front = self.front.lock();
        let mut dones = std::mem::take(&mut front.unanswered);
        dones.extend(front.queue.drain(..).filter_map(Op::into_done));
        dones.extend(front.waiters.drain(..).map(|(_, done)| done));
        front.flush_due = None;
        drop(front);
        self.wake.notify_all();
        for done in dones {
            done(Err(failure.to_io_error()));
        }
    }
}
