//! What those who watch the broker are shown: `/metrics`, `/ready` and `/live`, over HTTP.
//!
//! Each figure is read from the part that knows it when the page is asked for, so nothing is counted twice. The names are here and
//! nowhere else, a file for each concern; docs/metrics.md explains all of them, and a test compares. The port is open before the
//! store is, since a member may wait long for its group: until then it says what the start waits for.
//!
//! Promises: `/ready` is 200 only where requests are served or passed on; `/live` is 200 while the process answers at all; a scrape
//! costs a bounded look at the index, however much is stored.
//! Left to others: the text and HTTP (`escrowmq_common::monitoring`); alarms.

mod bounded;
mod by_name;
mod group;
mod lag;
mod requests;
mod store;
mod transactions;

use std::sync::{Arc, OnceLock};

use escrowmq_common::monitoring::{self, Families, Site};
use escrowmq_common::remoting::Budget;
use escrowmq_common::task::Shutdown;
use tokio::sync::watch;

use crate::backup::prepare::Backups;
use crate::client_registry::ClientRegistry;
use crate::config::{BrokerConfig, CurrentConfig, KEYS};
use crate::delivery::Delivery;
use crate::forward::Counts;
use crate::gate::Gate;
use crate::group::Group;
use crate::metrics::{Metrics, Waiting};
use crate::raft::{Leadership, Office};
use crate::reply::RequestTimes;
use crate::retention::Retention;
use crate::shard::Shard;
use crate::spans::Spans;
use crate::stats::Stats;
use crate::steady_clock::SteadyClock;
use crate::transaction::Transactions;

pub(crate) use by_name::ByName;

/// The parts whose figures the pages show.
pub(crate) struct Monitor {
    /// Counts of requests and runners.
    pub metrics: Arc<Metrics>,
    /// How long requests took.
    pub request_times: Arc<RequestTimes>,
    /// What became of spans, if they are exported.
    pub spans: Option<Arc<Spans>>,
    /// The store, with its own counts.
    pub shard: Shard,
    /// Half messages that wait.
    pub transactions: Arc<Transactions>,
    /// Copies of the store.
    pub backups: Arc<Backups>,
    /// Room and age.
    pub retention: Arc<Retention>,
    /// The members of groups.
    pub clients: Arc<ClientRegistry>,
    /// What went to groups.
    pub stats: Arc<Stats>,
    /// What scrapes remember of names.
    pub by_name: ByName,
    /// Offsets, and pulls that wait for files.
    pub delivery: Arc<Delivery>,
    /// Searches that wait for a place.
    pub gate: Arc<Gate>,
    /// Bytes and numbers of connections.
    pub budget: Arc<Budget>,
    /// The settings in force.
    pub config: CurrentConfig,
    /// For ages.
    pub time: Arc<SteadyClock>,
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
pub(crate) struct Pages {
    /// Of the settings that the start has.
    configuration_hash: u32,
    waiting: Arc<Waiting>,
    monitor: OnceLock<Arc<Monitor>>,
}

impl Pages {
    /// The pages of a broker that starts with these settings.
    pub(crate) fn new(config: &BrokerConfig) -> Self {
        Self { configuration_hash: hash(config), waiting: Arc::default(), monitor: OnceLock::new() }
    }

    /// Where a start says what it waits for.
    pub(crate) fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// The broker is about to serve: from now on its figures are shown.
    pub(crate) fn show(&self, monitor: Monitor) {
        // There is one broker behind a port.
        let _ = self.monitor.set(Arc::new(monitor));
    }
}

impl Site for Pages {
    fn metrics(&self) -> String {
        let is_ready = self.readiness().is_ok();
        let (monitor, at_start) = (self.monitor.get().cloned(), self.configuration_hash);
        monitoring::text(move |families| {
            let hash = monitor.as_ref().map_or(at_start, |monitor| hash(&monitor.config.load()));
            monitoring::process(families, "broker", env!("CARGO_PKG_VERSION"), hash);
            families.gauge("escrowmq_ready", "1 while requests are served or passed on.", u64::from(is_ready));
            if let Some(monitor) = &monitor {
                monitor.collect(families);
            }
        })
    }

    fn readiness(&self) -> Result<(), String> {
        match self.monitor.get() {
            Some(monitor) => monitor.readiness(),
            None => Err(format!("starting: {}", self.waiting.what())),
        }
    }
}

fn hash(config: &BrokerConfig) -> u32 {
    monitoring::configuration_hash(KEYS.iter().map(|key| (key.name, (key.get)(config))))
}

impl Monitor {
    /// All figures of a broker that serves. Reads the index.
    fn collect(&self, families: &mut Families<'_>) {
        monitoring::connections(families, &self.budget);
        requests::collect(families, self);
        by_name::collect(families, self);
        transactions::collect(families, self);
        store::collect(families, self);
        group::collect(families, self);
    }

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
