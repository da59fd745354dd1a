//! What a broker says about itself, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::DataVersion;

use super::{BrokerId, ConnectionId, QueueMapping};

/// A topic as a broker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// The topic's name.
    pub name: String,
    /// Queues that can be read.
    pub read: i32,
    /// Queues that can be written.
    pub write: i32,
    /// Bits of [`permission`](super::permission).
    pub perm: i32,
    /// Unit flags.
    pub sys_flag: i32,
}

/// One `REGISTER_BROKER` request, taken apart.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Over which connection it came.
    pub connection: ConnectionId,
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
    /// Its topics, or the one that changed.
    pub topics: Vec<TopicSettings>,
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

/// Why a registration was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A single topic from a broker that is not listed: taking it would show the broker with one topic only.
    /// The broker answers this with a full registration.
    #[error("register broker failed")]
    NotYetRegistered,
}
