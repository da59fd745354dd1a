//! The body of a registration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::body::{DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigTable, TopicFilterType};

use crate::broker::Broker;
use crate::index;
use crate::shard::{Topic, TopicSettings};

/// From so many topics on the body is packed. The packed form loses two fields that no route needs.
const PACKED_FROM: usize = 256;

/// A topic as the protocol shows it.
pub fn topic_config(settings: &TopicSettings) -> TopicConfig {
    TopicConfig {
        attributes: settings.attributes.iter().cloned().collect(),
        order: settings.order,
        perm: settings.perm.cast_signed(),
        read_queue_nums: settings.read_queues.cast_signed(),
        topic_filter_type: TopicFilterType::SingleTag,
        topic_name: settings.name.clone(),
        topic_sys_flag: settings.sys_flag.cast_signed(),
        write_queue_nums: settings.write_queues.cast_signed(),
    }
}

/// The body, and whether it is packed. The broker's own permission limits that of its topics.
pub(super) fn body(topics: &[&Arc<Topic>], data_version: DataVersion, permission: u32) -> (Bytes, bool) {
    let mut table = BTreeMap::new();
    for topic in topics {
        let mut config = topic_config(&topic.settings);
        if permission & (TopicSettings::READ | TopicSettings::WRITE) != TopicSettings::READ | TopicSettings::WRITE {
            config.perm &= (permission | TopicSettings::INHERIT).cast_signed();
        }
        table.insert(config.topic_name.clone(), config);
    }
    let body = RegisterBrokerBody {
        filter_server_list: Vec::new(),
        topic_config_serialize_wrapper: TopicConfigTable {
            data_version,
            mapping_data_version: Some(data_version),
            topic_config_table: table,
            ..TopicConfigTable::default()
        },
    };
    if topics.len() >= PACKED_FROM { (body.encode_compressed(), true) } else { (body.encode(), false) }
}

/// Names a state of this broker's topics: the leader's term, the start of this process, and the changes since.
pub(super) fn version_of(broker: &Broker, version: u64) -> DataVersion {
    let term = index::meta::applied(broker.shard.index()).ok().flatten().map_or(0, |applied| applied.term);
    DataVersion {
        counter: version.cast_signed(),
        state_version: term.cast_signed(),
        timestamp: broker.registration.started_at,
    }
}

/// Names the state of this broker's topics now.
pub(crate) fn data_version(broker: &Broker) -> DataVersion {
    version_of(broker, broker.registration.version())
}

/// Where a replica would connect. Nothing listens there; the protocol wants the field.
pub(super) fn replication_address(store_host: SocketAddr) -> SocketAddr {
    SocketAddr::new(store_host.ip(), store_host.port().wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, perm: u32) -> Arc<Topic> {
        let settings = TopicSettings { perm, ..TopicSettings::new(name, 4) };
        Arc::new(Topic { settings, queues: Vec::new() })
    }

    fn perms(topics: &[Arc<Topic>], permission: u32) -> BTreeMap<String, i32> {
        let all: Vec<_> = topics.iter().collect();
        let (bytes, packed) = body(&all, DataVersion::default(), permission);
        let read = RegisterBrokerBody::decode(&bytes, packed).unwrap();
        let table = read.topic_config_serialize_wrapper.topic_config_table;
        table.into_iter().map(|(name, config)| (name, config.perm)).collect()
    }

    #[test]
    fn a_broker_that_may_not_be_written_shows_no_writable_topic() {
        let topics = [topic("A", 6), topic("TBW102", 7), topic("W", 2)];
        assert_eq!(perms(&topics, 6).into_values().collect::<Vec<_>>(), [6, 7, 2]);
        assert_eq!(perms(&topics, 4).into_values().collect::<Vec<_>>(), [4, 5, 0]);
    }

    #[test]
    fn many_topics_are_packed_and_read_back() {
        let topics: Vec<_> = (0..PACKED_FROM).map(|n| topic(&format!("T{n}"), 6)).collect();
        assert_eq!(perms(&topics, 6).len(), PACKED_FROM);
    }
}
