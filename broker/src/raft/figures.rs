//! How a member and its group do, for operators.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::counts::Traffic;
use super::index_of;
use super::member::Member;
use super::state::StateMachine;
use crate::terms::LogIndex;

/// How far a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The last entry of its log.
    pub(crate) last: LogIndex,
    /// The last entry that is committed and in its log.
    pub(crate) committed: LogIndex,
    /// The last entry that is committed as far as it knows; its log may not have it yet.
    pub(crate) group_committed: LogIndex,
    /// The last entry that it has applied.
    pub(crate) applied: LogIndex,
}

impl<M: StateMachine> Member<M> {
    /// How far this member is.
    pub(crate) fn reach(&self) -> Reach {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let index = |id: &Option<super::LogId>| id.as_ref().map_or(LogIndex::ZERO, index_of);
        Reach {
            last: LogIndex(seen.last_log_index.unwrap_or_default()),
            committed: index(&seen.local_committed),
            group_committed: index(&seen.cluster_committed).max(index(&seen.local_committed)),
            applied: index(&seen.last_applied),
        }
    }

    /// Terms in which this member has seen a leader, since it started.
    pub(crate) fn leaders_seen(&self) -> u64 {
        self.counts.leaders.get()
    }

    /// What went to another member while this one led; `None` if nothing ever did.
    pub(crate) fn traffic(&self, member: u64) -> Option<Arc<Traffic>> {
        self.counts.traffic_of(member)
    }

    /// Bytes in a second that were sent to another member.
    pub(crate) fn sent_per_second(&self, member: u64) -> u64 {
        self.traffic(member).map_or(0, |traffic| traffic.sent.per_second(self.executor.now()))
    }

    /// Bytes in a second that leaders have sent to this member.
    pub(crate) fn received_per_second(&self) -> u64 {
        self.counts.received.per_second(self.executor.now())
    }

    /// How long ago a leader was last heard of; if none was, how long this member has run.
    pub(crate) fn leader_silence(&self) -> Duration {
        self.executor.now().saturating_sub(self.server().heard())
    }

    /// For how long this member has not known of a majority: a leader since one heard from it, another member since it heard of
    /// a leader. One that votes alone is its own majority.
    pub(crate) fn majority_silence(&self) -> Duration {
        let now = self.executor.now();
        let led = self.leadership().borrow().led();
        let heard = led.and_then(|term| {
            let metrics = self.raft.metrics();
            let seen = metrics.borrow_watched();
            let voters = seen.membership_config.membership().get_joint_config().clone();
            self.contacts.majority_since(term, seen.id, &voters, now)
        });
        now.saturating_sub(heard.unwrap_or_else(|| self.server().heard().max(self.counts.led_until())))
    }
}
