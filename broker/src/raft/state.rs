//! The state machine as openraft sees it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, RaftSnapshotBuilder, Snapshot, SnapshotMeta};

use super::log_store::Awaiting;
use super::{LogId, StoredMembership, TypeConfig, log_id, membership};
use crate::shard::Applier;
use crate::shard::apply::{CommittedEntry, Content};

/// Entries applied in one go, in bytes: bounds memory and the length of one index write.
const APPLY_BYTES: usize = 1024 * 1024;

/// Feeds committed entries to the shard.
pub(super) struct State {
    applier: Arc<Applier>,
    awaiting: Arc<Awaiting>,
}

impl State {
    pub(super) fn new(applier: Arc<Applier>, awaiting: Arc<Awaiting>) -> Self {
        Self { applier, awaiting }
    }
}

impl RaftStateMachine<TypeConfig> for State {
    type SnapshotData = ();
    type SnapshotBuilder = Snapshots;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        applied_state(&self.applier)
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut ready = Vec::new();
        let mut responders = Vec::new();
        let mut bytes = 0;
        loop {
            let next = entries.try_next().await.inspect_err(|_| self.awaiting.fail())?;
            let ended = next.is_none();
            if let Some((entry, responder)) = next {
                let id = entry.id();
                let extent = entry.extent.ok_or_else(|| io::Error::other("an entry that was not read from the log"))?;
                let content = match &entry.payload {
                    EntryPayload::Blank => Content::Blank,
                    EntryPayload::Normal(proposal) => {
                        bytes += proposal.batch.len();
                        Content::Batch(proposal.batch.clone())
                    }
                    EntryPayload::Membership(members) => {
                        Content::Membership(Bytes::from(membership::encode_stored(&id, members)))
                    }
                };
                ready.push(CommittedEntry {
                    term: entry.term(),
                    index: entry.index(),
                    payload_position: extent.payload,
                    end: extent.end,
                    content,
                    completions: self.awaiting.take(entry.index()),
                });
                responders.extend(responder);
            }
            if ended || bytes >= APPLY_BYTES {
                self.applier.room().await;
                self.applier.apply(std::mem::take(&mut ready)).map_err(|error| {
                    self.awaiting.fail();
                    io::Error::other(error)
                })?;
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

    async fn get_snapshot_builder(&mut self) -> Snapshots {
        Snapshots { applier: Arc::clone(&self.applier) }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMetaOf<TypeConfig>, _snapshot: ()) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a group of one member installs no snapshots"))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, ()>>> {
        Ok(None)
    }
}

/// Openraft purges its log only below a snapshot. In a group of one voter there is nobody to send one to: the index is
/// the snapshot, and this says how far it has come.
pub(super) struct Snapshots {
    applier: Arc<Applier>,
}

impl RaftSnapshotBuilder<TypeConfig> for Snapshots {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, ()>> {
        let (last_log_id, last_membership) = applied_state(&self.applier)?;
        Ok(Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: () })
    }
}

fn applied_state(applier: &Applier) -> io::Result<(Option<LogId>, StoredMembership)> {
    let applied = applier.applied();
    let members = applier.membership().map_err(io::Error::other)?;
    let members = members.map_or_else(|| Ok(StoredMembership::default()), |bytes| membership::decode_stored(&bytes))?;
    Ok((applied.map(|applied| log_id(applied.term, applied.index)), members))
}
