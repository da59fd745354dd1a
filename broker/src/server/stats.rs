//! Connections of groups, and the progress of groups in topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use escrowmq_common::body::{
    ClientConnection, ConsumeOffset, ConsumeStats, ConsumerConnections, GroupList, ProducerConnections, ProducerInfo,
    ProducerTable, SubscriptionOfGroup, TopicList, TopicOffset, TopicStats,
};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    ConsumerGroupHeader, GetConsumeStatsHeader, GroupHeader, GroupTopicHeader, ProducerGroupHeader, TopicHeader,
};
use escrowmq_common::name;

use super::answer::{body, json, json_slowly, no_topic};
use super::progress;
use crate::broker::Broker;
use crate::client_registry::ProducerMember;
use crate::index;
use crate::reply::{Refused, Reply};
use crate::shard::Topic;
use crate::terms::QueueOffset;

pub(super) fn topic_stats(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "topic stats", request, reply, |broker, request| {
        let name = request.header::<TopicHeader<'_>>()?.topic;
        let topic = broker.shard.topics().get(name).ok_or_else(|| no_topic(name))?;
        let mut stats =
            TopicStats { topic_put_tps: broker.stats.topic_put_rate(&topic, broker.now()), ..TopicStats::default() };
        for queue in progress::queues(&topic) {
            let (min, max) = (queue.min_offset(), queue.max_offset());
            let last = max.previous().map(|last| progress::store_time(broker, queue, last)).transpose()?.flatten();
            let offset = TopicOffset {
                last_update_timestamp: last.unwrap_or_default(),
                max_offset: max.signed(),
                min_offset: min.signed(),
            };
            stats.offset_table.insert(progress::name_of(broker, queue), offset);
        }
        Ok(stats)
    });
}

pub(super) fn consume_stats(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "consume stats", request, reply, |broker, request| {
        let asked: GetConsumeStatsHeader<'_> = request.header()?;
        let group = asked.consumer_group;
        let topics: BTreeSet<Arc<str>> = match (asked.topic.filter(|topic| !topic.is_empty()), asked.topic_list) {
            (Some(topic), _) => BTreeSet::from([topic.into()]),
            (None, Some(topics)) if !topics.is_empty() => topics.split(';').map(Into::into).collect(),
            _ => all_topics_of(broker, group)?,
        };
        let mut stats = ConsumeStats::default();
        for topic in topics {
            let one = consume_stats_of(broker, group, &topic)?;
            stats.consume_tps += one.consume_tps;
            stats.offset_table.0.extend(one.offset_table.0);
        }
        Ok(stats)
    });
}

/// The topics that a group consumes: those in which it has an offset, and its retry topic. So a group that was made and never
/// connected has one, without which tools take it for missing.
fn all_topics_of(broker: &Broker, group: &str) -> Result<BTreeSet<Arc<str>>, Refused> {
    let mut topics = progress::topics_of(broker, group)?;
    let retry = name::retry_topic(group);
    if broker.shard.groups().get(group).is_some() && broker.shard.topics().get(&retry).is_some() {
        topics.insert(retry.into());
    }
    Ok(topics)
}

/// How far a group has come in one topic; nothing if there is no such topic, or the connected members do not want it.
pub(super) fn consume_stats_of(broker: &Broker, group: &str, name: &str) -> Result<ConsumeStats, Refused> {
    let mut stats = ConsumeStats::default();
    let Some(topic) = broker.shard.topics().get(name) else { return Ok(stats) };
    let view = broker.clients.consumer_group(group).filter(|view| !view.subscriptions.is_empty());
    if view.is_some_and(|view| view.subscriptions.iter().all(|subscription| subscription.data.topic != name)) {
        return Ok(stats);
    }
    stats.consume_tps = broker.stats.group_get_rate(group, name, broker.now());
    for queue in progress::readable(&topic) {
        let consumed = progress::offset(broker, group, queue)?.unwrap_or(QueueOffset::ZERO);
        let last = consumed.previous().map(|last| progress::store_time(broker, queue, last)).transpose()?.flatten();
        let pulled = broker.delivery.offsets.last_pull(group, queue.id).unwrap_or(QueueOffset::ZERO);
        let offset = ConsumeOffset {
            broker_offset: queue.max_offset().signed(),
            consumer_offset: consumed.signed(),
            last_timestamp: last.unwrap_or_default(),
            // In between is what was handed out and not consumed yet. A pull of a queue's end asks for no more than that.
            pull_offset: pulled.min(queue.max_offset()).max(consumed).signed(),
        };
        stats.offset_table.insert(progress::name_of(broker, queue), offset);
    }
    Ok(stats)
}

