//! The offsets of groups, and the names of queues, as tools are told.

use std::collections::BTreeSet;
use std::sync::Arc;

use escrowmq_common::body::MessageQueue;

use crate::broker::Broker;
use crate::delivery::CommitRefusal;
use crate::index::IndexError;
use crate::shard::{Queue, ReadError, SubmitError, Topic};
use crate::terms::QueueOffset;

/// The name of a queue on the wire.
pub(super) fn name_of(broker: &Broker, queue: &Queue) -> MessageQueue {
    MessageQueue::new(&*queue.topic, broker.config().broker_name.as_str(), queue.index.cast_signed())
}

/// The queues of a topic that consumers may read.
pub(super) fn readable(topic: &Topic) -> impl Iterator<Item = &Arc<Queue>> {
    topic.queues.iter().take(topic.settings.read_queues as usize)
}

/// The queues of a topic, readable or writable.
pub(super) fn queues(topic: &Topic) -> impl Iterator<Item = &Arc<Queue>> {
    topic.queues.iter().take(topic.settings.queue_count() as usize)
}

/// The next offset that a group consumes in a queue, if it is known.
pub(super) fn offset(broker: &Broker, group: &str, queue: &Queue) -> Result<Option<QueueOffset>, IndexError> {
    broker.delivery.offsets.newest(&broker.shard, group, queue.id)
}

/// The topics in which a group has an offset.
pub(super) fn topics_of(broker: &Broker, group: &str) -> Result<BTreeSet<Arc<str>>, IndexError> {
    let offsets = broker.delivery.offsets.all_of(&broker.shard, group)?;
    Ok(offsets
        .into_iter()
        .filter_map(|(queue, _)| Some(Arc::clone(&broker.shard.topics().queue(queue)?.topic)))
        .collect())
}

/// When the message at an offset entered its queue; `None` if there is none.
pub(super) fn store_time(broker: &Broker, queue: &Queue, offset: QueueOffset) -> Result<Option<i64>, ReadError> {
    Ok(broker.shard.entry(queue, offset)?.map(|entry| entry.store_time.signed()))
}

/// Whether a consumer may have come to an offset: it never comes beyond the end. One that says so has its offset from another
/// topic or another broker, and would skip what it has not seen.
pub(super) fn is_within(queue: &Queue, offset: QueueOffset) -> bool {
    offset <= queue.max_offset()
}

/// Sets offsets of a group wherever they were before, and waits until they are stored. Connected consumers are told by
/// their next pull, and their commits before that are ignored.
pub(super) async fn reset(
    broker: &Arc<Broker>,
    group: &str,
    offsets: &[(Arc<Queue>, QueueOffset)],
) -> Result<(), SubmitError> {
    let is_online = broker.clients.consumer_group(group).is_some();
    for (queue, offset) in offsets {
        // A group without members has nobody to be told: a member that comes asks for the offset first.
        if is_online || set(broker, group, queue, *offset).is_err() {
            broker.delivery.offsets.reset(group, queue.id, *offset);
        }
    }
    let result = broker.delivery.offsets.flush(&broker.shard).await;
    for (queue, _) in offsets {
        queue.arrivals.wake();
    }
    result
}

/// Sets an offset of a group as a tool does: it may go back. Stored with the next turn.
pub(super) fn set(broker: &Broker, group: &str, queue: &Queue, offset: QueueOffset) -> Result<(), CommitRefusal> {
    broker.delivery.offsets.set(&broker.shard, group, queue.id, offset.min(queue.max_offset()))
}
