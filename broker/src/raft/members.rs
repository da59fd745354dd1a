//! Who is in the group, as the newest membership in this member's log says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use super::counts::Counts;
use super::membership;
use super::state::State;
use super::{StateMachine, StoredMembership, TypeConfig};
use crate::executor::{Executor, JoinHandle};
use crate::terms::LogIndex;

/// The members of the group. They count from when their entry is in the log, committed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The members whose majority decides; those of the later configuration while the group goes from one to another.
    pub(crate) voters: BTreeSet<u64>,
    /// Whether the group is on its way from one set of voters to another.
    pub(crate) is_joint: bool,
    /// All members, with their addresses. Those that are no voters are learners.
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Whether a majority has the entry: another leader cannot take it back.
    pub(crate) is_committed: bool,
}

impl Members {
    pub(super) fn of(stored: &StoredMembership, is_committed: bool) -> Self {
        let membership = stored.membership();
        let configs = membership.get_joint_config();
        Self {
            voters: configs.last().cloned().unwrap_or_default(),
            is_joint: configs.len() > 1,
            addresses: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
            is_committed,
        }
    }

    /// Whether there is no membership yet: the group is not founded, or nothing of it has come here.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whether this member is the only one.
    pub(crate) fn is_sole(&self, node: u64) -> bool {
        self.addresses.len() == 1 && self.voters.len() == 1 && self.voters.contains(&node)
    }
}

/// How far a member is, as the leader knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last entry that it is known to have.
    pub(crate) matched: Option<LogIndex>,
    /// How long ago a request was sent that it answered; `None` if it answered none since this member leads. Zero for the
    /// leader itself.
    pub(crate) contact: Option<Duration>,
}

/// The members now and at each change, and the task that tells them until the core ends.
pub(super) fn watch<M: StateMachine>(
    raft: &Raft<TypeConfig, State<M>>,
    executor: &Executor,
    counts: Arc<Counts>,
) -> (watch::Receiver<Members>, JoinHandle<()>) {
    let mut metrics = raft.server_metrics();
    let (sender, members) = watch::channel(Members::default());
    let telling = executor.spawn(async move {
        loop {
            let seen = {
                let seen = metrics.borrow_watched();
                let is_committed = seen.membership_config.log_id() == seen.committed_membership_config.log_id();
                Members::of(&seen.membership_config, is_committed)
            };
            let is_news = *sender.borrow() != seen;
            if is_news {
                counts.retain(|member| seen.addresses.contains_key(&member));
                sender.send_replace(seen);
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
    (members, telling)
}

/// The members that a state machine has applied, without starting a member.
pub(super) fn members_applied(machine: &impl StateMachine) -> io::Result<Option<Members>> {
    let bytes = machine.membership()?;
    bytes.map(|bytes| Ok(Members::of(&membership::decode_stored(&bytes)?, true))).transpose()
}
