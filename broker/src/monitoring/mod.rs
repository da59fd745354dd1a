//! The pages that monitoring asks for: `GET /metrics` in the text format of Prometheus, and `GET /ready`.
//!
//! Each figure is read from the part that knows it when the page is asked for, so nothing is counted twice.
//!
//! Promises: the page costs a bounded look at the oldest halves, however many there are; bad input on the port costs its sender a
//! closed connection. Left to others: alarms.

mod http;
mod page;

use std::sync::Arc;

use escrowmq_common::remoting::Budget;
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::watch;

use crate::config::CurrentConfig;
use crate::delivery::Delivery;
use crate::gate::Gate;
use crate::group::Group;
use crate::metrics::Metrics;
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

impl Monitor {
    /// Whether requests are served or passed on; else why not.
    fn readiness(&self) -> Result<(), &'static str> {
        if self.stopping.is_cancelled() {
            Err("stopping")
        } else if self.shard.intake().latch().is_closed() {
            Err("the store failed and takes no writes until a restart")
        } else if self.role() == Role::Leaderless {
            Err("no leader of the group is known")
        } else {
            Ok(())
        }
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
