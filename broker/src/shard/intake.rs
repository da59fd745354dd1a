//! The batcher: turns commands that arrive on many threads into batches for the log.
//!
//! Commands are encoded straight into the batch at hand, under a short lock: that is the one copy of a message's bytes
//! on its way to the disk. The batch leaves at once while few entries are unapplied, else it grows until its bound: no
//! timer, so an idle broker has no added latency and a busy one has large batches.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::batch::OpenBatch;
use super::command::Command;
use super::completion::{Completion, SubmitError, fail_all};

/// A batch is closed when it has reached so many bytes. A larger single message is a batch of its own.
const BATCH_BYTES: usize = 512 * 1024;
/// Batches leave at once while fewer entries than this are unapplied.
const EAGER_ENTRIES: u64 = 4;
/// New messages are refused while so many bytes wait to be applied.
const NORMAL_BYTES: u64 = 64 * 1024 * 1024;
/// Decisions, acknowledgements and trims have this much on top, so that a flood of messages cannot starve them.
const RESERVED_BYTES: u64 = 16 * 1024 * 1024;

/// How a command is admitted when the broker is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// New messages: the first to be refused.
    Normal,
    /// What settles, acknowledges or frees: admitted when new messages are already refused.
    Reserved,
}

/// Why new messages are refused for want of room. Each reason comes and goes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Full {
    /// More of the disk is in use than the configuration allows.
    Mark = 1,
    /// The log got no room for its next segment.
    Log = 2,
    /// The index got no room for what is in memory.
    Index = 4,
}

/// A batch that is ready for the log.
pub struct ReadyBatch {
    /// The commands.
    pub batch: OpenBatch,
    /// Their completions, in the same order.
    pub completions: Vec<Completion>,
}

struct Pending {
    batch: OpenBatch,
    completions: Vec<Completion>,
    /// Batches that reached their bound before the batcher came by.
    full: VecDeque<ReadyBatch>,
    stopping: bool,
}

/// Where commands come in.
pub struct Intake {
    pending: Mutex<Pending>,
    /// The batcher waits here for commands and for entries to be applied.
    work: Notify,
    /// Told when the last entry on its way was applied.
    drained: Notify,
    /// Bytes accepted and not yet applied.
    bytes: AtomicU64,
    /// Entries proposed and not yet applied.
    entries: AtomicU64,
    /// Why new messages are refused, if so: bits of [`Full`].
    full: AtomicU8,
    /// Messages refused for want of room, since start.
    refused_full: AtomicU64,
    /// Batches that did not read back, since start.
    unencodable: AtomicU64,
    failed: AtomicBool,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            pending: Mutex::new(Pending {
                batch: OpenBatch::with_capacity(4096),
                completions: Vec::new(),
                full: VecDeque::new(),
                stopping: false,
            }),
            work: Notify::new(),
            drained: Notify::new(),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            full: AtomicU8::new(0),
            refused_full: AtomicU64::new(0),
            unencodable: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }
}

impl Intake {
    /// Takes a command, or says why not; then `completion` was not and will not be called.
    pub fn submit(
        &self,
        command: &Command<'_>,
        admission: Admission,
        completion: Completion,
    ) -> Result<(), (SubmitError, Completion)> {
        if let Err(error) = self.admit(admission) {
            return Err((error, completion));
        }
        let mut pending = self.pending.lock();
        // Under the lock: whoever sets either comes for what is pending afterwards, and for nothing later.
        if self.is_failed() {
            return Err((SubmitError::StoreFailed, completion));
        }
        if pending.stopping {
            return Err((SubmitError::Stopping, completion));
        }
        let was_idle = pending.batch.is_empty() && pending.full.is_empty();
        if command.is_alone() {
            pending.close_open();
        }
        let before = pending.batch.len();
        if let Err(error) = pending.batch.push(command) {
            return Err((SubmitError::TooLong(error), completion));
        }
        pending.completions.push(completion);
        let added = pending.batch.len() - before;
        if command.is_alone() || pending.batch.len() >= BATCH_BYTES {
            pending.close_open();
        }
        // Under the lock: once it is released the batch may be applied, and its bytes taken off again.
        self.bytes.fetch_add(added as u64, Ordering::Relaxed);
        drop(pending);
        if was_idle {
            self.work.notify_one();
        }
        Ok(())
    }

