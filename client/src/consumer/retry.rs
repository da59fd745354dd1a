//! Giving failed messages back to the broker, which counts attempts, delays the next one, and moves the message to the
//! dead letters after the last.

use std::time::Duration;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::ConsumerSendMsgBackHeader;
use escrowmq_common::message::properties::{ITEM_END, NAME_END, name};
use escrowmq_common::name::retry_topic;

use super::group::Group;
use crate::error::SendError;
use crate::message::{DEAD_LETTER_REASON, Message, MessageExt};
use crate::producer::{Prepared, SenderError};

/// Attempts per message unless the consumer is set to another number.
const ATTEMPTS_MAX: u32 = 16;

/// The broker's first delay level for retries: 10 s.
const FIRST_RETRY_LEVEL: u32 = 3;

/// The usual times of the delay levels, from level 1 on, in seconds.
const LEVELS: [u64; 18] = [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// How long a dead letter may take: with the reason it is worth more than without.
const BURY_WITHIN: Duration = Duration::from_secs(60);

/// A level below zero asks for the dead letters.
const DEAD_LETTER_LEVEL: i32 = -1;

/// Characters of a reason that a dead letter carries.
const REASON_CHARS_MAX: usize = 512;

/// The delay level that waits for at least this time. 0 for the usual time: the broker chooses by the attempts so far.
pub(super) fn level(after: Option<Duration>) -> i32 {
    let Some(after) = after else { return 0 };
    let longer = LEVELS.iter().position(|seconds| Duration::from_secs(*seconds) >= after);
    longer.map_or(LEVELS.len(), |index| index + 1) as i32
}

/// Lets the broker try the message again later. Answers whether it took it.
pub(super) async fn hand_over(group: &Group, message: &MessageExt, after: Option<Duration>) -> bool {
    let max = group.settings.attempts_max.unwrap_or(ATTEMPTS_MAX);
    let level = level(after);
    match send_back(group, message, level, max).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(id = %message.message_id(), %error, "not sent back; sending it to the retry topic");
            let level = if level == 0 { FIRST_RETRY_LEVEL + message.reconsume_times() } else { level as u32 };
            let times = (message.reconsume_times() + 1, max);
            let edit = |copy: &mut Message| copy.set(name::DELAY, level.to_string());
            let deadline = group.retry_sender.settings().retry.deadline;
            resend(group, message, times, deadline, edit).await.is_ok()
        }
    }
}

/// Has the broker store the message as a dead letter. Answers whether it took it.
///
/// A send to the retry topic with more attempts than allowed is a dead letter to every broker, and the one way in which a reason goes
/// with it.
pub(super) async fn bury(group: &Group, message: &MessageExt, failures: u32, reason: &str) -> bool {
    let reason = carried(reason);
    let edit = |copy: &mut Message| {
        copy.set(name::DELAY, (FIRST_RETRY_LEVEL + message.reconsume_times()).to_string());
        if !reason.is_empty() {
            copy.set(DEAD_LETTER_REASON, reason);
        }
    };
    match resend(group, message, (failures + 1, failures), BURY_WITHIN, edit).await {
        Ok(()) => true,
        // It may be there: one more without its reason would help nobody.
        Err(SenderError::Send(SendError::OutcomeUnknown { .. })) => false,
        // The broker copies the message itself, without the reason: a copy with it may be too large.
        Err(_) => send_back(group, message, DEAD_LETTER_LEVEL, 0).await.is_ok(),
    }
}

/// The beginning of a reason, in the form of a property.
fn carried(reason: &str) -> String {
    let separates = |character: char| [NAME_END, ITEM_END].contains(&character);
    reason.chars().take(REASON_CHARS_MAX).map(|character| if separates(character) { ' ' } else { character }).collect()
}

/// The usual way: the broker copies the message itself.
async fn send_back(
    group: &Group,
    message: &MessageExt,
    delay_level: i32,
    max: u32,
) -> Result<(), crate::error::RequestError> {
    let queue = message.queue();
    let addr = group.core.way_to(queue.broker(), queue.topic()).await?;
    let id = message.message_id();
    let header = ConsumerSendMsgBackHeader {
        offset: message.position(),
        group: &group.name,
        delay_level,
        origin_msg_id: Some(&id),
        origin_topic: Some(message.topic()),
        unit_mode: false,
        max_reconsume_times: Some(max as i32),
        broker_name: Some(queue.broker()),
    };
    let ask = Frame::request(request::CONSUMER_SEND_MSG_BACK).with_header(&header);
    group.core.request(&addr, ask).await.map(drop)
}

/// The other way: an ordinary send to the retry topic, to any broker. `times`: attempts so far, and how many there may be.
async fn resend(
    group: &Group,
    message: &MessageExt,
    times: (u32, u32),
    deadline: Duration,
    edit: impl FnOnce(&mut Message),
) -> Result<(), SenderError> {
    let mut copy = Message::new(retry_topic(&group.name), message.body().clone()).flag(message.flag());
    for (key, value) in message.properties() {
        copy.set(key.to_owned(), value);
    }
    copy.remove(name::TRANSACTION_PREPARED);
    copy.set(name::RETRY_TOPIC, message.topic());
    if message.property(name::ORIGIN_MESSAGE_ID).is_none() {
        copy.set(name::ORIGIN_MESSAGE_ID, message.message_id());
    }
    edit(&mut copy);
    let mut prepared = Prepared::retried(copy, group.retry_sender.settings());
    prepared.reconsume = Some((times.0 as i32, times.1 as i32));
    let sent = group.retry_sender.send_within(deadline, &prepared, None, None).await;
    sent.map(drop).inspect_err(|error| {
        tracing::warn!(id = %message.message_id(), ?error, "not sent to the retry topic");
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_waits_no_shorter_than_it_is_asked_to() {
        let seconds = |seconds| level(Some(Duration::from_secs(seconds)));
        assert_eq!(level(None), 0);
        assert_eq!((seconds(0), seconds(1), seconds(2), seconds(5), seconds(31)), (1, 1, 2, 2, 5));
        assert_eq!((seconds(7200), seconds(100_000)), (18, 18));
        assert_eq!(level(Some(Duration::from_millis(1001))), 2);
    }

    #[test]
    fn a_reason_fits_into_a_property() {
        assert_eq!(carried("a\u{1}b\u{2}c"), "a b c");
        assert_eq!(carried(&"ü".repeat(600)).chars().count(), REASON_CHARS_MAX);
    }
}
