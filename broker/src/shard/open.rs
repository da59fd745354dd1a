//! Opening a shard: index, log, state machine, and the thread that proposes and applies.

use std::path::Path;
use std::sync::Arc;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::Tasks;

use super::ahead::ReadAhead;
use super::applier::Applier;
use super::apply::{Counters, Signals};
use super::base;
use super::executor::Executor;
use super::group::Groups;
use super::handle::{Shard, ShardSettings, Shared};
use super::intake::Intake;
use super::lost::Lost;
use super::producers::Producers;
use super::quarantine::{Quarantine, QuarantineError};
use super::topic::Topics;
use crate::index::{Index, IndexError, meta};
use crate::log::{Disk, Log, LogFailure, LogSettings, OpenError, RealDisk};
use crate::raft::{Node, Purger, StartError};
use crate::steady_clock::SteadyClock;
use crate::terms::{LogIndex, Position};

/// Why a shard did not open.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The member of the group.
    #[error(transparent)]
    Node(#[from] StartError),
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

/// A shard that runs. [`close`](Self::close) it to end in good order; anything else is a crash, which is safe as well.
pub(crate) struct OpenShard {
    /// The handle for everybody else.
    pub shard: Shard,
    /// The time that entries are stamped with.
    pub time: Arc<SteadyClock>,
    applier: Arc<Applier>,
    log: Log,
    node: Node,
    tasks: Tasks,
}

impl OpenShard {
    /// Opens the shard in its folder and returns when everything committed is applied and commands are taken.
    pub(crate) async fn open(settings: ShardSettings, clock: Clock) -> Result<Self, ShardError> {
        Self::open_on(Arc::new(RealDisk), settings, clock).await
    }

    /// Like [`open`](Self::open), with the log's files on this disk. The index is on the machine's file system.
    pub(crate) async fn open_on(
        disk: Arc<dyn Disk>,
        settings: ShardSettings,
        clock: Clock,
    ) -> Result<Self, ShardError> {
        let dir = settings.dir.clone();
        Self::open_parts(disk, move || open_index(&dir), settings, clock).await
    }

    /// Like [`open_on`](Self::open_on), with an index from elsewhere.
    pub(in crate::shard) async fn open_parts(
        disk: Arc<dyn Disk>,
        index: impl FnOnce() -> Result<Index, ShardError> + Send + 'static,
        settings: ShardSettings,
        clock: Clock,
    ) -> Result<Self, ShardError> {
        let tasks = Tasks::new();
        let opened = tasks.spawn_blocking("open shard", move || open_files(disk, index()?, &settings));
        let (shard, applier, log) = opened.await.ok().flatten().unwrap_or_else(|| {
            Err(ShardError::Thread(std::io::Error::other("the shard's files could not be opened: a task panicked")))
        })?;
        let time = Arc::new(SteadyClock::start(clock, shard.counters().stamp()));
        let flusher = Arc::clone(&applier);
        tasks.spawn_thread("index-flush", move || flusher.run_flushes()).map_err(ShardError::Thread)?;
        let node = match Node::start(shard.clone(), log.clone(), Arc::clone(&applier), Arc::clone(&time), &tasks).await
        {
            Ok(node) => node,
            Err(error) => {
                applier.stop_flushes();
                tasks.join().await;
                // Raft may keep handles for a moment longer; whoever looks at the folder next finds it free all the same. How
                // the log failed, if it did, is in the error already.
                let _ = log.close();
                return Err(error.into());
            }
        };
        Ok(Self { shard, time, applier, log, node, tasks })
    }

    /// Who may ask for records to leave the log.
    pub(crate) fn purger(&self) -> &Purger {
        self.node.purger()
    }

    /// The state machine, for retention.
    pub(crate) fn applier(&self) -> &Arc<Applier> {
        &self.applier
    }

    /// Finishes what was submitted, flushes index and log, ends the threads.
    pub(crate) async fn close(self) -> Result<(), LogFailure> {
        self.node.stop().await;
        self.applier.stop_flushes();
        self.tasks.join().await;
        self.log.close()
    }
}

/// Opens the index in the shard's folder; a lost one comes back from the last copy.
fn open_index(dir: &Path) -> Result<Index, ShardError> {
    if base::restore(dir).map_err(ShardError::Base)? {
        tracing::warn!("there was no index; it is built again from the last copy and the log");
    }
    Ok(Index::open(&dir.join(base::INDEX))?)
}

/// Opens the log beside an index, and puts both together.
pub(in crate::shard) fn open_files(
    disk: Arc<dyn Disk>,
    index: Index,
    settings: &ShardSettings,
) -> Result<(Shard, Arc<Applier>, Log), ShardError> {
    // RocksDB's own log is off: what is read back after opening was flushed, and the log was durable up to there.
    let applied = meta::applied(&index)?.unwrap_or_default();
    let log_settings = LogSettings { durable_at_least: Position(applied.end), ..settings.log.clone() };
    let log = Log::open(disk, &settings.dir.join("log"), log_settings)?;
    if log.end() < Position(applied.end) {
        return Err(ShardError::IndexAhead { applied: applied.end, end: log.end().0 });
    }
    if let Some(purged) = log.purged().filter(|purged| purged.index > applied.index) {
        return Err(ShardError::IndexLost { applied: applied.index, purged: purged.index });
    }
    let quarantine = Quarantine::read(&settings.dir)?;
    if !quarantine.is_empty() {
        tracing::warn!(entries = quarantine.len(), "entries of the log are in quarantine: what they held is lost");
    }
    let shared = Arc::new(Shared {
        executor: Executor::default(),
        intake: Intake::default(),
        topics: Topics::default(),
        groups: Groups::default(),
        producers: Producers::default(),
        lost: Lost::default(),
        index,
        log: log.clone(),
        quarantine,
        ahead: ReadAhead::default(),
        counters: Counters::default(),
        signals: Signals::default(),
    });
    let applier = Arc::new(Applier::new(Arc::clone(&shared))?);
    Ok((Shard { shared }, applier, log))
}
