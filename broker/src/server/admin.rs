//! What else tools ask of a broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::{
    BrokerStatsData, ConsumeQueueData, ConsumeQueueEntry, ConsumerOffsetTable, CorrectionOffsets, DataVersion,
    GroupForbidden, TopicList,
};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    CloneGroupOffsetHeader, GroupForbiddenHeader, QueryConsumeQueueHeader, QueryCorrectionOffsetHeader,
    ViewBrokerStatsHeader,
};
use escrowmq_common::name::is_system_topic;
use escrowmq_common::remoting::Connection;
use serde_json::json;

use super::answer::{self, json_slowly, no_topic};
use super::stats::groups_with_offsets;
use super::{lag, progress, slow, stats};
use crate::broker::Broker;
use crate::index;
use crate::reply::{Refused, Reply};
use crate::stats::Figure;
use crate::terms::QueueOffset;

/// Most entries of a queue in one answer.
const ENTRIES_MAX: usize = 1000;

pub(super) fn handle(broker: &Arc<Broker>, _connection: &Arc<Connection>, request: Frame, reply: Reply) {
    match request.code {
        request::GET_ALL_PRODUCER_INFO => answer::json(reply, Ok(stats::all_producers(broker))),
        request::QUERY_TOPICS_BY_CONSUMER => {
            json_slowly(broker, "topics of group", request, reply, stats::topics_of_group);
        }
        request::QUERY_SUBSCRIPTION_BY_CONSUMER => answer::json(reply, stats::subscription_of_group(broker, &request)),
        request::QUERY_CONSUME_TIME_SPAN => json_slowly(broker, "time spans", request, reply, lag::time_spans),
        request::GET_BROKER_CONSUME_STATS => json_slowly(broker, "lag of all groups", request, reply, lag::of_all),
        request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => answer::json(reply, Ok(system_topics(broker))),
        // Nothing to be done: what is expired goes by itself.
        request::CLEAN_EXPIRED_CONSUMEQUEUE
        | request::CLEAN_UNUSED_TOPIC
        | request::DELETE_EXPIRED_COMMITLOG
        | request::TRIGGER_DELETE_FILES => reply.ok(),
        request::CLONE_GROUP_OFFSET => {
            slow::run(broker, "clone offsets", reply, move |broker, reply| match clone_offsets(broker, &request) {
                Ok(()) => reply.ok(),
                Err(refused) => reply.refuse(refused),
            });
        }
        request::QUERY_CORRECTION_OFFSET => json_slowly(broker, "compare offsets", request, reply, correction),
        request::QUERY_CONSUME_QUEUE => json_slowly(broker, "queue entries", request, reply, queue_entries),
        request::VIEW_BROKER_STATS_DATA => answer::json(reply, figures(broker, &request)),
        request::GET_ALL_CONSUMER_OFFSET => json_slowly(broker, "all offsets", request, reply, all_offsets),
        request::GET_ALL_DELAY_OFFSET => {
            // Delayed messages wait in a table of their own, not in queues with offsets.
            answer::json(reply, Ok(json!({"dataVersion": DataVersion::default(), "offsetTable": {}})));
        }
        request::UPDATE_AND_GET_GROUP_FORBIDDEN => answer::json(reply, forbidden(&request)),
        request::GET_BROKER_HA_STATUS => answer::json(reply, Ok(replication(broker))),
        other => reply.unsupported(other),
    }
}

fn system_topics(broker: &Broker) -> TopicList {
    let topics = broker.shard.topics().all();
    let mut names: Vec<String> = topics
        .iter()
        .map(|topic| topic.settings.name.clone())
        .filter(|name| is_system_topic(name) || is_of_broker(broker, name))
        .collect();
    names.sort_unstable();
    TopicList { broker_addr: Some(broker.address.clone()), topic_list: names }
}

/// Whether a topic is named after this broker or its cluster.
fn is_of_broker(broker: &Broker, name: &str) -> bool {
    let config = broker.config();
    name == config.broker_name || name == config.broker_cluster_name
}

/// Gives a group the offsets of another one.
fn clone_offsets(broker: &Broker, request: &Frame) -> Result<(), Refused> {
    let asked: CloneGroupOffsetHeader<'_> = request.header()?;
    let only = asked.topic.filter(|topic| !topic.is_empty());
    if broker.clients.consumer_group(asked.dest_group).is_some() {
        let remark =
            format!("the consumer group[{}] is online; its members would overwrite the offsets", asked.dest_group);
        return Err(Refused::new(response::SYSTEM_ERROR, remark));
    }
    for (id, offset) in broker.delivery.offsets.all_of(&broker.shard, asked.src_group)? {
        let Some(queue) = broker.shard.topics().queue(id) else { continue };
        if only.is_none_or(|only| *queue.topic == *only) {
            progress::set(broker, asked.dest_group, &queue, offset)
                .map_err(|error| Refused::new(response::SYSTEM_ERROR, error.to_string()))?;
        }
    }
    Ok(())
}

