//! The pages that monitoring asks for: `GET /metrics` in the text format of Prometheus, `GET /ready` and `GET /live`.
//!
//! Each figure is read from the part that knows it when the page is asked for, so nothing is counted twice. The port is open before
//! the store is, since a member may wait long for its group: until then it says what the start waits for.
//!
//! Promises: `/ready` is 200 only where requests are served or passed on; `/live` is 200 while the process answers at all; the page
//! costs a bounded look at the oldest halves, however many there are; bad input on the port costs its sender a closed connection.
//! Left to others: alarms; docs/replication.md has those of a group.

mod group;
mod http;
mod page;

use std::sync::{Arc, OnceLock};

use escrowmq_common::remoting::Budget;
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::watch;

use crate::config::CurrentConfig;
use crate::delivery::Delivery;
use crate::forward::Counts;
use crate::gate::Gate;
use crate::group::Group;
use crate::metrics::{Metrics, Waiting};
use crate::raft::{Leadership, Office};
use crate::retention::Retention;
use crate::shard::Shard;
use crate::steady_clock::SteadyClock;
use crate::transaction::Transactions;

/// The parts whose figures the pages show.
pub(crate) struct Monitor {
    /// Counts of requests and runners.
    pub metrics: Arc<Metrics>,
    /// The store, with its own counts.
    pub shard: Shard,
    /// Half messages that wait.
    pub transactions: Arc<Transactions>,
    /// Room and age.
    pub retention: Arc<Retention>,
    /// Pulls that wait for files.
    pub delivery: Arc<Delivery>,
    /// Searches that wait for a place.
    pub gate: Arc<Gate>,
    /// Bytes and numbers of connections.
    pub budget: Arc<Budget>,
    /// The role that was asked for.
    pub config: CurrentConfig,
    /// For ages.
    pub time: Arc<SteadyClock>,
    /// Where the page is made, which looks into the index.
    pub tasks: Tasks,
    /// The group that this broker is a member of.
    pub group: Group,
    /// Who leads it.
    pub leadership: watch::Receiver<Leadership>,
    /// Whether this member does what only the leader does.
    pub office: Arc<Office>,
    /// What this member passes on.
    pub passing: Arc<Counts>,
    /// What others pass on to it.
    pub arriving: Arc<Counts>,
    /// Cancelled when the broker stops.
    pub stopping: Shutdown,
}

/// The role of this member in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It answers requests.
    Leader,
    /// It passes requests on.
    Follower,
    /// It does neither: there is no leader, or this one hears from no majority.
    Leaderless,
}

/// What the port shows: before the broker serves, and from then on.
#[derive(Default)]
pub(crate) struct Pages {
    waiting: Arc<Waiting>,
    monitor: OnceLock<Arc<Monitor>>,
}

impl Pages {
    /// Where a start says what it waits for.
    pub(crate) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// The broker is about to serve: from now on its figures are shown.
    pub(crate) fn show(&self, monitor: Monitor) {
        // There is one broker behind a port.
        let _ = self.monitor.set(Arc::new(monitor));
    }

    fn readiness(&self) -> Result<(), String> {
        match self.monitor.get() {
            Some(monitor) => monitor.readiness(),
            None => Err(format!("starting: {}", self.waiting.what())),
        }
    }
}

impl Monitor {
    /// Whether requests are served or passed on; else why not.
    fn readiness(&self) -> Result<(), String> {
        let why = if self.stopping.is_cancelled() {
            "stopping"
        } else if self.shard.intake().latch().is_closed() {
            "the store failed and takes no writes until a restart"
        } else {
            let seen = *self.leadership.borrow();
            match (self.role(), seen) {
                (Role::Follower, Leadership::Following { leader: Some(leader), .. })
                    if self.group.is_silent(leader) =>
                {
                    "the leader of the group is heard, and does not answer questions of this member"
                }
                (Role::Leader | Role::Follower, _) => return Ok(()),
                (Role::Leaderless, Leadership::Leading { .. }) => {
                    "this member leads the group, and hears from no majority or is not prepared yet"
                }
                (Role::Leaderless, Leadership::Following { .. }) => "no leader of the group is known",
            }
        };
        Err(why.to_owned())
    }

    fn role(&self) -> Role {
        if self.office.is_held() {
            return Role::Leader;
        }
        match *self.leadership.borrow() {
            Leadership::Following { leader: Some(_), .. } if self.group.hears_leader() => Role::Follower,
            Leadership::Following { .. } | Leadership::Leading { .. } => Role::Leaderless,
        }
    }
}
