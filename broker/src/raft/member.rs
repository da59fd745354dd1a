//! A member of the group: its core, its leadership, and the loop that purges.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::impls::BasicNode;
use openraft::{Config, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::entry::{OnAppend, Proposal};
use super::leadership::Leadership;
use super::log_store::LogStore;
use super::network::NoPeers;
use super::state::{State, StateMachine};
use super::{TypeConfig, index_of};
use crate::executor::{Executor, JoinHandle};
use crate::latch::{Failure, FailureLatch};
use crate::log::Log;
use crate::planted::{Bug, planted};
use crate::terms::LogIndex;

/// How long openraft may take for a snapshot: it asks the state machine how far it is.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);
/// The id of the only voter.
const NODE_ID: u64 = 1;

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Raft's settings contradict each other.
    #[error("raft settings: {0}")]
    Settings(String),
    /// The core did not start.
    #[error("raft: {0}")]
    Raft(String),
    /// The executor ended first.
    #[error("the shard's thread ended before raft was ready")]
    Executor,
}

/// A running member of the group, with the state machine `M`. Dropping it does not end it; [`end`](Self::end) does.
pub(crate) struct Member<M: StateMachine> {
    raft: Raft<TypeConfig, State<M>>,
    leadership: watch::Receiver<Leadership>,
    purger: Purger,
    tasks: Mutex<Vec<JoinHandle<()>>>,
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

impl<M: StateMachine> Member<M> {
    /// Starts the member on an executor that runs, and asks for an election. It alone writes to the log from now on.
    pub(crate) async fn start(
        log: Log,
        executor: Executor,
        machine: Arc<M>,
        latch: FailureLatch,
    ) -> Result<Self, MemberError> {
        let (own, state) = (executor.clone(), Arc::clone(&machine));
        let holder = latch.clone();
        let raft = executor.spawn(async move { open(log, own, state, holder).await });
        let raft = raft.await.map_err(|_| MemberError::Executor)??;
        let (sender, leadership) = watch::channel(Leadership::Following);
        let purger = Purger::default();
        let watching = executor.spawn(watch_leadership(raft.clone(), sender, latch));
        let purging = executor.spawn(purge(raft.clone(), machine, purger.clone(), leadership.clone()));
        Ok(Self { raft, leadership, purger, tasks: Mutex::new(vec![watching, purging]) })
    }

    /// Proposes bytes for the log. `on_append` is called with their index when they are about to enter it; if it is dropped,
    /// this member does not lead. An error says that the member has ended.
    pub(crate) async fn propose(&self, payload: Bytes, on_append: OnAppend) -> io::Result<()> {
        self.raft.client_write_ff(Proposal::new(payload, on_append), None).await.map_err(io::Error::other)
    }

    /// Whether this member leads, now and at each change. The channel closes when the member ends.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Asks for records to leave the log.
    pub(crate) fn purger(&self) -> &Purger {
        &self.purger
    }

    /// Ends the member; returns when its core and its tasks have ended.
    pub(crate) async fn end(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "raft did not end cleanly");
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // One that panicked has ended as well.
            let _ = task.await;
        }
    }
}

/// Opens the core, and has it elect itself. On the executor: openraft spawns its tasks where it is opened.
async fn open<M: StateMachine>(
    log: Log,
    executor: Executor,
    machine: Arc<M>,
    latch: FailureLatch,
) -> Result<Raft<TypeConfig, State<M>>, MemberError> {
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
    let config = config.validate().map_err(|error| MemberError::Settings(error.to_string()))?;
    let fail = |error: &dyn std::fmt::Display| MemberError::Raft(error.to_string());
    let store = LogStore::new(log, executor, Arc::clone(&machine), latch.clone());
    let state = State::new(machine, latch);
    let raft = Raft::new(NODE_ID, Arc::new(config), NoPeers, store, state).await.map_err(|error| fail(&error))?;
    let members: BTreeMap<u64, BasicNode> = BTreeMap::from([(NODE_ID, BasicNode::default())]);
    match raft.initialize(members).await {
        Ok(()) => {}
        // Not the first start: an election now, instead of after a time-out.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
            raft.trigger().elect(false).await.map_err(|error| fail(&error))?;
        }
        Err(error) => return Err(fail(&error)),
    }
    Ok(raft)
}

/// Tells when this member begins and ceases to lead, until the core ends.
async fn watch_leadership<M: StateMachine>(
    raft: Raft<TypeConfig, State<M>>,
    sender: watch::Sender<Leadership>,
    latch: FailureLatch,
) {
    let mut metrics = raft.metrics();
    let mut leads = None;
    let ended = loop {
        let (leader, term, running) = {
            let seen = metrics.borrow_watched();
            (seen.current_leader, seen.current_term, seen.running_state.clone())
        };
        if let Err(error) = running {
            break error;
        }
        let leading = (leader == Some(NODE_ID)).then_some(term);
        if leads != leading {
            sender.send_replace(Leadership::Following);
            leads = None;
        }
        if let (Some(term), None) = (leading, leads) {
            // An entry of the own term is applied after everything that was committed before.
            match raft.write_blank().await {
                Ok(_) => {
                    sender.send_replace(Leadership::Leading { term });
                    leads = leading;
                    continue;
                }
                // Lost already, and the metrics will say so.
                Err(RaftError::APIError(_)) => {}
                Err(RaftError::Fatal(error)) => break error,
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    };
    sender.send_replace(Leadership::Following);
    if !matches!(ended, openraft::errors::Fatal::Stopped) {
        latch.close(Failure::storage("agreement on the log", io::Error::other(ended)));
    }
}

/// Purges up to where retention asks for, until the core ends.
async fn purge<M: StateMachine>(
    raft: Raft<TypeConfig, State<M>>,
    machine: Arc<M>,
    purger: Purger,
    mut leadership: watch::Receiver<Leadership>,
) {
    loop {
        tokio::select! {
            biased;
            () = purger.wanted.changed.notified() => {}
            // The sender of leadership has ended, and so has the core.
            _ = leadership.wait_for(|_| false) => return,
        }
        let upto = LogIndex(purger.wanted.upto.load(Ordering::Acquire));
        let applied = machine.applied().filter(|_| planted(Bug::PurgedBeyondBase));
        let upto = applied.map_or(upto, |(_, index)| index);
        // Openraft purges below a snapshot only; ours is the state machine's own disk, wherever it is.
        let covered = async {
            raft.trigger().snapshot().await?;
            let covers = "a snapshot that covers the purge";
            let waiting = raft.wait(Some(SNAPSHOT_PATIENCE));
            let covered = waiting.metrics(|metrics| metrics.snapshot.is_some_and(|id| index_of(&id) >= upto), covers);
            if let Err(error) = covered.await {
                tracing::warn!(%error, %upto, "old records stay for now");
                return Ok(());
            }
            raft.trigger().purge_log(upto.get()).await
        };
        if covered.await.is_err() {
            // The core has ended; whoever saw why has closed the latch.
            return;
        }
    }
}
