//! Log, shard and group of one data folder: opened, handed to each other, closed.
//!
//! ```text
//! index, log -> Shard, Applier (the state machine) -> Member (the group) -> Proposer
//! ```
//!
//! Promises: when [`Storage::open`] returns, everything committed is applied and commands are taken; anything but
//! [`Storage::close`] is a crash, which is safe as well. Leaves to others: what runs on top (`start`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::Tasks;
use tokio::runtime::Handle;

use crate::executor::JoinHandle;
use crate::index::{Index, IndexError, meta};
use crate::latch::Failure;
use crate::log::{Disk, Log, LogSettings, OpenError, RealDisk};
use crate::raft::{Member, MemberError, Purger};
use crate::shard::{Applier, INDEX, Proposer, Quarantine, QuarantineError, Shard, restore_base};
use crate::steady_clock::SteadyClock;
use crate::terms::{LogIndex, Position};

/// How a data folder is opened.
#[derive(Debug, Clone)]
pub(crate) struct StorageSettings {
    /// The folder of log and index.
    pub dir: PathBuf,
    /// How the log is written.
    pub log: LogSettings,
}

/// Why the storage did not open.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The member of the group.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The log could not be applied.
    #[error("the store failed at its start: {0}")]
    Failed(String),
    /// Entries that are set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// A task's thread.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The copy of the index.
    #[error("the copy of the index: {0}")]
    Base(std::io::Error),
    /// The index was lost, and old records of the log are gone.
    #[error(
        "the index has applied {applied} records, but the log begins behind record {purged}: the index was lost or replaced. Put back the folder 'index' or 'base' of this broker, or restore a backup"
    )]
    IndexLost {
        /// Index of the last record applied.
        applied: LogIndex,
        /// Index of the last record that is gone.
        purged: LogIndex,
    },
    /// Files of log and index do not belong together.
    #[error(
        "the index has applied the log up to position {applied}, but the log ends at {end}: they do not belong together, or the log lost flushed bytes. Run `escrowmq fsck` on the data folder"
    )]
    IndexAhead {
        /// End of what the index has applied.
        applied: u64,
        /// End of the log.
        end: u64,
    },
}

/// A shard and its group that run. [`close`](Self::close) it to end in good order.
pub(crate) struct Storage {
    /// The handle for everybody else.
    pub shard: Shard,
    /// The time that entries are stamped with.
    pub time: Arc<SteadyClock>,
    applier: Arc<Applier>,
    log: Log,
    member: Arc<Member<Applier>>,
    proposer: JoinHandle<()>,
    tasks: Tasks,
}

impl Storage {
    /// Opens the storage in its folder and returns when everything committed is applied and commands are taken.
    pub(crate) async fn open(settings: StorageSettings, clock: Clock) -> Result<Self, StorageError> {
        Self::open_on(Arc::new(RealDisk), settings, clock).await
    }

    /// Like [`open`](Self::open), with the log's files on this disk. The index is on the machine's file system.
    pub(crate) async fn open_on(
        disk: Arc<dyn Disk>,
        settings: StorageSettings,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        let dir = settings.dir.clone();
        Self::open_parts(disk, move || open_index(&dir), settings, clock).await
    }

    /// Like [`open_on`](Self::open_on), with an index from elsewhere.
    pub(crate) async fn open_parts(
        disk: Arc<dyn Disk>,
        index: impl FnOnce() -> Result<Index, StorageError> + Send + 'static,
        settings: StorageSettings,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        let tasks = Tasks::new();
        let opened = tasks.spawn_blocking("open storage", move || open_files(disk, index()?, &settings));
        let (shard, applier, log) = opened.await.ok().flatten().unwrap_or_else(|| {
            Err(StorageError::Thread(std::io::Error::other("the files could not be opened: a task panicked")))
        })?;
        let time = Arc::new(SteadyClock::start(clock, shard.counters().stamp()));
        let started = start(&shard, &applier, &log, &time, &tasks).await;
        match started {
            Ok((member, proposer)) => Ok(Self { shard, time, applier, log, member, proposer, tasks }),
            Err(error) => {
                shard.executor().stop();
                applier.stop_flushes();
                tasks.join().await;
                // Raft may keep handles for a moment longer; the folder is free all the same. The error already says how the
                // log failed, if it did.
                let _ = log.close();
                Err(error)
            }
        }
    }

