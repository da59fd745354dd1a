//! Log, shard and group of one data folder: opened, handed to each other, closed.
//!
//! ```text
//! index, log -> Shard, Applier (the state machine) -> Member (the group) -> Proposer
//!              |__________ Opened __________|
//! ```
//!
//! Promises: when [`Storage::open`] returns, everything committed is applied and commands are taken; anything but
//! [`Storage::close`] is a crash, which is safe as well. Leaves to others: what runs on top (`start`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::Tasks;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::executor::{Blocking, JoinHandle};
use crate::index::{Index, IndexError, meta};
use crate::latch::Failure;
use crate::log::{Disk, Log, LogSettings, OpenError, RealDisk, RecordId, SEGMENT_BYTES_MIN};
#[cfg(test)]
use crate::raft::Server;
use crate::raft::{
    ALONE, Ground, Identity, Leadership, Lease, Links, Member, MemberError, Members, NoLinks, Purger, kind, make_sole,
    members_at_end,
};
use crate::shard::{Applier, Batch, INDEX, Proposer, Quarantine, QuarantineError, Shard, restore_base};
use crate::steady_clock::SteadyClock;
use crate::terms::{LogIndex, Position, Stamp};

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
    Thread(io::Error),
    /// The copy of the index.
    #[error("the copy of the index: {0}")]
    Base(io::Error),
    /// The index was lost, and old records of the log are gone.
    #[error(
        "the index has applied {} records, but the log begins behind record {purged}: the index was lost or replaced. Put back the folder 'index' or 'base' of this broker, or restore a backup",
        applied.map_or(0, LogIndex::get)
    )]
    IndexLost {
        /// Index of the last record applied, if any is.
        applied: Option<LogIndex>,
        /// Index of the last record that is gone.
        purged: LogIndex,
    },
    /// The log uses a higher feature level than this build speaks.
    #[error(
        "the log is of feature level {level}, and this build speaks {speaks}: install a version that speaks {level}; the data is whole"
    )]
    TooNew {
        /// The log's level.
        level: u32,
        /// This build's.
        speaks: u32,
    },
    /// Files of log and index do not belong together.
    #[error(
        "the index has applied the log up to position {applied}, but the log ends at {end}: they do not belong together, or the log lost flushed bytes. Run `escrowmq fsck` on the data folder"
    )]
    IndexAhead {
        /// End of what the index has applied.
        applied: Position,
        /// End of the log.
        end: Position,
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
    #[cfg(test)]
    /// Opens the storage in its folder and returns when everything committed is applied and commands are taken.
    pub(crate) async fn open(settings: StorageSettings, clock: Clock) -> Result<Self, StorageError> {
        Self::open_on(Arc::new(RealDisk), settings, clock).await
    }

    #[cfg(test)]
    /// Like [`open`](Self::open), with the log's files on this disk. The index is on the machine's file system.
    pub(crate) async fn open_on(
        disk: Arc<dyn Disk>,
        settings: StorageSettings,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        let dir = settings.dir.clone();
        Self::open_parts(disk, move || open_index(&dir), settings, clock).await
    }

    #[cfg(test)]
    /// Like [`open_on`](Self::open_on), with an index from elsewhere.
    async fn open_parts(
        disk: Arc<dyn Disk>,
        index: impl FnOnce() -> Result<Index, StorageError> + Send + 'static,
        settings: StorageSettings,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        Opened::open_parts(disk, index, settings, clock).await?.start_alone(Identity::alone()).await
    }

    /// Whether this member leads its group, now and at each change.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.member.leadership()
    }

    /// Whether this member may answer reads.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        self.member.lease()
    }

    /// Answers other members.
    #[cfg(test)]
    pub(crate) fn server(&self) -> &Server<Applier> {
        self.member.server()
    }

    /// The member of the group.
    pub(crate) fn member(&self) -> &Arc<Member<Applier>> {
        &self.member
    }

    /// Hands the leadership to another member, if this one leads.
    #[cfg(test)]
    pub(crate) fn hand_over(&self, to: u64) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let member = Arc::clone(&self.member);
        async move { member.hand_over(to).await }
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
        if self.log.is_stepped() {
            // The last turns of the threads that there are not.
            self.shard.executor().drop_tasks();
            self.applier.step();
        }
        self.log.close()
    }
}

/// A data folder that is open, with its threads; the member of the group is not started yet. [`start`](Self::start) it, or
/// [`close`](Self::close) it: dropping it leaves the threads running.
pub(crate) struct Opened {
    parts: Parts,
    tasks: Tasks,
}

