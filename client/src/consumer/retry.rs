//! Giving failed messages back to the broker, which counts attempts, delays the next one, and moves the message to the
//! dead letters after the last.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::ConsumerSendMsgBackHeader;
use escrowmq_common::message::properties::name;
use escrowmq_common::name::retry_topic;

use super::group::Group;
use crate::message::{Message, MessageExt};
use crate::producer::Prepared;

/// Attempts per message unless the consumer is set to another number.
const ATTEMPTS_MAX: u32 = 16;

/// The broker's first delay level for retries: 10 s.
const FIRST_RETRY_LEVEL: u32 = 3;

/// Lets the broker try the message again later. Answers whether it took it.
pub(super) async fn hand_over(group: &Group, message: &MessageExt) -> bool {
    let max = group.settings.attempts_max.unwrap_or(ATTEMPTS_MAX);
    match send_back(group, message, max).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(id = %message.message_id(), %error, "not sent back; sending it to the retry topic");
            resend(group, message, message.reconsume_times() + 1, max).await
        }
    }
}

/// Ordered consumption: the message has failed here so often that it goes to the dead letters. Answers whether the
/// broker took it.
pub(super) async fn bury(group: &Group, message: &MessageExt, failures: u32) -> bool {
    // A send to the retry topic with more attempts than allowed is what other clients do; the broker stores it as a dead
    // letter.
    resend(group, message, failures + 1, failures).await
}

/// The usual way: the broker copies the message itself.
async fn send_back(group: &Group, message: &MessageExt, max: u32) -> Result<(), crate::error::RequestError> {
    let queue = message.queue();
    let addr = group.core.way_to(queue.broker(), queue.topic()).await?;
    let id = message.message_id();
    let header = ConsumerSendMsgBackHeader {
        offset: message.position(),
        group: &group.name,
        // The broker chooses by the attempts so far.
        delay_level: 0,
        origin_msg_id: Some(&id),
        origin_topic: Some(message.topic()),
        unit_mode: false,
        max_reconsume_times: Some(max as i32),
        broker_name: Some(queue.broker()),
    };
    let ask = Frame::request(request::CONSUMER_SEND_MSG_BACK).with_header(&header);
    group.core.request(&addr, ask).await.map(drop)
}

/// The other way: an ordinary send to the retry topic, to any broker.
async fn resend(group: &Group, message: &MessageExt, times: u32, max: u32) -> bool {
    let mut copy = Message::new(retry_topic(&group.name), message.body().clone()).flag(message.flag());
    for (key, value) in message.properties() {
        copy.set(key.to_owned(), value);
    }
    copy.remove(name::TRANSACTION_PREPARED);
    copy.set(name::RETRY_TOPIC, message.topic());
    if message.property(name::ORIGIN_MESSAGE_ID).is_none() {
        copy.set(name::ORIGIN_MESSAGE_ID, message.message_id());
    }
    copy.set(name::DELAY, (FIRST_RETRY_LEVEL + message.reconsume_times()).to_string());
    let mut prepared = Prepared::retried(copy, group.retry_sender.settings());
    prepared.reconsume = Some((times as i32, max as i32));
    match group.retry_sender.send_prepared(&prepared, None, None).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(id = %message.message_id(), ?error, "not sent to the retry topic either");
            false
        }
    }
}