    /// Asks for records to leave the log.
    pub(crate) fn purger(&self) -> &Purger {
        self.member.purger()
    }

    /// The state machine, for retention.
    pub(crate) fn applier(&self) -> &Arc<Applier> {
        &self.applier
    }

    /// Finishes what was submitted, flushes index and log, ends the threads.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.shard.intake().stop();
        // A task that panicked has ended as well.
        let _ = self.proposer.await;
        self.shard.executor().stop();
        self.applier.stop_flushes();
        self.tasks.join().await;
        self.log.close()
    }
}

/// Starts the threads and the member. Returns when the member leads and has applied all that was committed.
async fn start(
    shard: &Shard,
    applier: &Arc<Applier>,
    log: &Log,
    time: &Arc<SteadyClock>,
    tasks: &Tasks,
) -> Result<(Arc<Member<Applier>>, JoinHandle<()>), StorageError> {
    let (flusher, executor) = (Arc::clone(applier), shard.executor().clone());
    tasks.spawn_thread("index-flush", move || flusher.run_flushes()).map_err(StorageError::Thread)?;
    let (own, timers) = (executor.clone(), Handle::current());
    tasks.spawn_thread("shard", move || own.run(timers)).map_err(StorageError::Thread)?;
    let latch = log.latch().clone();
    let member = Member::start(log.clone(), executor.clone(), Arc::clone(applier), latch.clone()).await?;
    let member = Arc::new(member);
    let proposer = executor.spawn(Proposer::new(shard, Arc::clone(&member), Arc::clone(time)).run());
    tokio::select! {
        () = shard.intake().takes() => return Ok((member, proposer)),
        () = latch.closed() => {}
    }
    // A task that panicked has ended as well.
    let _ = proposer.await;
    Err(StorageError::Failed(latch.failure().map_or_else(String::new, Failure::cause)))
}

/// Opens the index in the data folder; a lost one comes back from the last copy.
fn open_index(dir: &Path) -> Result<Index, StorageError> {
    if restore_base(dir).map_err(StorageError::Base)? {
        tracing::warn!("there was no index; it is built again from the last copy and the log");
    }
    Ok(Index::open(&dir.join(INDEX))?)
}

/// Opens the log beside an index, and puts both together.
pub(crate) fn open_files(
    disk: Arc<dyn Disk>,
    index: Index,
    settings: &StorageSettings,
) -> Result<(Shard, Arc<Applier>, Log), StorageError> {
    // RocksDB's own log is off: what is read back after opening was flushed, and the log was durable up to there.
    let applied = meta::applied(&index)?.unwrap_or_default();
    let log_settings = LogSettings { durable_at_least: Position(applied.end), ..settings.log.clone() };
    let log = Log::open(disk, &settings.dir.join("log"), log_settings)?;
    if log.end() < Position(applied.end) {
        return Err(StorageError::IndexAhead { applied: applied.end, end: log.end().0 });
    }
    if let Some(purged) = log.purged().filter(|purged| purged.index > applied.index) {
        return Err(StorageError::IndexLost { applied: applied.index, purged: purged.index });
    }
    let quarantine = Quarantine::read(&settings.dir)?;
    if !quarantine.is_empty() {
        tracing::warn!(entries = quarantine.len(), "entries of the log are in quarantine: what they held is lost");
    }
    let (shard, applier) = Shard::open(index, log.clone(), quarantine)?;
    Ok((shard, applier, log))
}
