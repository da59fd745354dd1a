//! The body of a registration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::body::{DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigTable, TopicFilterType};
use escrowmq_common::frame::MAX_FRAME_LEN;

use crate::shard::Topic;
use crate::terms::TopicSettings;

/// From this many topics on the body is packed. The packed form loses two fields that no route needs.
const PACKED_FROM: usize = 256;

/// Most topics of one registration. A nameserver reads and applies this many in a small part of the time it has to answer.
pub(super) const PART_TOPICS: usize = 10_000;

/// Most bytes of one registration before it is packed: half a frame.
const PART_BYTES: usize = MAX_FRAME_LEN / 2;

/// The field that marks a registration as having some of the topics only, for nameservers of ours; others ignore it.
pub(super) const PART_FIELD: &str = "escrowmqPart";

/// The field of a goodbye that says up to which term it speaks, for nameservers of ours; others ignore it.
pub(super) const TERM_FIELD: &str = "escrowmqTerm";

/// A topic as the protocol shows it.
pub(crate) fn topic_config(settings: &TopicSettings) -> TopicConfig {
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

/// Cuts topics into as few registrations as they need; at least one, because a broker without topics registers as well.
pub(super) fn parts<'a, 'b>(topics: &'a [&'b Arc<Topic>]) -> Vec<&'a [&'b Arc<Topic>]> {
    let mut parts = Vec::with_capacity(topics.len() / PART_TOPICS + 1);
    let (mut begin, mut bytes) = (0, 0);
    for (at, topic) in topics.iter().enumerate() {
        let more = bytes_of(&topic.settings);
        if at > begin && (at - begin >= PART_TOPICS || bytes + more > PART_BYTES) {
            parts.push(&topics[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += more;
    }
    parts.push(&topics[begin..]);
    parts
}

/// The bytes that a topic takes in a body that is not packed, at most.
fn bytes_of(settings: &TopicSettings) -> usize {
    const REST: usize = 256;
    // A control character becomes six in JSON.
    let attributes: usize = settings.attributes.iter().map(|(key, value)| 6 * (key.len() + value.len() + 1)).sum();
    REST + 2 * settings.name.len() + attributes
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

/// Names a state in which a nameserver has heard some of the parts of a registration. No two in a row have the same name,
/// because nameservers take over topics only with a name that is new to them. The last part has the state's own name.
pub(super) fn interim(version: DataVersion, serial: i64) -> DataVersion {
    debug_assert!(serial > 0 && version.counter > 0, "interim names are below 0, others above");
    DataVersion { counter: -serial, ..version }
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

    #[test]
    fn many_topics_are_told_in_parts() {
        let topics: Vec<_> = (0..=2 * PART_TOPICS).map(|n| topic(&format!("T{n}"), 6)).collect();
        let all: Vec<_> = topics.iter().collect();
        let parts = parts(&all);
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [PART_TOPICS, PART_TOPICS, 1]);
        let name = |topic: &&Arc<Topic>| topic.settings.name.clone();
        let told: Vec<String> = parts.concat().iter().map(name).collect();
        assert_eq!(told, all.iter().map(name).collect::<Vec<_>>(), "each topic once, in order");
        let none = super::parts(&[]);
        assert!(none.len() == 1 && none[0].is_empty(), "a broker without topics is told of, too");
    }

    #[test]
    fn no_part_is_too_long_for_a_frame_whatever_its_topics_have() {
        let worst = |n: usize| {
            let attributes = (0..8).map(|part| (format!("+{part}"), "\u{1}".repeat(8 * 1024))).collect();
            let settings = TopicSettings { attributes, ..TopicSettings::new(format!("{n:0127}"), 4) };
            Arc::new(Topic { settings, queues: Vec::new() })
        };
        let topics: Vec<_> = (0..200).map(worst).collect();
        let all: Vec<_> = topics.iter().collect();
        let parts = parts(&all);
        assert!(parts.len() > 1);
        for part in parts {
            let (body, _) = body(part, DataVersion::default(), 6);
            assert!(body.len() < MAX_FRAME_LEN - 64 * 1024, "{} topics in {} bytes", part.len(), body.len());
        }
    }
}
