//! Route answers as JSON, written straight from the table's own structures.
//!
//! Upstream writes maps with integer keys bare (`{0:"…"}`), which is no JSON; old clients that cut the text by
//! hand depend on it. so each answer exists in two forms, see [`Form`].

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::Form;

use super::json::{Json, written};
use super::{BrokerGroup, BrokerId, Brokers, QueueMapping, Queues, TopicRoute, permission};

/// Topics of this prefix are asked for by brokers that look for each other, and show the members as they are.
const MEMBER_TOPIC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// The options of a lookup beside the topic's name.
#[derive(Debug, Clone, Copy)]
pub struct RouteQuery<'a> {
    /// How to write the answer.
    pub form: Form,
    /// Whether acting masters are shown (`supportActingMaster`).
    pub acting_master: bool,
    /// Only groups of this zone, and groups without a master.
    pub zone: Option<&'a str>,
    /// The order configuration of the topic, if it has one.
    pub order: Option<&'a str>,
}

/// The route of a topic; `None` if no live group serves it.
pub fn route(topic: &TopicRoute, brokers: &Brokers, query: RouteQuery<'_>) -> Option<String> {
    let mut served = Vec::with_capacity(topic.queues().len());
    for queues in topic.queues() {
        // The group may be gone while its topics are still being visited.
        if let Some(group) = brokers.group(&queues.group) {
            let acting = query.acting_master && acts(topic, group, queues);
            served.push((queues, group, acting));
        }
    }
    if served.is_empty() {
        return None;
    }
    if let Some(zone) = query.zone {
        served.retain(|(_, group, acting)| {
            let same = |z: &Arc<str>| z.eq_ignore_ascii_case(zone);
            !(group.has_master() || *acting) || group.zone.as_ref().is_some_and(same)
        });
    }

    let mut json = Json::new(query.form, 128 + 192 * served.len());
    json.raw("{\"brokerDatas\":");
    json.list('[', ']', &served, |json, (_, group, acting)| {
        json.group(group, *acting);
    });
    json.raw(",\"filterServerTable\":{}");
    if let Some(order) = query.order {
        json.raw(",\"orderTopicConf\":");
        json.text(order);
    }
    json.raw(",\"queueDatas\":");
    json.list('[', ']', &served, |json, (queues, _, _)| {
        json.queues(queues);
    });
    let mappings: Vec<_> = topic.mappings().collect();
    if !mappings.is_empty() {
        json.raw(",\"topicQueueMappingByBroker\":");
        json.list('{', '}', &mappings, |json, (group, mapping)| {
            json.text(group);
            json.raw(":");
            json.mapping(mapping);
        });
    }
    json.raw("}");
    Some(json.out)
}

/// All groups and clusters. Always with bare keys: that is what every reader of it was written for.
pub fn cluster_info(brokers: &Brokers) -> String {
    let mut groups: Vec<_> = brokers.groups().collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let mut json = Json::new(Form::Loose, 64 + 192 * groups.len());
    json.raw("{\"brokerAddrTable\":");
    json.list('{', '}', &groups, |json, group| {
        json.text(&group.name);
        json.raw(":");
        json.group(group, false);
    });
    json.raw(",\"clusterAddrTable\":");
    let clusters: Vec<_> = brokers.clusters().into_iter().collect();
    json.list('{', '}', &clusters, |json, (cluster, names)| {
        json.text(cluster);
        json.raw(":");
        let names: Vec<_> = names.iter().collect();
        json.list('[', ']', &names, |json, name| json.text(name));
    });
    json.raw("}");
    json.out
}

/// Names of topics, with the address of some broker where tools expect one. [`topic_list_bytes`] says how long it will be.
pub fn topic_list(topics: &[impl AsRef<str>], broker_address: Option<&str>) -> String {
    let mut json = Json::new(Form::Loose, topic_list_bytes(topics, broker_address));
    json.raw("{");
    if let Some(address) = broker_address {
        json.raw("\"brokerAddr\":");
        json.text(address);
        json.raw(",");
    }
    json.raw("\"topicList\":");
    json.list('[', ']', topics, |json, topic| json.text(topic.as_ref()));
    json.raw("}");
    json.out
}

