//! A broker's statements about itself, and the answer to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::DataVersion;
pub use escrowmq_common::body::RegisteredTopic as TopicSettings;

use super::table::Live;
use super::{BrokerId, ConnectionId, QueueMapping};

/// Where a request about a broker comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Over which connection it came.
    pub connection: ConnectionId,
    /// The machine at the connection's other end.
    pub host: IpAddr,
}

impl Origin {
    /// Whether a request from here is taken for one of the process that registered from `registered`: it came over the same
    /// connection, or from the same machine, as after a restart or a reconnection of which the old connection's end has
    /// not been seen yet.
    pub fn speaks_for(&self, registered: &Origin) -> bool {
        self.connection == registered.connection || self.host == registered.host
    }
}

/// One `REGISTER_BROKER` request, taken apart.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Where it came from.
    pub origin: Origin,
    /// The cluster.
    pub cluster: Arc<str>,
    /// The broker group.
    pub group: Arc<str>,
    /// Where clients reach this broker.
    pub address: Arc<str>,
    /// Its number in the group.
    pub id: BrokerId,
    /// Where its slaves fetch from.
    pub ha_address: Arc<str>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Whether its group may show an acting master; `None` from brokers that do not know the notion (before 5.0).
    pub acting_master: Option<bool>,
    /// How long it may stay silent.
    pub silence_max: Duration,
    /// The version of its topics; `state_version` is the term of its leadership.
    pub version: DataVersion,
    /// Its topics, or those that changed.
    pub topics: Vec<TopicSettings>,
    /// Whether there are topics beside these, so that no other one is missing (our own brokers say so).
    pub is_part: bool,
    /// Mappings of its static topics.
    pub mappings: Vec<QueueMapping>,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registered {
    /// For slaves: where their master is reached.
    pub master_address: Option<Arc<str>>,
    /// For slaves: where their master serves its log.
    pub ha_address: Option<Arc<str>>,
}

/// Why a registration was not taken. The routes that were known before stay in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A single topic from a broker that is not listed: taking it would show the broker with one topic only.
    /// The broker answers this with a full registration.
    #[error("register broker failed")]
    NotYetRegistered,
    /// The place belongs to a broker with a newer `stateVersion`, a leader that was elected later, or another member of
    /// the group knows of one. The same registration is never taken as long as that broker is there.
    #[error(
        "broker {group} id {id} is registered from {holder} with stateVersion {newest}, newer than {version} of \
         {address}: a newer leader has replaced this one"
    )]
    Older {
        /// The broker group.
        group: Arc<str>,
        /// The id in it.
        id: BrokerId,
        /// The address that has it.
        holder: Arc<str>,
        /// The holder's version.
        newest: i64,
        /// The address that was refused.
        address: Arc<str>,
        /// Its version.
        version: i64,
    },
    /// The place belongs to a broker of the same `stateVersion` that is there. A retry is taken when it is gone.
    #[error(
        "broker {group} id {id} is registered from {holder}, which was heard of {silent_seconds} s ago: {address} is taken \
         when that connection is closed or silent for {patience_seconds} s; two brokers must not share name and id"
    )]
    Taken {
        /// The broker group.
        group: Arc<str>,
        /// The id in it.
        id: BrokerId,
        /// The address that has it.
        holder: Arc<str>,
        /// How long ago it was heard of.
        silent_seconds: u64,
        /// How long it may be silent before it is replaced.
        patience_seconds: u64,
        /// The address that was refused.
        address: Arc<str>,
    },
    /// A table has no room left. A retry is taken when there is room again.
    #[error("the nameserver has no room for {what}: the limit is {limit}{hint}")]
    Full {
        /// The thing that does not fit.
        what: &'static str,
        /// How much of it there may be.
        limit: usize,
        /// A hint to the operator.
        hint: &'static str,
    },
}

impl Refused {
    /// A registration older than what `holder` has registered.
    pub(super) fn older(broker: &Registration, holder: &Arc<str>, live: &Live) -> Self {
        Self::Older {
            group: Arc::clone(&live.group),
            id: live.id,
            holder: Arc::clone(holder),
            newest: live.version.state_version,
            address: Arc::clone(&broker.address),
            version: broker.version.state_version,
        }
    }
}