    fn admit(&self, admission: Admission) -> Result<(), SubmitError> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let bound = match admission {
            Admission::Normal if self.is_disk_full() => {
                self.refused_full.fetch_add(1, Ordering::Relaxed);
                return Err(SubmitError::DiskFull);
            }
            Admission::Normal => NORMAL_BYTES,
            Admission::Reserved => NORMAL_BYTES + RESERVED_BYTES,
        };
        if bytes >= bound { Err(SubmitError::Busy(bytes)) } else { Ok(()) }
    }

    /// Waits for the next batch; `None` after [`stop`](Self::stop), when all was taken.
    pub async fn next(&self) -> Option<ReadyBatch> {
        loop {
            // Registered before the look, so that what arrives in between is not missed.
            let work = self.work.notified();
            if let Some(ready) = self.take() {
                self.entries.fetch_add(1, Ordering::Relaxed);
                return Some(ready);
            }
            if self.is_drained() {
                return None;
            }
            work.await;
        }
    }

    fn take(&self) -> Option<ReadyBatch> {
        let eager = self.entries.load(Ordering::Relaxed) < EAGER_ENTRIES;
        let mut pending = self.pending.lock();
        if let Some(full) = pending.full.pop_front() {
            return Some(full);
        }
        if pending.batch.is_empty() || !(eager || pending.stopping) {
            return None;
        }
        // Loads repeat: the next batch is likely as large as this one.
        let capacity = pending.batch.len().clamp(4096, BATCH_BYTES + BATCH_BYTES / 8);
        Some(pending.take_open(capacity))
    }

    fn is_drained(&self) -> bool {
        let pending = self.pending.lock();
        pending.stopping && pending.batch.is_empty() && pending.full.is_empty()
    }

    /// An entry of this many batch bytes was applied or given up.
    pub fn entry_done(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.entries.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.drained.notify_waiters();
        }
        self.work.notify_one();
    }

    /// Entries proposed and not yet applied.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    /// Waits until no entry is between proposal and apply.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.entries() == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Bytes accepted and not yet applied.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Refuses new messages for this reason, or not any more. Says whether that is a change.
    pub fn set_full(&self, why: Full, full: bool) -> bool {
        let bit = why as u8;
        let before = if full {
            self.full.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.full.fetch_and(!bit, Ordering::Relaxed)
        };
        (before & bit != 0) != full
    }

    /// Whether new messages are refused for this reason.
    pub fn is_full(&self, why: Full) -> bool {
        self.full.load(Ordering::Relaxed) & why as u8 != 0
    }

    /// Whether new messages are refused because the disk has no room.
    pub fn is_disk_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) != 0
    }

    /// Messages that were refused for want of room, since start.
    pub fn refused_full(&self) -> u64 {
        self.refused_full.load(Ordering::Relaxed)
    }

    /// A batch could not be read back and was given up.
    pub fn note_unencodable(&self) {
        self.unencodable.fetch_add(1, Ordering::Relaxed);
    }

    /// Batches that could not be read back after they were encoded, since start: each is a fault of the broker.
    pub fn unencodable(&self) -> u64 {
        self.unencodable.load(Ordering::Relaxed)
    }

    /// Some commands of a batch that was taken with [`next`](Self::next) are given up for want of room; the rest of
    /// `bytes_left` goes on.
    pub fn shrunk(&self, bytes_before: u64, bytes_left: u64, given_up: u64) {
        self.bytes.fetch_sub(bytes_before - bytes_left, Ordering::Relaxed);
        self.refused_full.fetch_add(given_up, Ordering::Relaxed);
    }

    /// The store failed: refuses everything until a restart.
    pub fn set_failed(&self) {
        let mut pending = self.pending.lock();
        self.failed.store(true, Ordering::Relaxed);
        let mut calls: Vec<Completion> = std::mem::take(&mut pending.completions);
        pending.batch = OpenBatch::with_capacity(0);
        for ready in std::mem::take(&mut pending.full) {
            calls.extend(ready.completions);
        }
        drop(pending);
        fail_all(calls, &SubmitError::StoreFailed);
    }

    /// Whether the store failed.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes no more commands; what was taken still goes to the log.
    pub fn stop(&self) {
        self.pending.lock().stopping = true;
        self.work.notify_one();
    }
}

impl Pending {
    /// Closes the batch at hand, so that the next command starts a new one.
    fn close_open(&mut self) {
        if !self.batch.is_empty() {
            let ready = self.take_open(4096);
            self.full.push_back(ready);
        }
    }

    fn take_open(&mut self, next_capacity: usize) -> ReadyBatch {
        let batch = std::mem::replace(&mut self.batch, OpenBatch::with_capacity(next_capacity));
        let completions = Vec::with_capacity(self.completions.len());
        ReadyBatch { batch, completions: std::mem::replace(&mut self.completions, completions) }
    }
}
