//! Other requests of tools: system topics, tables of offsets, entries of queues, figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::{
    ConsumeQueueData, ConsumeQueueEntry, ConsumerOffsetTable, CorrectionOffsets, DataVersion, GroupForbidden, TopicList,
};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    CloneGroupOffsetHeader, GroupForbiddenHeader, QueryConsumeQueueHeader, QueryCorrectionOffsetHeader,
    ViewBrokerStatsHeader,
};
use escrowmq_common::name::is_system_topic;
use serde_json::json;

use super::answer::{self, json_slowly, no_topic};
use super::stats::groups_with_offsets;
use super::{progress, slow};
use crate::broker::Broker;
use crate::index;
use crate::reply::{Refused, Reply};
use crate::stats::Figure;
use crate::terms::QueueOffset;

/// Most entries of a queue in one answer.
const ENTRIES_MAX: usize = 1000;

/// Nothing is to be done, since expired files and queues go by themselves.
pub(super) fn clean(_broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    reply.ok();
}

/// Delayed messages wait in a table of their own, not in queues with offsets.
pub(super) fn delay_offsets(_broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    answer::body(reply, Ok(json!({"dataVersion": DataVersion::default(), "offsetTable": {}})));
}

pub(super) fn system_topics(broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    let topics = broker.shard.topics().all();
    let mut names: Vec<String> = topics
        .iter()
        .map(|topic| topic.settings.name.clone())
        .filter(|name| is_system_topic(name) || is_of_broker(broker, name))
        .collect();
    names.sort_unstable();
    answer::body(reply, Ok(TopicList { broker_addr: Some(broker.address.clone()), topic_list: names }));
}

/// Whether a topic is named after this broker or its cluster.
fn is_of_broker(broker: &Broker, name: &str) -> bool {
    let config = broker.config();
    name == config.broker_name || name == config.broker_cluster_name
}

/// Gives a group the offsets of another one.
pub(super) fn clone_offsets(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    slow::run(broker, "clone offsets", reply, move |broker, reply| match try_clone_offsets(broker, &request) {
        Ok(()) => reply.ok(),
        Err(refused) => reply.refuse(refused),
    });
}

fn try_clone_offsets(broker: &Broker, request: &Frame) -> Result<(), Refused> {
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
pub(super) fn correction(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "compare offsets", request, reply, |broker, request| {
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
    });
}

/// Entries of a queue, and whether a group's filter lets them pass.
pub(super) fn queue_entries(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "queue entries", request, reply, |broker, request| {
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
            physic_offset: entry.position.signed(),
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
    });
}

pub(super) fn figures(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    answer::json(broker, request, reply, |broker, request| {
        let asked: ViewBrokerStatsHeader<'_> = request.header()?;
        let data = Figure::from_name(asked.stats_name)
            .and_then(|figure| broker.stats.look(figure, asked.stats_key, broker.shard.topics(), broker.now()));
        data.ok_or_else(|| Refused::new(response::SYSTEM_ERROR, format!("The stats <{}> not exist", asked.stats_name)))
    });
}

/// The stored offsets of all groups.
pub(super) fn all_offsets(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    json_slowly(broker, "all offsets", request, reply, |broker, _| {
        let mut offset_table: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (group, id, offset) in index::offset::all(broker.shard.index())? {
            let Some(queue) = broker.shard.topics().queue(id) else { continue };
            let offsets = offset_table.entry(format!("{}@{group}", queue.topic)).or_default();
            offsets.insert(queue.index.cast_signed(), offset.signed());
        }
        Ok(ConsumerOffsetTable { data_version: Some(DataVersion::default()), offset_table })
    });
}

/// Nobody is forbidden to read: take the topic's or the group's permission away instead.
pub(super) fn forbidden(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    answer::json(broker, request, reply, |_, request| {
        let asked: GroupForbiddenHeader<'_> = request.header()?;
        if asked.readable == Some(false) {
            let remark =
                "forbidding a group one topic is not supported; disable the group or the topic's read permission";
            return Err(Refused::new(response::REQUEST_CODE_NOT_SUPPORTED, remark));
        }
        Ok(GroupForbidden { group: asked.group.to_owned(), readable: Some(true), topic: asked.topic.to_owned() })
    });
}
