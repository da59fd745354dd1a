//! Changes of the membership: each is an entry of the log, or two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::BasicNode;

use super::member::Member;
use super::members::{Members, Progress};
use super::state::StateMachine;
use super::{TypeConfig, index_of, membership};
use crate::executor::Timeout;
use crate::log::{AppendError, NewRecord, Room};
use crate::terms::LogIndex;

/// The time that a change has: two entries that majorities flush, with a stalled disk among them.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// An address is a name of a host and a few characters.
const ADDRESS_BYTES_MAX: usize = 512;

/// Why the membership was not changed, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// This member does not lead, or hears from no majority.
    #[error("this member cannot change the group now, as it does not lead it; nothing was changed, ask the leader")]
    NotLeading,
    /// The change contradicts the membership, or another change is under way.
    #[error("the members of the group cannot be changed so: {0}; nothing was changed")]
    Refused(String),
    /// Nobody knows yet.
    #[error("whether the members of the group were changed is not known: {0}; look at them before trying again")]
    Unknown(String),
    /// The member has ended.
    #[error("the members of the group cannot be changed, as this member has ended")]
    Ended,
}

type Write = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

impl From<Write> for ChangeError {
    fn from(error: Write) -> Self {
        match error {
            RaftError::Fatal(_) => Self::Ended,
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Self::NotLeading,
            RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => Self::Unknown(error.to_string()),
            RaftError::APIError(error) => Self::Refused(error.to_string()),
        }
    }
}

impl<M: StateMachine> Member<M> {
    /// The members of the group, now and at each change.
    pub(crate) fn members(&self) -> tokio::sync::watch::Receiver<Members> {
        self.members.clone()
    }

    /// The last entry of the log, and how far each member is, if this member leads.
    pub(crate) fn progress(&self) -> Option<(LogIndex, BTreeMap<u64, Progress>)> {
        let now = self.executor.now();
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let (matched, heard) = (seen.replication.as_ref()?, seen.heartbeat.as_ref()?);
        let of = |id: &u64, matched: &Option<super::LogId>| {
            let heard = heard.get(id).copied().flatten().map(|at| now.saturating_sub(at.into_inner().get()));
            let contact = if *id == seen.id { Some(Duration::ZERO) } else { heard };
            Progress { matched: matched.as_ref().map(index_of), contact }
        };
        let progress = matched.iter().map(|(id, matched)| (*id, of(id, matched))).collect();
        Some((LogIndex(seen.last_log_index.unwrap_or_default()), progress))
    }

    /// Takes a member that gets the log and has no vote.
    pub(crate) async fn add_learner(&self, node: u64, address: &str) -> Result<(), ChangeError> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node, BasicNode { addr: address.to_owned() })]))).await
    }

    /// Lets members go that are no voters.
    pub(crate) async fn remove_learners(&self, nodes: BTreeSet<u64>) -> Result<(), ChangeError> {
        self.change(ChangeMembers::RemoveNodes(nodes)).await
    }

    /// Makes these members the voters; those that were, and are not among them, are members no more. If that was begun and
    /// not ended, doing it again ends it.
    pub(crate) async fn replace_voters(&self, voters: BTreeSet<u64>) -> Result<(), ChangeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Changes the address of a member. Where it is reached must be the same member: two would be taken for one.
    pub(crate) async fn set_address(&self, node: u64, address: &str) -> Result<(), ChangeError> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(node, BasicNode { addr: address.to_owned() })]))).await
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ChangeError> {
        let (raft, executor) = (self.raft.clone(), self.executor.clone());
        let (log, claims, bytes) = (self.log.clone(), self.claims().clone(), self.entry_bytes());
        let changing = self.executor.spawn(async move {
            // Openraft takes an append that fails for the end of its storage. A change of the voters is two entries.
            let _room = claims.claim(&log, &[bytes; 2], Room::Reserve).map_err(|error| no_room(&error))?;
            let sleep = executor.sleep_until(executor.now() + CHANGE_PATIENCE);
            match Timeout::new(Box::pin(raft.change_membership(change, false)), sleep).await {
                Ok(changed) => Ok(changed.map(drop)?),
                Err(_) => Err(ChangeError::Unknown(format!("no majority answered in {} s", CHANGE_PATIENCE.as_secs()))),
            }
        });
        changing.await.unwrap_or(Err(ChangeError::Ended))
    }

    /// The bytes of an entry at most that adds a member, or is on the way from one set of voters to another.
    fn entry_bytes(&self) -> u64 {
        let metrics = self.raft.metrics();
        let members = membership::encode(metrics.borrow_watched().membership_config.membership());
        NewRecord::bytes_with(2 * members.len() + ADDRESS_BYTES_MAX)
    }
}

fn no_room(error: &AppendError) -> ChangeError {
    match error {
        AppendError::NoSpace { .. } => ChangeError::Refused(format!("the leader's log has no room: {error}")),
        _ => ChangeError::Ended,
    }
}
