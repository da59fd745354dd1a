//! The batcher: turns commands that arrive on many threads into batches for the log.
//!
//! Commands are encoded straight into the batch at hand, under a short lock: that is the one copy of a message's bytes
//! on its way to the disk. The batch leaves at once while few entries are unapplied, else it grows until its bound: no
//! timer, so an idle broker has no added latency and a busy one has large batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::batch::{HEAD_BYTES, OpenBatch};
use super::codec::COMMAND_BYTES_MAX;
use super::command::Command;
use super::completion::{Completion, SubmitError, fail_all};
use crate::latch::{FailureLatch, Promise};
use crate::log::format::{RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES};

/// A batch is closed when it has reached this size. A larger single message is a batch of its own.
const BATCH_BYTES: usize = 512 * 1024;
/// Batches leave at once while fewer entries than this are unapplied.
const EAGER_ENTRIES: u64 = 4;
/// New messages are refused while this many bytes wait to be applied.
const NORMAL_BYTES: u64 = 64 * 1024 * 1024;
/// Decisions, acknowledgements and trims have this much on top, so that a flood of messages cannot starve them.
const RESERVED_BYTES: u64 = 16 * 1024 * 1024;

const _: () = assert!(
    (HEAD_BYTES + BATCH_BYTES + COMMAND_BYTES_MAX) as u64 + RECORD_OVERHEAD_BYTES <= RECORD_BYTES_MAX,
    "a batch that is almost full and gets the longest command is still one record"
);
const _: () = assert!(
    EAGER_ENTRIES * BATCH_BYTES as u64 <= NORMAL_BYTES && RESERVED_BYTES >= BATCH_BYTES as u64,
    "full batches wait for their turn, and what must pass has room for a batch of its own"
);

/// How a command is admitted when the broker is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// New messages: the first to be refused.
    Normal,
    /// Commands that settle, acknowledge or free: admitted when new messages are already refused.
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
pub(in crate::shard) struct ReadyBatch {
    /// The commands.
    pub(in crate::shard) batch: OpenBatch,
    /// Their completions, in the same order.
    pub(in crate::shard) completions: Vec<Completion>,
    /// Their share of what is on its way.
    pub(in crate::shard) load: Load,
    /// When the first of them came, by the monotonic clock.
    pub(in crate::shard) since: Duration,
}

/// The share of one batch in what is on its way to be applied. Dropping it says that the batch was applied or given up.
pub(in crate::shard) struct Load {
    bytes: u64,
    intake: Arc<Intake>,
}

impl Load {
    /// Some commands are given up for want of room; the rest of `bytes_left` goes on.
    pub(in crate::shard) fn shrink(&mut self, bytes_left: u64, given_up: u64) {
        self.intake.take_off(&self.intake.bytes, self.bytes - bytes_left);
        self.bytes = bytes_left;
        self.intake.refused_full.fetch_add(given_up, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let intake = &*self.intake;
        intake.take_off(&intake.bytes, self.bytes);
        if intake.take_off(&intake.entries, 1) == 0 {
            intake.drained.notify_waiters();
        }
        intake.work.notify_one();
    }
}

struct Pending {
    open: Open,
    /// Batches that reached their bound before the batcher came by.
    full: VecDeque<Open>,
    taking: Taking,
}

/// A batch, and who waits for it.
struct Open {
    batch: OpenBatch,
    completions: Vec<Completion>,
    /// When its first command came.
    since: Duration,
}

impl Open {
    fn with_capacity(bytes: usize, completions: usize) -> Self {
        let batch = OpenBatch::with_capacity(bytes);
        Self { batch, completions: Vec::with_capacity(completions), since: Duration::ZERO }
    }
}

/// Whether commands are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    Yes,
    /// This member does not lead its group.
    NotLeading,
    /// The broker is stopping.
    Stopping,
}

/// Where commands come in.
pub struct Intake {
    pending: Mutex<Pending>,
    /// The batcher waits here for commands and for entries to be applied.
    work: Notify,
    /// Told when the last entry on its way was applied.
    drained: Notify,
    /// Told when commands are taken, and when none will be any more.
    taken: Notify,
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
    latch: FailureLatch,
    clock: Clock,
}

