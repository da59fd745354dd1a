//! The consequences of an event, and the operator's choices among them.

use std::sync::Arc;

use super::{BrokerId, Brokers, ConnectionId, RouteLimits, TopicRoute};

/// The operator's choices in the table's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteTableOptions {
    /// A full registration also removes the group's topics that it does not name (`deleteTopicWithBrokerRegistration`).
    pub delete_missing_topics: bool,
    /// Members hear when the smallest broker id of their group changes (`notifyMinBrokerIdChanged`).
    pub notify_min_broker: bool,
    /// How large the table may become.
    pub limits: RouteLimits,
}

/// The work to be done after an event.
#[derive(Debug, Default)]
pub struct Changes {
    /// The broker groups, if they changed.
    pub brokers: Option<Arc<Brokers>>,
    /// Topics that changed, in order.
    pub topics: Vec<TopicChange>,
    /// Connections to close: their brokers were silent for too long.
    pub close: Vec<ConnectionId>,
    /// The members to be told of a new smallest broker id.
    pub notify: Vec<MinBrokerChange>,
}

/// One topic's new entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicChange {
    /// The topic is new or changed.
    Put(Arc<TopicRoute>),
    /// The topic is gone.
    Remove(Arc<str>),
}

/// The smallest broker id of a group with an acting master changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinBrokerChange {
    /// The connections of the members to tell.
    pub connections: Vec<ConnectionId>,
    /// The group.
    pub group: Arc<str>,
    /// The smallest id now.
    pub min_id: BrokerId,
    /// The address of that member.
    pub min_address: Arc<str>,
    /// The member that went, if one did.
    pub offline_address: Option<Arc<str>>,
    /// Where the member that came serves its log, if one came.
    pub ha_address: Option<Arc<str>>,
}
