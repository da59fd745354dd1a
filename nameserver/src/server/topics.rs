//! Lists of topics and brokers. They walk over the whole table and are made away from the connections' tasks, a few at a time.

use std::sync::Arc;

use escrowmq_common::code::request as code;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::GetTopicsByClusterHeader;
use escrowmq_common::remoting::Connection;

use super::order::Turn;
use super::{Server, bad_header, failed, success};
use crate::routes::{TopicRoute, answer};

/// Unit flag of a topic: it belongs to a unit.
const UNIT: i32 = 1;
/// Unit flag of a topic: units subscribe to it.
const UNIT_SUBSCRIBED: i32 = 2;

/// Long lists that are made at a time.
pub(super) const LISTS_AT_A_TIME: usize = 2;

/// With more topics than this a list of them is long.
const SHORT_TOPICS: usize = 4096;
/// With more broker groups than this the list of all is long.
const SHORT_GROUPS: usize = 256;

/// Most bytes of a list: what fits into a frame, with room for its head.
const LIST_BYTES_MAX: usize = escrowmq_common::frame::MAX_FRAME_LEN - 64 * 1024;

impl Server {
    /// The six requests for names of topics, and the one for all brokers.
    pub(super) fn list(&self, connection: &Arc<Connection>, request: Frame, turn: Turn) {
        let is_short = if request.code == code::GET_BROKER_CLUSTER_INFO {
            self.routes.brokers().groups().count() <= SHORT_GROUPS
        } else {
            self.routes.topic_count() <= SHORT_TOPICS
        };
        if is_short {
            connection.reply(&self.listed(&request));
            return drop(turn);
        }
        let Ok(place) = Arc::clone(&self.lists).try_acquire_owned() else {
            connection.reply(&self.busy(connection, &request, "too many long lists are being made"));
            return drop(turn);
        };
        let Some(me) = self.me.upgrade() else {
            return;
        };
        let connection = Arc::clone(connection);
        self.tasks.spawn_blocking("list", move || {
            connection.reply(&me.listed(&request));
            drop((place, turn));
        });
    }

    fn listed(&self, request: &Frame) -> Frame {
        if request.code == code::GET_BROKER_CLUSTER_INFO { self.cluster_info(request) } else { self.topics(request) }
    }

    fn topics(&self, request: &Frame) -> Frame {
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
            code::GET_SYSTEM_TOPIC_LIST_FROM_NS => Ok(self.system_topics()),
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
        let names = self.routes.topic_names(wanted);
        let bytes: usize = names.iter().map(|name| name.len() + 3).sum();
        if bytes > LIST_BYTES_MAX {
            let topics = names.len();
            return Err(format!("{topics} topics have a list of {bytes} bytes, the limit is {LIST_BYTES_MAX}"));
        }
        Ok(answer::topic_list(&names, None))
    }

    fn topics_of_cluster(&self, cluster: &str) -> Result<String, String> {
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
