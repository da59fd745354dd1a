//! The parts of a running broker, as handlers see them.

use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::audit::Trail;
use escrowmq_common::clock::Clock;
use escrowmq_common::code::word;
use escrowmq_common::task::{Shutdown, Tasks};

use crate::backup::prepare::Backups;
use crate::client_registry::ClientRegistry;
use crate::config::{BrokerConfig, CurrentConfig};
use crate::creation::Creations;
use crate::delivery::Delivery;
use crate::gate::Gate;
use crate::group::Group;
use crate::key_index::KeyIndex;
use crate::metrics::Metrics;
use crate::registration::Registration;
use crate::reply::RequestTimes;
use crate::retention::Retention;
use crate::shard::Shard;
use crate::spans::Spans;
use crate::stats::Stats;
use crate::steady_clock::SteadyClock;
use crate::terms::Stamp;
use crate::transaction::Transactions;

/// Everything that a request may need. One per broker, shared by all its connections.
pub(crate) struct Broker {
    /// The settings.
    pub config: CurrentConfig,
    /// The group that this broker is a member of, alone or with others.
    pub group: Group,
    /// The one write path, and the state that it made visible.
    pub shard: Shard,
    /// The connected clients.
    pub clients: Arc<ClientRegistry>,
    /// Held pulls and consumer offsets.
    pub delivery: Arc<Delivery>,
    /// Messages by key.
    pub keys: KeyIndex,
    /// Check-backs.
    pub transactions: Arc<Transactions>,
    /// The findings about room and age.
    pub retention: Arc<Retention>,
    /// Nameservers that must hear of topic changes.
    pub registration: Arc<Registration>,
    /// Places for reads of files, searches and listings.
    pub gate: Arc<Gate>,
    /// Topics and groups that are being created.
    pub creations: Arc<Creations>,
    /// The backup that is being copied.
    pub backups: Arc<Backups>,
    /// Where the lines of operators' acts go.
    pub audit: Arc<Trail>,
    /// Counts since start.
    pub metrics: Arc<Metrics>,
    /// How long requests took.
    pub request_times: Arc<RequestTimes>,
    /// Where requests get their spans; none while nobody asks for them.
    pub spans: Option<Arc<Spans>>,
    /// Counts by topic and group over time.
    pub stats: Arc<Stats>,
    /// brokerIP1 and listenPort as numbers: a part of message ids.
    pub store_host: SocketAddr,
    /// The same as it was set, which nameservers and clients are told: it may be a name.
    pub address: String,
    /// The broker's own time.
    pub time: Arc<SteadyClock>,
    /// The machine's clocks.
    pub clock: Clock,
    /// Where background work is spawned.
    pub tasks: Tasks,
    /// Cancelled when the broker stops.
    pub shutdown: Shutdown,
}

impl Broker {
    /// The settings at this moment.
    pub(crate) fn config(&self) -> arc_swap::Guard<Arc<BrokerConfig>> {
        self.config.load()
    }

    /// The level that an acknowledgement stands for, as answers name it.
    pub(crate) fn store_level(&self) -> &'static str {
        if self.group.is_replicated() { word::REPLICATED } else { self.config().store_level() }
    }

    /// Now, by the broker's own time.
    pub(crate) fn now(&self) -> Stamp {
        self.time.now()
    }
}