/// Per queue the smallest offset of all groups that are not named; where a group to compare with is ahead of it, the
/// largest number there is.
fn correction(broker: &Broker, request: &Frame) -> Result<CorrectionOffsets, Refused> {
    let asked: QueryCorrectionOffsetHeader<'_> = request.header()?;
    let topic = broker.shard.topics().get(asked.topic).ok_or_else(|| no_topic(asked.topic))?;
    let named: Vec<&str> = asked.filter_groups.unwrap_or_default().split(',').collect();
    let mut smallest: BTreeMap<i32, i64> = BTreeMap::new();
    for group in groups_with_offsets(broker, &topic)? {
        if named.contains(&group.as_str()) {
            continue;
        }
        for queue in &topic.queues {
            if let Some(offset) = progress::offset(broker, &group, queue)? {
                let least = smallest.entry(queue.index.cast_signed()).or_insert(i64::MAX);
                *least = (*least).min(offset.signed());
            }
        }
    }
    for queue in &topic.queues {
        let Some(least) = smallest.get_mut(&queue.index.cast_signed()) else { continue };
        if progress::offset(broker, asked.compare_group, queue)?.is_some_and(|offset| *least > offset.signed()) {
            *least = i64::MAX;
        }
    }
    Ok(CorrectionOffsets { correction_offsets: smallest })
}

/// Entries of a queue, and whether a group's filter lets them pass.
fn queue_entries(broker: &Broker, request: &Frame) -> Result<ConsumeQueueData, Refused> {
    let asked: QueryConsumeQueueHeader<'_> = request.header()?;
    let topic = broker.shard.topics().get(asked.topic).ok_or_else(|| no_topic(asked.topic))?;
    let queue = topic.queue(asked.queue_id).ok_or_else(|| {
        Refused::new(response::SYSTEM_ERROR, format!("{}@{} is not exist!", asked.queue_id, asked.topic))
    })?;
    let group = asked.consumer_group.filter(|group| !group.is_empty());
    let subscription = group.and_then(|group| broker.clients.subscription(group, asked.topic));
    let from = QueueOffset(u64::try_from(asked.index).unwrap_or_default());
    let count = usize::try_from(asked.count).unwrap_or_default().min(ENTRIES_MAX);
    let entries = broker.shard.entries(queue, from, count, count, |_| true)?;
    let wants = |tag_hash: i32| {
        subscription.as_ref().is_some_and(|subscription| {
            let codes = &subscription.data.code_set;
            codes.is_empty() || codes.contains(&tag_hash)
        })
    };
    let queue_data = entries.wanted.iter().map(|entry| ConsumeQueueEntry {
        eval: wants(entry.tag_hash),
        physic_offset: entry.position.cast_signed(),
        physic_size: entry.length.cast_signed(),
        tags_code: i64::from(entry.tag_hash),
        ..ConsumeQueueEntry::default()
    });
    let offline = group.filter(|_| subscription.is_none());
    Ok(ConsumeQueueData {
        filter_data: offline.map(|group| format!("{group}@{} is not online!", asked.topic)),
        max_queue_index: queue.max_offset().signed(),
        min_queue_index: queue.min_offset().signed(),
        queue_data: queue_data.collect(),
        subscription_data: subscription.as_ref().map(|subscription| subscription.data.clone()),
    })
}

fn figures(broker: &Broker, request: &Frame) -> Result<BrokerStatsData, Refused> {
    let asked: ViewBrokerStatsHeader<'_> = request.header()?;
    let data = Figure::from_name(asked.stats_name)
        .and_then(|figure| broker.stats.look(figure, asked.stats_key, broker.shard.topics(), broker.now()));
    data.ok_or_else(|| Refused::new(response::SYSTEM_ERROR, format!("The stats <{}> not exist", asked.stats_name)))
}

/// The stored offsets of all groups.
fn all_offsets(broker: &Broker, _request: &Frame) -> Result<ConsumerOffsetTable, Refused> {
    let mut offset_table: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
    for (group, id, offset) in index::offset::all(broker.shard.index())? {
        let Some(queue) = broker.shard.topics().queue(id) else { continue };
        let offsets = offset_table.entry(format!("{}@{group}", queue.topic)).or_default();
        offsets.insert(queue.index.cast_signed(), offset.signed());
    }
    Ok(ConsumerOffsetTable { data_version: Some(DataVersion::default()), offset_table })
}

/// Nobody is forbidden to read: take the topic's or the group's permission away instead.
fn forbidden(request: &Frame) -> Result<GroupForbidden, Refused> {
    let asked: GroupForbiddenHeader<'_> = request.header()?;
    if asked.readable == Some(false) {
        let remark = "forbidding a group one topic is not supported; disable the group or the topic's read permission";
        return Err(Refused::new(response::REQUEST_CODE_NOT_SUPPORTED, remark));
    }
    Ok(GroupForbidden { group: asked.group.to_owned(), readable: Some(true), topic: asked.topic.to_owned() })
}

/// A broker without replicas, in the words of tools.
fn replication(broker: &Broker) -> serde_json::Value {
    json!({
        "haClientRuntimeInfo": {
            "lastReadTimestamp": 0,
            "lastWriteTimestamp": 0,
            "masterFlushOffset": 0,
            "maxOffset": 0,
            "transferredByteInSecond": 0,
        },
        "haConnectionInfo": [],
        "inSyncSlaveNums": 0,
        "master": true,
        "masterCommitLogMaxOffset": broker.shard.log().end().get(),
    })
}