impl Opened {
    /// Opens the folder.
    pub(crate) async fn open(settings: StorageSettings, clock: Clock) -> Result<Self, StorageError> {
        let dir = settings.dir.clone();
        Self::open_parts(Arc::new(RealDisk), move || open_index(&dir), settings, clock).await
    }

    async fn open_parts(
        disk: Arc<dyn Disk>,
        index: impl FnOnce() -> Result<Index, StorageError> + Send + 'static,
        settings: StorageSettings,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        let tasks = Tasks::new();
        let opened = tasks.spawn_blocking("open storage", move || Parts::open(disk, index()?, settings, clock));
        let parts = opened.await.ok().flatten().unwrap_or_else(|| {
            Err(StorageError::Thread(io::Error::other("the files could not be opened: a task panicked")))
        })?;
        let opened = Self { parts, tasks };
        match opened.parts.start_threads(&opened.tasks) {
            Ok(()) => Ok(opened),
            Err(error) => {
                opened.close().await;
                Err(StorageError::Thread(error))
            }
        }
    }

    /// Whether anything was ever written to the log, a vote among it.
    pub(crate) fn has_log(&self) -> bool {
        let log = &self.parts.log;
        log.last().is_some() || log.purged().is_some() || log.vote().is_some()
    }

    /// The shard, which takes no commands yet.
    pub(crate) fn shard(&self) -> &Shard {
        &self.parts.shard
    }

    /// The members of the group as the end of the log has them, if it ever had any. Blocks.
    pub(crate) fn members(&self) -> Result<Option<Members>, StorageError> {
        self.parts.members()
    }

    /// Starts a member of a group. Returns when it runs: it may lead soon, later or never.
    pub(crate) async fn start(self, identity: Identity, links: Arc<impl Links>) -> Result<Storage, StorageError> {
        let started = self.parts.start(&self.tasks, identity, links).await;
        if started.is_err() {
            self.close().await;
        }
        started
    }

    /// Starts the only member of a group. Returns when it leads and has applied all that was committed.
    pub(crate) async fn start_alone(self, identity: Identity) -> Result<Storage, StorageError> {
        let started = self.parts.start_alone(&self.tasks, identity).await;
        if started.is_err() {
            self.close().await;
        }
        started
    }

    /// Ends the threads.
    pub(crate) async fn close(self) {
        let Self { parts, tasks } = self;
        parts.shard.executor().stop();
        parts.applier.stop_flushes();
        tasks.join().await;
        // Raft may keep handles for a moment longer; the folder is free all the same. How the log failed, if it did, was said.
        let _ = parts.log.close();
    }
}

/// Log, shard and state machine, opened and put together; nothing runs yet.
#[derive(Clone)]
pub(crate) struct Parts {
    /// The handle for everybody else.
    pub shard: Shard,
    /// The state machine.
    pub applier: Arc<Applier>,
    /// The log.
    pub log: Log,
    /// The time that entries are stamped with.
    pub time: Arc<SteadyClock>,
}

