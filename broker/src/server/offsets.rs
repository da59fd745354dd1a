//! Offsets of consumer groups, and the ends of queues.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    EarliestStoreTimeResponse, GetMaxOffsetHeader, Header as _, OffsetResponse, QueryConsumerOffsetHeader, QueueHeader,
    SearchOffsetHeader, UpdateConsumerOffsetHeader,
};
use escrowmq_common::some_lines;

use super::{progress, slow};
use crate::broker::Broker;
use crate::delivery::CommitRefusal;
use crate::reply::Reply;
use crate::shard::{Queue, ReadError};
use crate::terms::{QueueOffset, Stamp};

/// A group without an offset starts at the beginning of a queue whose first message lies within this many bytes of the log's end:
/// such a topic is young, and its first messages are likely meant for the group that comes now.
const YOUNG_BYTES: u64 = 1 << 30;

/// The offset of the next message to come; 0 for a queue that is not there.
pub(super) fn max(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    // Early Go releases ask for an offset by time under this code, with capitals.
    if request.fields.get("Timestamp").is_some() {
        return search(broker, request, reply);
    }
    let header: GetMaxOffsetHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let end = queue(broker, header.topic, header.queue_id).map_or(QueueOffset::ZERO, |queue| queue.max_offset());
    send_offset(reply, end);
}

/// The offset of the oldest message; 0 for a queue that is not there.
pub(super) fn min(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: QueueHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let begin = queue(broker, header.topic, header.queue_id).map_or(QueueOffset::ZERO, |queue| queue.min_offset());
    send_offset(reply, begin);
}

fn queue(broker: &Broker, topic: &str, queue_id: i32) -> Option<Arc<Queue>> {
    broker.shard.topics().get(topic)?.queue(queue_id).cloned()
}

fn send_offset(reply: Reply, offset: QueueOffset) {
    let header = OffsetResponse { offset: offset.signed() };
    reply.send(response::SUCCESS, None, |fields| header.write(fields), &[]);
}

/// The offset of a group in a queue.
pub(super) fn query(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: QueryConsumerOffsetHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let none = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
    let Some(queue) = queue(broker, header.topic, header.queue_id) else {
        return reply.error(response::QUERY_NOT_FOUND, none);
    };
    match broker.delivery.offsets.newest(&broker.shard, header.consumer_group, queue.id) {
        Ok(Some(offset)) => return send_offset(reply, offset),
        Ok(None) => {}
        Err(error) => return reply.refuse(error),
    }
    if header.set_zero_if_not_found == Some(false) {
        let remark = "Not found, do not set to zero, maybe this group boot first";
        return reply.error(response::QUERY_NOT_FOUND, remark);
    }
    match is_young(broker, &queue) {
        Ok(true) => send_offset(reply, QueueOffset::ZERO),
        Ok(false) => reply.error(response::QUERY_NOT_FOUND, none),
        Err(error) => reply.refuse(error),
    }
}

/// Whether the queue still has its first message, and that one is recent; or has none yet. Sent to the end of an empty queue
/// instead, a group would skip what is stored before it asks where that is.
fn is_young(broker: &Broker, queue: &Queue) -> Result<bool, ReadError> {
    if queue.min_offset() > QueueOffset::ZERO {
        return Ok(false);
    }
    if queue.max_offset() == QueueOffset::ZERO {
        return Ok(true);
    }
    let first = broker.shard.entry(queue, QueueOffset::ZERO)?;
    let end = broker.shard.log().end();
    Ok(first.is_some_and(|entry| end.since(entry.position) <= YOUNG_BYTES))
}

/// A consumer commits an offset of its group.
pub(super) fn update(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: UpdateConsumerOffsetHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let group = header.consumer_group;
    if broker.shard.groups().get(group).is_none() {
        return reply.error(response::SUBSCRIPTION_GROUP_NOT_EXIST, &format!("Group {group} not exist!"));
    }
    let Some(topic) = broker.shard.topics().get(header.topic) else {
        return reply.error(response::TOPIC_NOT_EXIST, &format!("Topic {} not exist!", header.topic));
    };
    let Some(queue) = topic.queue(header.queue_id) else {
        let remark = format!("QueueId {} of topic {} not exist!", header.queue_id, header.topic);
        return reply.error(response::INVALID_PARAMETER, &remark);
    };
    let Ok(offset) = u64::try_from(header.commit_offset).map(QueueOffset) else {
        let remark = format!("Offset {} is negative", header.commit_offset);
        return reply.error(response::INVALID_PARAMETER, &remark);
    };
    if !progress::is_within(queue, offset) {
        let remark =
            format!("Offset {offset} is beyond the end {} of the queue; nothing was changed", queue.max_offset());
        return reply.error(response::INVALID_PARAMETER, &remark);
    }
    let connection = reply.connection().id();
    let is_member = || broker.clients.is_consumer(group, connection);
    let offsets = &broker.delivery.offsets;
    match offsets.commit(&broker.shard, group, queue.id, offset, connection, is_member) {
        Ok(()) if reply.is_oneway() => {}
        Ok(()) => offsets.when_stored(move |stored| match stored {
            Ok(()) => reply.ok(),
            Err(error) => reply.refuse(error),
        }),
        Err(error @ (CommitRefusal::Lower { .. } | CommitRefusal::Reset(_))) => {
            tracing::debug!(group, topic = header.topic, queue = header.queue_id, %error, "offset not taken");
            reply.error(response::SYSTEM_ERROR, &error.to_string());
        }
        Err(CommitRefusal::Index(error)) => {
            some_lines!(error, group, topic = header.topic, %error, "offset not taken");
            reply.error(response::SYSTEM_ERROR, &error.to_string());
        }
    }
}

/// The offset of a point in time.
pub(super) fn search(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: SearchOffsetHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let Some(queue) = queue(broker, header.topic, header.queue_id) else {
        return send_offset(reply, QueueOffset::ZERO);
    };
    let upper = header.boundary_type.is_some_and(|boundary| boundary.eq_ignore_ascii_case("UPPER"));
    // A time before 1970 is before everything.
    let time = Stamp(u64::try_from(header.timestamp).unwrap_or_default());
    slow::run(broker, "search offset", reply, move |broker, reply| {
        let found = if upper { last_upto(broker, &queue, time) } else { broker.shard.offset_at_time(&queue, time) };
        match found {
            Ok(offset) => send_offset(reply, offset),
            Err(error) => reply.refuse(error),
        }
    });
}

/// The last message that entered the queue at or before `time`; 0 if there is none.
fn last_upto(broker: &Broker, queue: &Queue, time: Stamp) -> Result<QueueOffset, ReadError> {
    let after = broker.shard.offset_at_time(queue, time.saturating_add(1))?;
    Ok(after.previous().filter(|last| *last >= queue.min_offset()).unwrap_or(QueueOffset::ZERO))
}

/// When the oldest message of a queue entered it; -1 if there is none.
pub(super) fn earliest(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: QueueHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let send = |reply: Reply, timestamp| {
        let header = EarliestStoreTimeResponse { timestamp };
        reply.send(response::SUCCESS, None, |fields| header.write(fields), &[]);
    };
    let Some(queue) = queue(broker, header.topic, header.queue_id) else { return send(reply, -1) };
    slow::run(broker, "earliest store time", reply, move |broker, reply| {
        match broker.shard.entries(&queue, QueueOffset::ZERO, 1, 1, |_| true) {
            Ok(found) => send(reply, found.wanted.first().map_or(-1, |entry| entry.store_time.signed())),
            Err(error) => reply.refuse(error),
        }
    });
}