impl Intake {
    /// Takes nothing until this member [leads](Self::set_leading), and nothing more once the latch is closed.
    pub(in crate::shard) fn new(latch: &FailureLatch, clock: Clock) -> Arc<Self> {
        let intake = Arc::new(Self {
            pending: Mutex::new(Pending {
                open: Open::with_capacity(4096, 0),
                full: VecDeque::new(),
                taking: Taking::NotLeading,
            }),
            work: Notify::new(),
            drained: Notify::new(),
            taken: Notify::new(),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            full: AtomicU8::new(0),
            refused_full: AtomicU64::new(0),
            unencodable: AtomicU64::new(0),
            latch: latch.clone(),
            clock,
        });
        let held = Arc::downgrade(&intake);
        latch.on_close(move |_| {
            if let Some(intake) = held.upgrade() {
                intake.give_up(&SubmitError::StoreFailed);
            }
        });
        intake
    }

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
        // The latch and `taking` are looked at under the lock. The end of the store or of the leadership is noted there
        // first; then `give_up` answers what is pending, once:
        //
        //   looked at under the lock             looked at before it
        //   submit           the end             submit           the end
        //                    closes the latch    sees it open
        //                    `give_up` answers                    closes the latch
        //   locks, sees it                                        `give_up` answers
        //     closed, refuses                    locks, adds a command that nobody answers
        //
        // A command that was added while the latch was open is there when `give_up` gets the lock.
        if self.latch.is_closed() {
            return Err((SubmitError::StoreFailed, completion));
        }
        match pending.taking {
            Taking::Yes => {}
            Taking::NotLeading => return Err((SubmitError::NotLeader, completion)),
            Taking::Stopping => return Err((SubmitError::Stopping, completion)),
        }
        let was_idle = pending.open.batch.is_empty() && pending.full.is_empty();
        if command.is_alone() {
            pending.close_open();
        }
        let open = &mut pending.open;
        let (is_first, before) = (open.batch.is_empty(), open.batch.len());
        if let Err(error) = open.batch.push(command) {
            return Err((SubmitError::TooLong(error), completion));
        }
        open.completions.push(completion);
        if is_first {
            open.since = self.clock.monotonic();
        }
        let added = open.batch.len() - before;
        if command.is_alone() || open.batch.len() >= BATCH_BYTES {
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
    pub(in crate::shard) async fn next(self: &Arc<Self>) -> Option<ReadyBatch> {
        loop {
            // Registered before the look, so that what arrives in between is not missed.
            let work = self.work.notified();
            if let Some(Open { batch, completions, since }) = self.take() {
                self.entries.fetch_add(1, Ordering::Relaxed);
                let load = Load { bytes: batch.command_bytes(), intake: Arc::clone(self) };
                return Some(ReadyBatch { batch, completions, load, since });
            }
            if self.is_drained() {
                return None;
            }
            work.await;
        }
    }

    fn take(&self) -> Option<Open> {
        let eager = self.entries.load(Ordering::Relaxed) < EAGER_ENTRIES;
        let mut pending = self.pending.lock();
        if let Some(full) = pending.full.pop_front() {
            return Some(full);
        }
        if pending.open.batch.is_empty() || !(eager || pending.taking == Taking::Stopping) {
            return None;
        }
        // Loads repeat: the next batch is likely as large as this one.
        let capacity = pending.open.batch.len().clamp(4096, BATCH_BYTES + BATCH_BYTES / 8);
        Some(pending.take_open(capacity))
    }

    fn is_drained(&self) -> bool {
        let pending = self.pending.lock();
        pending.taking == Taking::Stopping && pending.open.batch.is_empty() && pending.full.is_empty()
    }

    /// Takes off a count, and answers what is left.
    fn take_off(&self, count: &AtomicU64, by: u64) -> u64 {
        let before = count.fetch_sub(by, Ordering::AcqRel);
        before.checked_sub(by).unwrap_or_else(|| {
            count.store(0, Ordering::Release);
            self.latch.broken(Promise::LoadHolds, None, None, format!("{by} were taken off {before}"));
            0
        })
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

    /// Gives up what is pending, because nothing takes it to the log.
    fn give_up(&self, why: &SubmitError) {
        let mut pending = self.pending.lock();
        let last = std::mem::replace(&mut pending.open, Open::with_capacity(0, 0));
        let (mut calls, mut bytes) = (Vec::new(), 0);
        for Open { batch, completions, .. } in std::mem::take(&mut pending.full).into_iter().chain([last]) {
            bytes += batch.command_bytes();
            calls.extend(completions);
        }
        drop(pending);
        self.take_off(&self.bytes, bytes);
        fail_all(calls, why);
    }

    /// The latch that the first failure closes.
    pub fn latch(&self) -> &FailureLatch {
        &self.latch
    }

    /// Takes commands from now on, or refuses them because this member does not lead. Stays stopped.
    pub(in crate::shard) fn set_leading(&self, leads: bool) {
        let mut pending = self.pending.lock();
        if pending.taking != Taking::Stopping {
            pending.taking = if leads { Taking::Yes } else { Taking::NotLeading };
        }
        drop(pending);
        if leads {
            self.taken.notify_waiters();
        } else {
            self.give_up(&SubmitError::NotLeader);
        }
    }

    /// Waits until commands are taken.
    pub(crate) async fn takes(&self) {
        loop {
            let taken = self.taken.notified();
            if self.pending.lock().taking == Taking::Yes {
                return;
            }
            taken.await;
        }
    }

    /// Takes no more commands; what was taken still goes to the log.
    pub fn stop(&self) {
        self.pending.lock().taking = Taking::Stopping;
        self.work.notify_one();
        self.taken.notify_waiters();
    }

    /// Waits until [`stop`](Self::stop) was called.
    pub(in crate::shard) async fn stopped(&self) {
        loop {
            let told = self.taken.notified();
            if self.pending.lock().taking == Taking::Stopping {
                return;
            }
            told.await;
        }
    }
}

impl Pending {
    /// Closes the batch at hand, so that the next command starts a new one.
    fn close_open(&mut self) {
        if !self.open.batch.is_empty() {
            let closed = self.take_open(4096);
            self.full.push_back(closed);
        }
    }

    fn take_open(&mut self, next_capacity: usize) -> Open {
        let next = Open::with_capacity(next_capacity, self.open.completions.len());
        std::mem::replace(&mut self.open, next)
    }
}