impl Parts {
    /// Opens the log beside an index, and puts both together.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        index: Index,
        settings: StorageSettings,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        // RocksDB's own log is off: what is read back after opening was flushed, and the log was durable up to there.
        let applied = meta::applied(&index)?;
        let end = applied.map_or(Position::ZERO, |applied| applied.end);
        let applied = applied.map(|applied| applied.index);
        let log_settings = LogSettings { durable_at_least: end, clock: clock.clone(), ..settings.log };
        let log = Log::open(disk, &settings.dir.join("log"), log_settings)?;
        if log.end() < end {
            return Err(StorageError::IndexAhead { applied: end, end: log.end() });
        }
        if let Some(purged) = log.purged().filter(|purged| Some(purged.index) > applied) {
            return Err(StorageError::IndexLost { applied, purged: purged.index });
        }
        let quarantine = Quarantine::read(&settings.dir)?;
        if !quarantine.is_empty() {
            tracing::warn!(entries = quarantine.len(), "entries of the log are in quarantine: what they held is lost");
        }
        let (shard, applier) = Shard::open(index, log.clone(), quarantine)?;
        let (level, speaks) = (shard.agreed().level, shard.speaks());
        if level > speaks {
            return Err(StorageError::TooNew { level, speaks });
        }
        let time = Arc::new(SteadyClock::start(clock, shard.counters().stamp()));
        Ok(Self { shard, applier, log, time })
    }

    /// See [`Opened::members`].
    pub(crate) fn members(&self) -> Result<Option<Members>, StorageError> {
        members_at_end(&self.log, &*self.applier).map_err(|error| StorageError::Failed(error.to_string()))
    }

    /// The newest stamp of an entry in the log, applied or not. Blocks.
    pub(crate) fn newest_stamp(&self) -> Result<Stamp, StorageError> {
        let failed = |error: io::Error| StorageError::Failed(error.to_string());
        let (log, applied) = (&self.log, self.applier.applied().map_or(LogIndex::ZERO, |applied| applied.index));
        let mut stamp = self.shard.counters().stamp();
        let end = log.last().map_or(LogIndex::ZERO, |last| last.index.next());
        let mut from = applied.next().max(log.first_index());
        while from < end {
            let records = log.read_entries(from, end, 1 << 20).map_err(failed)?;
            let Some(last) = records.last() else { break };
            from = last.index.next();
            let batches = records.iter().filter(|record| record.kind == kind::BATCH);
            stamp = batches
                .filter_map(|record| Batch::decode(&record.payload).ok())
                .map(|batch| batch.stamp)
                .fold(stamp, Stamp::max);
        }
        Ok(stamp)
    }

    /// Makes `node` the only member of the group whose log this is. Durable when it returns. Blocks.
    pub(crate) fn make_sole(&self, node: u64) -> Result<RecordId, StorageError> {
        make_sole(&self.log, node).map_err(|error| StorageError::Failed(error.to_string()))
    }

    fn start_threads(&self, tasks: &Tasks) -> io::Result<()> {
        let (flusher, executor) = (Arc::clone(&self.applier), self.shard.executor().clone());
        tasks.spawn_thread("index-flush", move || flusher.run_flushes())?;
        let runtime = Handle::current();
        tasks.spawn_thread("shard", move || executor.run(runtime))?;
        Ok(())
    }

    /// Starts the only member of a group on the executor, which somebody runs. Returns when it leads and has applied all that
    /// was committed.
    pub(crate) async fn start_alone(&self, tasks: &Tasks, identity: Identity) -> Result<Storage, StorageError> {
        let storage = self.start(tasks, identity, Arc::new(NoLinks)).await?;
        let latch = storage.log.latch();
        let failed = tokio::select! {
            biased;
            () = latch.closed() => true,
            () = storage.shard.intake().takes() => false,
        };
        if failed {
            let cause = latch.failure().map_or_else(String::new, Failure::cause);
            // A task that panicked has ended as well.
            let _ = storage.proposer.await;
            return Err(StorageError::Failed(cause));
        }
        Ok(storage)
    }

    /// Starts a member of a group on the executor, which somebody runs.
    pub(crate) async fn start(
        &self,
        tasks: &Tasks,
        identity: Identity,
        links: Arc<impl Links>,
    ) -> Result<Storage, StorageError> {
        let Self { shard, applier, log, time } = self.clone();
        let executor = shard.executor().clone();
        let blocking =
            if log.is_stepped() { Blocking::inline() } else { Blocking::new(tasks.clone(), Handle::current()) };
        let (machine, latch) = (Arc::clone(&applier), log.latch().clone());
        let ground = Ground { log: log.clone(), executor: executor.clone(), blocking, machine, latch };
        let member = Arc::new(Member::start(identity, ground, links).await?);
        let proposer = Proposer::new(&shard, Arc::clone(&member), Arc::clone(&time));
        drop(executor.spawn(proposer.give_up_late()));
        drop(executor.spawn(proposer.hear_stamps()));
        let proposer = executor.spawn(proposer.run());
        Ok(Storage { shard, time, applier, log, member, proposer, tasks: tasks.clone() })
    }
}

/// Makes the log of a folder that nobody has open that of a broker that is alone, if it was that of another member. Then a broker
/// starts there alone, or as the first member of a new group. Blocks.
pub(crate) fn make_alone(dir: &Path) -> Result<(), StorageError> {
    // No file of a whole segment for one record.
    let log = LogSettings { segment_bytes: SEGMENT_BYTES_MIN, ..LogSettings::default() };
    let settings = StorageSettings { dir: dir.to_owned(), log };
    let parts = Parts::open(Arc::new(RealDisk), open_index(dir)?, settings, Clock::system())?;
    let made = match parts.members()? {
        Some(members) if !members.is_sole(ALONE) => parts.make_sole(ALONE).map(drop),
        _ => Ok(()),
    };
    let closed = parts.log.close().map_err(|failure| StorageError::Failed(failure.cause()));
    made.and(closed)
}

/// Opens the index in the data folder; a lost one comes back from the last copy.
pub(crate) fn open_index(dir: &Path) -> Result<Index, StorageError> {
    if restore_base(dir).map_err(StorageError::Base)? {
        tracing::warn!("there was no index; it is built again from the last copy and the log");
    }
    Ok(Index::open(&dir.join(INDEX))?)
}