/// Bytes of the list that [`topic_list`] makes of the same names, escapes and all.
pub fn topic_list_bytes(topics: &[impl AsRef<str>], broker_address: Option<&str>) -> usize {
    const QUOTES: usize = 2;
    let address = broker_address.map_or(0, |address| r#""brokerAddr":,"#.len() + QUOTES + written(address));
    let names: usize = topics.iter().map(|topic| QUOTES + written(topic.as_ref())).sum();
    let commas = topics.len().saturating_sub(1);
    r#"{"topicList":[]}"#.len() + address + names + commas
}

/// The members of one group; empty if there is no such group in that cluster.
pub fn member_group(brokers: &Brokers, cluster: &str, name: &str) -> String {
    let mut json = Json::new(Form::Loose, 192);
    json.raw("{\"brokerMemberGroup\":{\"brokerAddrs\":");
    let none = BTreeMap::new();
    let group = brokers.group(name).filter(|g| &*g.cluster == cluster);
    json.addresses(group.map_or(&none, |g| &g.addresses), false);
    json.raw(",\"brokerName\":");
    json.text(name);
    json.raw(",\"cluster\":");
    json.text(cluster);
    json.raw("}}");
    json.out
}

/// Whether the group's smallest member is shown as its master: there is none, the group asked for it, and the
/// write permission is gone already, so that nobody takes the answer for a place to send to.
fn acts(topic: &TopicRoute, group: &BrokerGroup, queues: &Queues) -> bool {
    group.acting_master
        && !group.has_master()
        && queues.perm & permission::WRITE == 0
        && !topic.name().starts_with(MEMBER_TOPIC_PREFIX)
}

impl Json {
    fn addresses(&mut self, addresses: &BTreeMap<BrokerId, Arc<str>>, acting: bool) {
        let addresses: Vec<_> = addresses.iter().enumerate().collect();
        self.list('{', '}', &addresses, |json, (n, (id, address))| {
            let shown = if acting && *n == 0 { BrokerId::MASTER } else { **id };
            json.key(shown.0);
            json.text(address);
        });
    }

    fn group(&mut self, group: &BrokerGroup, acting: bool) {
        self.raw("{\"brokerAddrs\":");
        self.addresses(&group.addresses, acting);
        self.raw(",\"brokerName\":");
        self.text(&group.name);
        self.raw(",\"cluster\":");
        self.text(&group.cluster);
        self.raw(",\"enableActingMaster\":");
        self.raw(if group.acting_master { "true" } else { "false" });
        if let Some(zone) = &group.zone {
            self.raw(",\"zoneName\":");
            self.text(zone);
        }
        self.raw("}");
    }

    fn queues(&mut self, queues: &Queues) {
        self.raw("{\"brokerName\":");
        self.text(&queues.group);
        self.raw(",\"perm\":");
        self.number(queues.perm);
        self.raw(",\"readQueueNums\":");
        self.number(queues.read);
        self.raw(",\"topicSysFlag\":");
        self.number(queues.sys_flag);
        self.raw(",\"writeQueueNums\":");
        self.number(queues.write);
        self.raw("}");
    }

    fn mapping(&mut self, mapping: &QueueMapping) {
        self.raw("{\"bname\":");
        self.text(&mapping.group);
        self.raw(",\"currIdMap\":");
        let current: Vec<_> = mapping.current.iter().collect();
        self.list('{', '}', &current, |json, (logical, own)| {
            json.key(**logical);
            json.number(**own);
        });
        self.raw(",\"dirty\":");
        self.raw(if mapping.dirty { "true" } else { "false" });
        self.raw(",\"epoch\":");
        self.number(mapping.epoch);
        if let Some(scope) = &mapping.scope {
            self.raw(",\"scope\":");
            self.text(scope);
        }
        self.raw(",\"topic\":");
        self.text(&mapping.topic);
        self.raw(",\"totalQueues\":");
        self.number(mapping.total_queues);
        self.raw("}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_topics_has_as_many_bytes_as_it_is_counted_with() {
        let names: [&[&str]; 4] = [&[], &["T"], &["T", "é\"\\"], &["\u{1}\n", "", "%RETRY%g"]];
        for names in names {
            for address in [None, Some("h\":1")] {
                let list = topic_list(names, address);
                assert_eq!(list.len(), topic_list_bytes(names, address), "{list}");
            }
        }
    }
}
