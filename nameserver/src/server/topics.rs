//! Lists of topics.

use escrowmq_common::code::request as code;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::GetTopicsByClusterHeader;

use super::{Server, bad_header, failed, success};
use crate::routes::{TopicRoute, answer};

/// Unit flag of a topic: it belongs to a unit.
const UNIT: i32 = 1;
/// Unit flag of a topic: units subscribe to it.
const UNIT_SUBSCRIBED: i32 = 2;

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
        success(request).with_body(body)
    }

    fn names(&self, wanted: impl FnMut(&TopicRoute) -> bool) -> String {
        answer::topic_list(&self.routes.topic_names(wanted), None)
    }

    fn topics_of_cluster(&self, cluster: &str) -> String {
        let brokers = self.routes.brokers();
        self.names(|topic| {
            let mut groups = topic.queues().iter().map(|queues| &queues.group);
            groups.any(|group| brokers.in_cluster(group, cluster))
        })
    }

    /// Clusters and broker groups: each has a topic of its name, which is nobody's topic.
    fn system_topics(&self) -> String {
        let brokers = self.routes.brokers();
        let mut names: Vec<&str> = Vec::new();
        for (cluster, groups) in brokers.clusters() {
            names.push(cluster);
            names.extend(groups);
        }
        let some = brokers.groups().find_map(|group| group.min_broker());
        answer::topic_list(&names, some.map(|(_, address)| &**address))
    }
}

/// Units belong to the topic; the first group speaks for all.
fn has(topic: &TopicRoute, flag: i32) -> bool {
    topic.queues().first().is_some_and(|queues| queues.sys_flag & flag != 0)
}
