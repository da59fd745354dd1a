//! Lists of topics. They walk over the whole table: see [`super::lists`] for where that is done.

use escrowmq_common::code::request as code;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::GetTopicsByClusterHeader;

use super::{Server, bad_header, failed, success};
use crate::routes::{TopicRoute, answer};

/// Unit flag of a topic: it belongs to a unit.
const UNIT: i32 = 1;
/// Unit flag of a topic: units subscribe to it.
const UNIT_SUBSCRIBED: i32 = 2;

/// Most bytes of a list: what fits into a frame, with room for its head.
const LIST_BYTES_MAX: usize = escrowmq_common::frame::MAX_FRAME_LEN - 64 * 1024;

impl Server {
    /// The six requests for names of topics.
    pub(super) fn topics(&self, request: &Frame) -> Frame {
        let config = self.config.load();
        let enabled = if request.code == code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER {
            config.enable_all_topic_list
        } else {
            config.enable_topic_list || request.code == code::GET_SYSTEM_TOPIC_LIST_FROM_NS
        };
        if !enabled {
            return failed(request, "disable");
        }
        let body = match request.code {
            code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.names(|_| true),
            code::GET_TOPICS_BY_CLUSTER => match request.header::<GetTopicsByClusterHeader<'_>>() {
                Ok(asked) => self.topics_of_cluster(asked.cluster),
                Err(error) => return bad_header(request, &error),
            },
            code::GET_SYSTEM_TOPIC_LIST_FROM_NS => self.system_topics(),
            code::GET_UNIT_TOPIC_LIST => self.names(|topic| has(topic, UNIT)),
            code::GET_HAS_UNIT_SUB_TOPIC_LIST => self.names(|topic| has(topic, UNIT_SUBSCRIBED)),
            // GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, the last of the dispatch's list
            _ => self.names(|topic| !has(topic, UNIT) && has(topic, UNIT_SUBSCRIBED)),
        };
        match body {
            Ok(body) => success(request).with_body(body),
            Err(why) => failed(request, why),
        }
    }

    /// The list of the names that are wanted; an error if it does not fit into a frame.
    fn names(&self, wanted: impl FnMut(&TopicRoute) -> bool) -> Result<String, String> {
        list_of(&self.routes.topic_names(wanted), None)
    }

    fn topics_of_cluster(&self, cluster: &str) -> Result<String, String> {
        let brokers = self.routes.brokers();
        self.names(|topic| {
            let mut groups = topic.queues().iter().map(|queues| &queues.group);
            groups.any(|group| brokers.in_cluster(group, cluster))
        })
    }

    /// Clusters and broker groups: each has a topic of its name, which is nobody's topic.
    fn system_topics(&self) -> Result<String, String> {
        let brokers = self.routes.brokers();
        let mut names: Vec<&str> = Vec::new();
        for (cluster, groups) in brokers.clusters() {
            names.push(cluster);
            names.extend(groups);
        }
        let some = brokers.groups().find_map(|group| group.min_broker());
        list_of(&names, some.map(|(_, address)| &**address))
    }
}

/// The list of these names. One that does not fit into a frame is not even made.
fn list_of(names: &[impl AsRef<str>], broker_address: Option<&str>) -> Result<String, String> {
    let bytes = answer::topic_list_bytes(names, broker_address);
    if bytes > LIST_BYTES_MAX {
        let topics = names.len();
        return Err(format!("{topics} topics have a list of {bytes} bytes, the limit is {LIST_BYTES_MAX}"));
    }
    Ok(answer::topic_list(names, broker_address))
}

/// Units belong to the topic; the first group speaks for all.
fn has(topic: &TopicRoute, flag: i32) -> bool {
    topic.queues().first().is_some_and(|queues| queues.sys_flag & flag != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_measured_as_it_is_written() {
        let list = |name: &str, topics: usize| list_of(&vec![name; topics], None).map(|list| list.len());
        // Each of these bytes takes two in the list.
        let (plain, quotes) = ("x".repeat(255), "\"".repeat(255));
        assert_eq!(list(&plain, 33_000), Ok(16 + 33_000 * 258 - 1));
        assert_eq!(list(&quotes, 16_500), Ok(16 + 16_500 * 513 - 1));
        let refused = list(&quotes, 33_000).unwrap_err();
        assert!(refused.contains("33000 topics") && refused.contains("16929015 bytes"), "{refused}");
    }
}
