//! The state machine: as others implement it, and as openraft sees it.

use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{RaftSnapshotBuilder, Snapshot, SnapshotMeta};

use super::{CommittedEntry, LogId, StoredMembership, TypeConfig, log_id, membership};
use crate::latch::{Failure, FailureLatch};
use crate::log::Log;
use crate::terms::LogIndex;

/// Entries applied in one go, in bytes: bounds memory and the length of one index write.
const APPLY_BYTES: usize = 1024 * 1024;

/// The state that a group's entries change. Every member has one, and all of them apply the same entries in the same
/// order.
pub(crate) trait StateMachine: Send + Sync + 'static {
    /// Waits until more may be applied. Awaited before each [`apply`](Self::apply).
    fn room(&self) -> impl Future<Output = ()> + Send;

    /// Applies committed entries, in order. After an error nothing more is applied.
    fn apply(&self, entries: Vec<CommittedEntry>) -> io::Result<()>;

    /// Term and index of the last entry applied.
    fn applied(&self) -> Option<(u64, LogIndex)>;

    /// The membership applied last, as it came.
    fn membership(&self) -> io::Result<Option<Vec<u8>>>;

    /// Whether bytes that were proposed must have a place even on a full disk: with them decisions are made, or room.
    fn is_vital(payload: &[u8]) -> bool;

    /// Entries after `last` leave the log without being applied; all of them if there is none.
    fn truncated(&self, last: Option<LogIndex>);
}

/// Feeds committed entries to a state machine.
pub(super) struct State<M> {
    machine: Arc<M>,
    log: Log,
    latch: FailureLatch,
}

impl<M: StateMachine> State<M> {
    pub(super) fn new(machine: Arc<M>, log: Log, latch: FailureLatch) -> Self {
        Self { machine, log, latch }
    }
}

impl<M> State<M> {
    /// The group cannot go on here: it would differ from the other members.
    fn fail(&self, action: &'static str, error: io::Error) -> io::Error {
        self.latch.close(Failure::storage(action, error)).to_io_error()
    }
}

impl<M: StateMachine> RaftStateMachine<TypeConfig> for State<M> {
    type SnapshotData = ();
    type SnapshotBuilder = Snapshots<M>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        applied_state(&*self.machine)
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut ready = Vec::new();
        let mut responders = Vec::new();
        let mut bytes = 0;
        loop {
            let next = entries.try_next().await.map_err(|error| self.fail("reading the log", error))?;
            let ended = next.is_none();
            if let Some((entry, responder)) = next {
                let entry = CommittedEntry::of(&entry).map_err(|error| self.fail("reading the log", error))?;
                bytes += entry.proposed_bytes();
                ready.push(entry);
                responders.extend(responder);
            }
            if ended || bytes >= APPLY_BYTES {
                self.machine.room().await;
                // After a failure nothing more is answered.
                if let Some(failure) = self.latch.failure() {
                    return Err(failure.to_io_error());
                }
                let applied = self.machine.apply(std::mem::take(&mut ready));
                applied.map_err(|error| self.fail("applying the log", error))?;
                for responder in responders.drain(..) {
                    responder.send(());
                }
                bytes = 0;
            }
            if ended {
                return Ok(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Snapshots<M> {
        Snapshots { machine: Arc::clone(&self.machine) }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMetaOf<TypeConfig>, _snapshot: ()) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "copies of the state are fetched, and opened at a start"))
    }

    /// The oldest state from which the log goes on. A leader asks the network to send it to a member that needs entries which
    /// are gone (`network.rs`), and goes on behind it. Without one the leader would end.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, ()>>> {
        let (applied, last_membership) = applied_state(&*self.machine)?;
        let purged = self.log.purged().map(|purged| log_id(purged.term, purged.index));
        let last_log_id = purged.or(applied);
        let meta = SnapshotMeta { last_log_id, last_membership };
        Ok(last_log_id.is_some().then_some(Snapshot { meta, snapshot: () }))
    }
}

/// Openraft purges its log only below a snapshot. The state machine's own disk is the snapshot, and this says how far it has
/// come. Nobody else gets it from here.
pub(super) struct Snapshots<M> {
    machine: Arc<M>,
}

impl<M: StateMachine> RaftSnapshotBuilder<TypeConfig> for Snapshots<M> {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, ()>> {
        let (last_log_id, last_membership) = applied_state(&*self.machine)?;
        Ok(Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: () })
    }
}

fn applied_state(machine: &impl StateMachine) -> io::Result<(Option<LogId>, StoredMembership)> {
    let members = machine
        .membership()?
        .map_or_else(|| Ok(StoredMembership::default()), |bytes| membership::decode_stored(&bytes));
    Ok((machine.applied().map(|(term, index)| log_id(term, index)), members?))
}