fn connection_of(member: &ProducerMember) -> ClientConnection {
    ClientConnection {
        client_addr: member.connection.peer().to_string(),
        client_id: member.client_id.to_string(),
        language: member.language.name().to_owned(),
        version: member.version,
    }
}

pub(super) fn consumer_connections(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json(broker, request, reply, |broker, request| {
        let group = request.header::<ConsumerGroupHeader<'_>>()?.consumer_group;
        let view = broker.clients.consumer_group(group).ok_or_else(|| {
            Refused::new(response::CONSUMER_NOT_ONLINE, format!("the consumer group[{group}] not online"))
        })?;
        let subscriptions = view.subscriptions.iter().map(|one| (one.data.topic.clone(), one.data.clone()));
        Ok(ConsumerConnections {
            connection_set: broker.clients.consumers(group).iter().map(connection_of).collect(),
            consume_from_where: view.consume_from_where,
            consume_type: view.consume_type,
            message_model: view.message_model,
            subscription_table: subscriptions.collect(),
        })
    });
}

pub(super) fn producer_connections(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json(broker, request, reply, |broker, request| {
        let group = request.header::<ProducerGroupHeader<'_>>()?.producer_group;
        let members = broker.clients.producers(group);
        if members.is_empty() {
            return Err(Refused::new(response::SYSTEM_ERROR, format!("the producer group[{group}] not exist")));
        }
        Ok(ProducerConnections { connection_set: members.iter().map(connection_of).collect() })
    });
}

/// All producers, by group.
pub(super) fn all_producers(broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    let info = |member: ProducerMember| ProducerInfo {
        client_id: member.client_id.to_string(),
        language: member.language.name().to_owned(),
        last_update_timestamp: member.last_heartbeat,
        remote_ip: member.connection.peer().to_string(),
        version: member.version,
    };
    let groups = broker.clients.all_producers().into_iter();
    let data: BTreeMap<_, _> =
        groups.map(|(group, members)| (group.to_string(), members.into_iter().map(info).collect())).collect();
    body(reply, Ok(ProducerTable { data }));
}

pub(super) fn groups_of_topic(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "topic's groups", request, reply, |broker, request| {
        let name = request.header::<TopicHeader<'_>>()?.topic;
        let mut groups: BTreeSet<String> =
            broker.clients.groups_of_topic(name).iter().map(ToString::to_string).collect();
        if let Some(topic) = broker.shard.topics().get(name) {
            groups.extend(groups_with_offsets(broker, &topic)?);
        }
        Ok(GroupList { group_list: groups.into_iter().collect() })
    });
}

/// The groups that have an offset in a topic, whether they are connected or not.
pub(super) fn groups_with_offsets(broker: &Broker, topic: &Topic) -> Result<BTreeSet<String>, Refused> {
    let queues: BTreeSet<u32> = topic.queues.iter().map(|queue| queue.id.0).collect();
    let offsets = index::offset::all(broker.shard.index())?;
    Ok(offsets.into_iter().filter(|(_, queue, _)| queues.contains(&queue.0)).map(|(group, ..)| group).collect())
}

/// The topics that a group has offsets in.
pub(super) fn topics_of_group(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "topics of group", request, reply, |broker, request| {
        let group = request.header::<GroupHeader<'_>>()?.group;
        let topics = progress::topics_of(broker, group)?;
        Ok(TopicList { broker_addr: None, topic_list: topics.iter().map(ToString::to_string).collect() })
    });
}

/// The subscription of a connected group to a topic.
pub(super) fn subscription_of_group(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json(broker, request, reply, |broker, request| {
        let asked: GroupTopicHeader<'_> = request.header()?;
        let subscription = broker.clients.subscription(asked.group, asked.topic);
        Ok(SubscriptionOfGroup {
            group: asked.group.to_owned(),
            subscription_data: subscription.map(|subscription| subscription.data.clone()),
            topic: asked.topic.to_owned(),
        })
    });
}
