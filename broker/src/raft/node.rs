//! A member of the group: its core, and the loop that proposes batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::task::Tasks;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::impls::BasicNode;
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::entry::Proposal;
use super::log_store::{Awaiting, LogStore};
use super::network::NoPeers;
use super::room::{Claim, Claims};
use super::state::State;
use super::{TypeConfig, index_of};
use crate::log::Log;
use crate::log::{AppendError, NewRecord, Room};
use crate::planted::{Bug, planted};
use crate::shard::{Applier, Completions, Full, HEAD_BYTES, ReadyBatch, Shard, SubmitError, fail_all};
use crate::steady_clock::SteadyClock;
use crate::terms::LogIndex;

/// How long openraft may take for a snapshot: it asks the state machine how far it is.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
/// The id of the only voter.
const NODE_ID: u64 = 1;

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Raft's settings contradict each other.
    #[error("raft settings: {0}")]
    Settings(String),
    /// The core ended: its log or state failed.
    #[error("raft: {0}")]
    Raft(String),
    /// The thread could not be started, or ended early.
    #[error("the shard's thread: {0}")]
    Thread(String),
}

/// A running member of the group. Dropping it does not stop it; [`stop`](Self::stop) does.
pub(crate) struct Node {
    ended: oneshot::Receiver<()>,
    shard: Shard,
    purger: Purger,
}

/// Asks for records to leave the log.
#[derive(Clone, Default)]
pub(crate) struct Purger {
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Wanted {
    upto: AtomicU64,
    changed: Notify,
}

impl Purger {
    /// Lets whole files go whose records all have an index of at most `upto`. The caller knows that the state which
    /// follows from them is on disk. Happens later.
    pub(crate) fn purge(&self, upto: LogIndex) {
        if LogIndex(self.wanted.upto.fetch_max(upto.get(), Ordering::AcqRel)) < upto {
            self.wanted.changed.notify_one();
        }
    }
}

impl Node {
    /// Starts the member on the shard's executor, and returns when it leads and has applied all that was committed. It alone
    /// writes to the shard's log.
    pub(crate) async fn start(
        shard: Shard,
        log: Log,
        applier: Arc<Applier>,
        time: Arc<SteadyClock>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let (ready_sender, ready) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let purger = Purger::default();
        let member = Member { shard: shard.clone(), log, applier, time, purger: purger.clone() };
        let executor = shard.executor();
        let (own, timers) = (executor.clone(), Handle::current());
        let thread = tasks.spawn_thread("shard", move || own.run(timers));
        thread.map_err(|error| StartError::Thread(error.to_string()))?;
        executor.spawn(async move {
            member.run(ready_sender).await;
            // Whoever stops the node may have given up waiting.
            let _ = ended_sender.send(());
        });
        let started = ready.await;
        if !matches!(started, Ok(Ok(()))) {
            executor.stop();
        }
        started.map_err(|_| StartError::Thread("ended before it was ready".to_owned()))??;
        Ok(Self { ended, shard, purger })
    }

    /// Who may ask for records to leave the log.
    pub(crate) fn purger(&self) -> &Purger {
        &self.purger
    }

