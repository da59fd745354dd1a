//! How large the table may become, and what counts.

use super::json::written;
use super::table::Live;
use super::{BrokerGroup, ConnectionId, QueueMapping, Refused, Registration, RouteTable, TopicRoute};

/// Members of one group: each is in every route of its topics.
pub(super) const MEMBERS_MAX: usize = 128;

/// Brokers of one connection: a process that holds several registers them all over one.
pub(super) const BROKERS_OF_CONNECTION_MAX: usize = 256;

/// Bytes of the texts of all brokers, as JSON writes them: the answer to `GET_BROKER_CLUSTER_INFO` has most of them twice,
/// and must fit into a frame.
pub(super) const BROKER_TEXT_BYTES_MAX: usize = 5 * 1024 * 1024;

const _: () = assert!(3 * BROKER_TEXT_BYTES_MAX < escrowmq_common::frame::MAX_FRAME_LEN);

/// Bytes that a topic takes beside its name: its entry, and a place in two maps that may be half empty. Measured: a
/// million topics with names of 27 bytes take 328 bytes each.
const TOPIC_BYTES: usize = 280;
/// Bytes that its queues at one group take.
const QUEUES_BYTES: usize = 64;
/// Bytes that the mapping of a static topic takes beside its entries.
const MAPPING_BYTES: usize = 320;
/// Bytes that one entry of the mapping takes.
const MAPPED_BYTES: usize = 16;

/// How large the table may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLimits {
    /// Bytes that all topics may take, by estimate (`routeBytesMax`). Default 1 GiB.
    pub route_bytes: usize,
    /// Brokers that may be listed (`brokersMax`). Default 10,000.
    pub brokers: usize,
}

impl Default for RouteLimits {
    fn default() -> Self {
        RouteLimits { route_bytes: 1024 * 1024 * 1024, brokers: 10_000 }
    }
}

impl QueueMapping {
    /// The bytes that it is counted with.
    fn weight(&self) -> usize {
        let texts = self.topic.len() + self.group.len() + self.scope.as_ref().map_or(0, String::len);
        MAPPING_BYTES + texts + MAPPED_BYTES * self.current.len()
    }
}

impl TopicRoute {
    /// The bytes that it is counted with.
    pub(super) fn weight(&self) -> usize {
        let mapped: usize = self.mappings().map(|(_, mapping)| mapping.weight()).sum();
        TOPIC_BYTES + self.name().len() + QUEUES_BYTES * self.queues().len() + mapped
    }
}

impl RouteTable {
    /// Whether a new broker, or one whose texts changed, fits.
    pub(super) fn check_brokers(&self, broker: &Registration) -> Result<(), Refused> {
        let listed = self.live.get(&broker.address);
        let group = self.brokers().group(&broker.group);
        let is_unchanged = |live: &Live| live.group == broker.group && live.ha_address == broker.ha_address;
        let keeps_names = group.is_some_and(|group| group.cluster == broker.cluster && group.zone == broker.zone);
        if listed.is_some_and(is_unchanged) && keeps_names {
            return Ok(());
        }
        let full = |what, limit, hint| Err(Refused::Full { what, limit, hint });
        let limits = self.options.limits;
        // A broker that takes another one's place needs none of its own.
        let replaces = group.is_some_and(|group| group.addresses.contains_key(&broker.id));
        if listed.is_none() && !replaces && self.live.len() >= limits.brokers {
            return full("another broker", limits.brokers, " (brokersMax)");
        }
        let members = group.map_or(0, |group| group.addresses.len());
        if listed.is_none_or(|live| live.group != broker.group) && !replaces && members >= MEMBERS_MAX {
            return full("another broker of the same name", MEMBERS_MAX, "");
        }
        let connection = broker.origin.connection;
        if listed.is_none() && self.brokers_of(connection) >= BROKERS_OF_CONNECTION_MAX {
            return full("another broker of one connection", BROKERS_OF_CONNECTION_MAX, "");
        }
        let text = texts([&broker.group, &broker.cluster, &broker.address, &broker.ha_address])
            + broker.zone.as_deref().map_or(0, written);
        if self.broker_text() + text > BROKER_TEXT_BYTES_MAX {
            return full("the names of another broker (bytes)", BROKER_TEXT_BYTES_MAX, "");
        }
        Ok(())
    }

    /// Whether the topics of a registration fit: those that the table does not have at its group yet.
    pub(super) fn check_topics(&self, broker: &Registration) -> Result<(), Refused> {
        let mut growth = 0;
        for topic in &broker.topics {
            growth += match self.topic(&topic.name) {
                None => TOPIC_BYTES + topic.name.len() + QUEUES_BYTES,
                Some(route) if route.at(&broker.group).is_none() => QUEUES_BYTES,
                Some(_) => 0,
            };
        }
        for mapping in &broker.mappings {
            let known = self.topic(&mapping.topic).and_then(|route| route.mapping(&broker.group));
            growth += mapping.weight().saturating_sub(known.map_or(0, QueueMapping::weight));
        }
        self.check_growth(growth)
    }

    /// Whether the topics may grow by this many bytes.
    pub(super) fn check_growth(&self, bytes: usize) -> Result<(), Refused> {
        let limit = self.options.limits.route_bytes;
        if bytes > 0 && self.weight + bytes > limit {
            let hint = " (routeBytesMax; what was registered before stays)";
            return Err(Refused::Full { what: "more topics (bytes)", limit, hint });
        }
        Ok(())
    }

    /// The bytes that all topics are counted with.
    pub fn weight(&self) -> usize {
        self.weight
    }

    fn brokers_of(&self, connection: ConnectionId) -> usize {
        self.live.values().filter(|live| live.origin.connection == connection).count()
    }

    fn broker_text(&self) -> usize {
        let of_group = |group: &BrokerGroup| {
            let own = texts([&group.name, &group.cluster]) + group.zone.as_deref().map_or(0, written);
            own + group.addresses.values().map(|address| written(address)).sum::<usize>()
        };
        let groups: usize = self.brokers().groups().map(|group| of_group(group)).sum();
        groups + self.live.values().map(|live: &Live| written(&live.ha_address)).sum::<usize>()
    }
}

fn texts<const N: usize>(of: [&str; N]) -> usize {
    of.into_iter().map(written).sum()
}
