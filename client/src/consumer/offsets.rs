//! Offsets at the broker: where to start, and what is done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    GetMaxOffsetHeader, HeaderError, OffsetResponse, QueryConsumerOffsetHeader, QueueHeader, SearchOffsetHeader,
    UpdateConsumerOffsetHeader,
};
use escrowmq_common::name::is_retry_topic;
use futures_util::future::join_all;

use super::group::{Group, HeldQueue};
use super::start::{ConsumeFrom, StartPoint};
use crate::core::{Core, refused};
use crate::error::RequestError;
use crate::queue::MessageQueue;

/// Where a queue is gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) offset: i64,
    /// The broker has it as the group's offset already: storing it again would only risk to overwrite a newer one.
    pub(crate) is_stored: bool,
}

/// Where `group` goes on in `queue`: at its stored offset, else where it is set to begin.
pub(crate) async fn start_of(
    core: &Core,
    group: &str,
    queue: &MessageQueue,
    from: ConsumeFrom,
) -> Result<Start, RequestError> {
    if let Some(offset) = stored(core, group, queue).await? {
        return Ok(Start { offset, is_stored: true });
    }
    first_of(core, queue, from).await
}

/// Where a queue is begun of which nothing is stored.
pub(crate) async fn first_of(core: &Core, queue: &MessageQueue, from: ConsumeFrom) -> Result<Start, RequestError> {
    let offset = match from.start_point(is_retry_topic(queue.topic())) {
        StartPoint::At(offset) => offset,
        StartPoint::End => max(core, queue).await?,
        StartPoint::Since(time) => search(core, queue, time).await?,
    };
    Ok(Start { offset, is_stored: false })
}

/// The offset that `group` has stored.
pub(crate) async fn stored(core: &Core, group: &str, queue: &MessageQueue) -> Result<Option<i64>, RequestError> {
    let header = QueryConsumerOffsetHeader {
        consumer_group: group,
        topic: queue.topic(),
        queue_id: queue.id(),
        set_zero_if_not_found: None,
    };
    let ask = Frame::request(request::QUERY_CONSUMER_OFFSET).with_header(&header);
    let (addr, answer) = ask_broker(core, queue, ask).await?;
    match answer.code {
        response::SUCCESS => Ok(Some(offset_of(&addr, &answer)?)),
        response::QUERY_NOT_FOUND => Ok(None),
        _ => Err(refused(&addr, answer)),
    }
}

/// The offset of the next message to be written.
pub(crate) async fn max(core: &Core, queue: &MessageQueue) -> Result<i64, RequestError> {
    let header = GetMaxOffsetHeader { topic: queue.topic(), queue_id: queue.id(), committed: Some(true) };
    offset(core, queue, Frame::request(request::GET_MAX_OFFSET).with_header(&header)).await
}

/// The offset of the oldest message kept.
pub(crate) async fn min(core: &Core, queue: &MessageQueue) -> Result<i64, RequestError> {
    let header = QueueHeader { topic: queue.topic(), queue_id: queue.id() };
    offset(core, queue, Frame::request(request::GET_MIN_OFFSET).with_header(&header)).await
}

/// The offset of the first message stored at `time` (milliseconds since 1970) or later.
pub(crate) async fn search(core: &Core, queue: &MessageQueue, time: i64) -> Result<i64, RequestError> {
    let header =
        SearchOffsetHeader { topic: queue.topic(), queue_id: queue.id(), timestamp: time, boundary_type: None };
    offset(core, queue, Frame::request(request::SEARCH_OFFSET_BY_TIMESTAMP).with_header(&header)).await
}

/// Stores an offset and waits until the broker has it.
pub(crate) async fn put(core: &Core, group: &str, queue: &MessageQueue, offset: i64) -> Result<(), RequestError> {
    let header = UpdateConsumerOffsetHeader {
        consumer_group: group,
        topic: queue.topic(),
        queue_id: queue.id(),
        commit_offset: offset,
    };
    let update = Frame::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header);
    let (addr, answer) = ask_broker(core, queue, update).await?;
    if answer.code == response::SUCCESS { Ok(()) } else { Err(refused(&addr, answer)) }
}

/// Stores an offset where this consumer keeps its offsets.
pub(super) async fn set(group: &Group, queue: &MessageQueue, offset: i64) -> Result<(), RequestError> {
    match &group.offset_file {
        Some(file) => {
            file.put(queue, offset);
            Ok(())
        }
        None => put(&group.core, &group.name, queue, offset).await,
    }
}

/// Stores what a queue has earned, if that is not stored yet. Answers whether it is stored.
pub(super) async fn store(group: &Group, held: &HeldQueue) -> bool {
    let offset = held.buffer.lock().committable();
    if held.stored.load(Ordering::Acquire) == offset {
        return true;
    }
    match set(group, &held.queue, offset).await {
        Ok(()) => held.stored.store(offset, Ordering::Release),
        Err(error) => {
            if !error.is_outage() {
                tracing::warn!(queue = %held.queue, offset, %error, "offset not stored");
            }
            return false;
        }
    }
    true
}

/// Stores what several queues have earned. Answers of how many that did not succeed.
pub(super) async fn store_all(group: &Group, held: &[Arc<HeldQueue>]) -> usize {
    let stored = join_all(held.iter().map(|held| store(group, held))).await;
    if let Some(file) = &group.offset_file
        && let Err(error) = file.save(&group.core.tasks).await
    {
        tracing::warn!(group = %group.name, %error, "offsets not saved");
    }
    stored.into_iter().filter(|stored| !stored).count()
}

/// Stores all offsets again and again until the consumer ends.
pub(super) async fn run(group: Arc<Group>) {
    loop {
        tokio::select! {
            biased;
            () = group.intake.cancelled() => return,
            () = tokio::time::sleep(group.settings.commit_interval) => {}
        }
        tokio::select! {
            biased;
            () = group.intake.cancelled() => return,
            _ = async { store_all(&group, &group.held()).await } => {}
        }
    }
}

/// Each of these questions may be asked twice: an offset that is stored again is the same.
async fn ask_broker(core: &Core, queue: &MessageQueue, ask: Frame) -> Result<(Arc<str>, Frame), RequestError> {
    if core.routes.way(queue.broker()).is_none()
        && let Some((_, replica)) = core.routes.reader(queue.broker(), 0)
    {
        // Without a master a replica answers, as it does for pulls.
        let answer = core.call(&replica, ask, core.settings.request_timeout).await?;
        return Ok((replica, answer));
    }
    core.ask(queue.broker(), queue.topic(), &ask).await
}

async fn offset(core: &Core, queue: &MessageQueue, ask: Frame) -> Result<i64, RequestError> {
    let (addr, answer) = ask_broker(core, queue, ask).await?;
    if answer.code != response::SUCCESS {
        return Err(refused(&addr, answer));
    }
    offset_of(&addr, &answer)
}

fn offset_of(addr: &str, answer: &Frame) -> Result<i64, RequestError> {
    let read: Result<OffsetResponse, HeaderError> = answer.header();
    read.map(|answer| answer.offset).map_err(|error| RequestError::malformed(addr, error))
}