    /// Stops taking commands, finishes those at hand, and ends the thread.
    pub(crate) async fn stop(self) {
        self.shard.intake().stop();
        // The task sends, or drops the sender: it has ended either way.
        let _ = self.ended.await;
        self.shard.executor().stop();
    }
}

/// What runs on the executor.
struct Member {
    shard: Shard,
    log: Log,
    applier: Arc<Applier>,
    time: Arc<SteadyClock>,
    purger: Purger,
}

impl Member {
    async fn run(self, ready: oneshot::Sender<Result<(), StartError>>) {
        let awaiting = Arc::new(Awaiting::default());
        let raft = match self.lead(&awaiting).await {
            Ok(raft) => raft,
            Err(error) => {
                // Whoever starts us may have given up.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        tokio::select! {
            () = self.propose(&raft) => {}
            () = self.purge(&raft) => {}
            () = awaiting.failed() => {
                let why = self.log.failure().map(|failure| failure.to_string());
                tracing::error!(why, "the store failed: no writes until a restart; reads go on");
                self.shard.intake().set_failed();
            }
        }
        if let Err(error) = raft.shutdown().await {
            tracing::error!(%error, "raft did not end cleanly");
        }
        self.shard.intake().set_failed();
        awaiting.clear();
    }

    /// Opens the member, makes it the leader, and waits until all that was committed is applied.
    async fn lead(&self, awaiting: &Arc<Awaiting>) -> Result<Raft<TypeConfig, State>, StartError> {
        let config = Config {
            cluster_name: "escrowmq".to_owned(),
            heartbeat_interval: 300,
            election_timeout_min: 1500,
            election_timeout_max: 3000,
            // Files go by retention alone.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            // A resumed leader would use a lost term and index again.
            enable_leader_restore: Some(false),
            // Nobody to beat for while this is the only voter; without ticks an idle broker costs nothing.
            enable_heartbeat: false,
            enable_tick: false,
            ..Config::default()
        };
        let config = config.validate().map_err(|error| StartError::Settings(error.to_string()))?;
        let fail = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
        let store = LogStore::new(self.log.clone(), self.shard.executor().clone(), Arc::clone(awaiting));
        let state = State::new(Arc::clone(&self.applier), Arc::clone(awaiting));
        let raft = Raft::new(NODE_ID, Arc::new(config), NoPeers, store, state).await.map_err(|error| fail(&error))?;
        let members: BTreeMap<u64, BasicNode> = BTreeMap::from([(NODE_ID, BasicNode::default())]);
        match raft.initialize(members).await {
            Ok(()) => {}
            // Not the first start: elect ourselves now instead of after a time-out.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                raft.trigger().elect(false).await.map_err(|error| fail(&error))?;
            }
            Err(error) => return Err(fail(&error)),
        }
        // The first entry of our own term is applied behind everything that was committed before.
        let barrier = async {
            loop {
                match raft.write_blank().await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::APIError(_)) => {
                        raft.wait(None)
                            .metrics(|metrics| metrics.current_leader == Some(NODE_ID), "this node leads")
                            .await
                            .map_err(|error| fail(&error))?;
                    }
                    Err(error) => return Err(fail(&error)),
                }
            }
        };
        barrier.await?;
        Ok(raft)
    }

    /// Purges what retention asks for. Ends when the core has ended.
    async fn purge(&self, raft: &Raft<TypeConfig, State>) {
        let failed = loop {
            self.purger.wanted.changed.notified().await;
            let upto = LogIndex(self.purger.wanted.upto.load(Ordering::Acquire));
            let applied = self.applier.applied().filter(|_| planted(Bug::PurgedBeyondBase));
            let upto = applied.map_or(upto, |applied| applied.index);
            // Openraft purges below a snapshot only; ours is the index, wherever it is.
            if let Err(error) = raft.trigger().snapshot().await {
                break error;
            }
            let covers = "a snapshot that covers what is purged";
            let waiting = raft.wait(Some(SNAPSHOT_PATIENCE));
            let covered = waiting.metrics(|metrics| metrics.snapshot.is_some_and(|id| index_of(&id) >= upto), covers);
            if let Err(error) = covered.await {
                tracing::warn!(%error, %upto, "old records stay for now");
                continue;
            }
            if let Err(error) = raft.trigger().purge_log(upto.get()).await {
                break error;
            }
        };
        tracing::error!(%failed, "the store failed: nothing can be purged");
        // Whoever proposes next, or waits, is told by those who saw the failure itself.
        std::future::pending::<()>().await;
    }

    /// Turns ready batches into entries until the intake is stopped and drained, or the core has ended.
    async fn propose(&self, raft: &Raft<TypeConfig, State>) {
        let claims = Claims::default();
        while let Some(ready) = self.shard.intake().next().await {
            let Some(ready) = self.read_back(ready) else { continue };
            let Some((ReadyBatch { batch, completions }, claim)) = self.make_room(&claims, ready) else { continue };
            let bytes = batch.seal(self.time.now());
            let size = (bytes.len() - HEAD_BYTES) as u64;
            let proposal = Proposal::new(bytes, Some(Completions::new(completions))).with_claim(claim);
            if let Err(error) = raft.client_write_ff(proposal, None).await {
                tracing::error!(%error, bytes = size, "the store failed: no writes until a restart");
                self.shard.intake().entry_done(size);
                self.shard.intake().set_failed();
                return;
            }
        }
        // Everything taken was proposed; now it must be applied.
        while self.shard.intake().entries() > 0 {
            if raft.metrics().borrow_watched().running_state.is_err() {
                return;
            }
            let drained = self.shard.intake().drained();
            if tokio::time::timeout(Duration::from_millis(100), drained).await.is_ok() {
                break;
            }
        }
    }

    /// Reads a batch back. One that does not decode is not proposed: in the log it would stop every member at each start.
    fn read_back(&self, ready: ReadyBatch) -> Option<ReadyBatch> {
        let Err(error) = ready.batch.check() else { return Some(ready) };
        tracing::error!(%error, "a batch does not decode, which is a fault of the broker: nothing of it is stored");
        let intake = self.shard.intake();
        intake.note_unencodable();
        intake.entry_done(ready.batch.command_bytes());
        fail_all(ready.completions, &SubmitError::Unencodable);
        None
    }

    /// Sets room aside for a batch. Without room its new messages are refused, and the rest may use the log's reserve;
    /// without even that all is refused.
    fn make_room(&self, claims: &Claims, ready: ReadyBatch) -> Option<(ReadyBatch, Claim)> {
        let (log, intake) = (&self.log, self.shard.intake());
        let room = if ready.batch.brings_messages() { Room::Common } else { Room::Reserve };
        let error = match claims.claim(log, NewRecord::bytes_with(ready.batch.len()), room) {
            Ok(claim) => return Some((ready, claim)),
            Err(error) => error,
        };
        let before = ready.batch.command_bytes();
        if !matches!(error, AppendError::NoSpace { .. }) {
            tracing::error!(%error, "the store failed: no writes until a restart");
            fail_all(ready.completions, &SubmitError::StoreFailed);
            intake.entry_done(before);
            intake.set_failed();
            return None;
        }
        if intake.set_full(Full::Log, true) {
            tracing::error!(%error, "disk full: new messages are refused until there is room; decisions and reads go on");
        }
        let (rest, stayed) = ready.batch.without_messages();
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (completion, stayed) in ready.completions.into_iter().zip(stayed) {
            if stayed { kept.push(completion) } else { refused.push(completion) }
        }
        let after = if rest.is_empty() { before } else { rest.command_bytes() };
        intake.shrunk(before, after, refused.len() as u64);
        fail_all(refused, &SubmitError::DiskFull);
        if rest.is_empty() {
            intake.entry_done(after);
            return None;
        }
        if let Ok(claim) = claims.claim(log, NewRecord::bytes_with(rest.len()), Room::Reserve) {
            return Some((ReadyBatch { batch: rest, completions: kept }, claim));
        }
        fail_all(kept, &SubmitError::DiskFull);
        intake.entry_done(after);
        None
    }
}
