//! Questions of a tool to a consumer through a broker: its work, its offsets, and to handle one message now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::body::{
    self, ConsumeDirectlyResult, ConsumeResult, ConsumeStatus, ConsumeType, ConsumerRunningInfo, ConsumerStatus, Form,
    ProcessQueueInfo, json,
};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, WIRE_VERSION};
use escrowmq_common::header::ConsumeMessageDirectlyHeader;
use escrowmq_common::message::Message as Unit;
use escrowmq_common::remoting::Connection;

use super::group::{Group, HeldQueue};
use super::subscription::Subscription;
use super::verdict::Verdict;
use crate::message::MessageExt;

/// Brokers wait so long for an answer to a relayed request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers one request of a tool.
pub(super) fn answer(group: &Arc<Group>, connection: &Arc<Connection>, request: Frame) {
    match request.code {
        request::GET_CONSUMER_RUNNING_INFO => {
            // The tools read this body with a parser that knows objects as keys only in the loose form.
            let info = json::to_bytes(&running_info(group), Form::Loose);
            connection.reply(&Frame::response(&request, response::SUCCESS).with_body(info));
        }
        request::GET_CONSUMER_STATUS_FROM_CLIENT => {
            let topic = request.fields.get("topic").unwrap_or_default();
            let status = json::to_bytes(&status(group, topic), Form::Loose);
            connection.reply(&Frame::response(&request, response::SUCCESS).with_body(status));
        }
        request::CONSUME_MESSAGE_DIRECTLY => {
            let Ok(place) = Arc::clone(&group.asked_places).try_acquire_owned() else {
                let busy = Frame::response(&request, response::SYSTEM_BUSY);
                return connection.reply(&busy.with_remark("the client handles as many such requests as it may"));
            };
            let (member, connection) = (Arc::clone(group), Arc::clone(connection));
            group.tasks.spawn("consume directly", async move {
                let _place = place;
                let answer = match consume_directly(&member, &request).await {
                    Ok(result) => {
                        Frame::response(&request, response::SUCCESS).with_body(json::to_bytes(&result, Form::Strict))
                    }
                    Err(reason) => Frame::response(&request, response::SYSTEM_ERROR).with_remark(reason),
                };
                connection.reply(&answer);
            });
        }
        code => {
            let answer = Frame::response(&request, response::REQUEST_CODE_NOT_SUPPORTED);
            connection.reply(&answer.with_remark(format!(" request type {code} not supported")));
        }
    }
}

fn running_info(group: &Group) -> ConsumerRunningInfo {
    // Names as the tools look for them.
    let properties = [
        ("PROP_NAMESERVER_ADDR", group.core.settings.namesrv.clone()),
        ("PROP_CONSUME_TYPE", ConsumeType::Passively.to_string()),
        ("PROP_CONSUMEORDERLY", group.settings.order.is_ordered().to_string()),
        ("PROP_THREADPOOL_CORE_SIZE", group.settings.concurrency.to_string()),
        ("PROP_CONSUMER_START_TIMESTAMP", group.started_ms.to_string()),
        ("PROP_CLIENT_VERSION", WIRE_VERSION.to_string()),
    ];
    ConsumerRunningInfo {
        properties: properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        mq_table: group.held().iter().map(|held| (wire_queue(held), queue_info(held))).collect(),
        status_table: group
            .subscriptions
            .iter()
            .map(|subscription| (subscription.topic.to_string(), ConsumeStatus::default()))
            .collect(),
        subscription_set: group.subscriptions.iter().map(Subscription::data).collect(),
        ..ConsumerRunningInfo::default()
    }
}

fn status(group: &Group, topic: &str) -> ConsumerStatus {
    let held = group.held();
    let of_topic = held.iter().filter(|held| held.queue.topic() == topic);
    ConsumerStatus {
        consumer_table: BTreeMap::new(),
        message_queue_table: of_topic.map(|held| (wire_queue(held), held.buffer.lock().committable())).collect(),
    }
}

fn wire_queue(held: &HeldQueue) -> body::MessageQueue {
    body::MessageQueue::new(held.queue.topic(), held.queue.broker(), held.queue.id())
}

fn queue_info(held: &HeldQueue) -> ProcessQueueInfo {
    let buffer = held.buffer.lock();
    ProcessQueueInfo {
        cached_msg_count: (buffer.waiting() + buffer.running()) as i32,
        cached_msg_min_offset: buffer.committable(),
        cached_msg_max_offset: buffer.next() - 1,
        cached_msg_size_in_mib: (buffer.bytes() >> 20) as i32,
        commit_offset: buffer.committable(),
        droped: held.is_dropped(),
        locked: held.is_locked(),
        ..ProcessQueueInfo::default()
    }
}

/// Runs the handler for a message that an operator picked. No offset moves, and a failure is only reported.
async fn consume_directly(group: &Group, request: &Frame) -> Result<ConsumeDirectlyResult, String> {
    let header: ConsumeMessageDirectlyHeader<'_> = request.header().map_err(|error| error.to_string())?;
    let unit = Unit::decode(&request.body).map_err(|error| error.to_string())?;
    let broker = header.broker_name.unwrap_or_default();
    let message = MessageExt::from_unit(unit, broker);
    let began = clock::monotonic();
    let timeout = group.settings.handler_timeout.min(PATIENCE);
    let (consume_result, remark) = match group.handler.handle(vec![message], None, timeout).await {
        Verdict::Done => (ConsumeResult::Success, None),
        Verdict::Again { reason, .. } | Verdict::Never { reason } | Verdict::Unreadable { reason } => {
            (ConsumeResult::Later, Some(reason))
        }
    };
    Ok(ConsumeDirectlyResult {
        auto_commit: true,
        consume_result,
        order: group.settings.order.is_ordered(),
        remark,
        spent_time_mills: clock::monotonic().saturating_sub(began).as_millis() as i64,
    })
}
