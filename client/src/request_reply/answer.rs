//! The replier.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::message::properties::name;
use escrowmq_common::name::reply_topic;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::ReplyError;
use crate::error::{RequestError, SendError};
use crate::message::{Message, MessageExt};
use crate::producer::{Prepared, Sender};
use crate::queue::MessageQueue;
use crate::trace::Sending;

/// The property's value on every reply.
const REPLY: &str = "reply";
/// How a broker says that it has no connection to the requester.
const NO_CHANNEL: &str = "push reply message fail, channel of";
/// Between two rounds over the brokers.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Whether a message asks for a reply.
pub(crate) fn is_request(message: &MessageExt) -> bool {
    message.property(name::CORRELATION_ID).is_some() && message.property(name::REPLY_TO_CLIENT).is_some()
}

/// The reply to a request, with this body, as it will be sent.
pub(crate) fn reply_to(request: &MessageExt, body: Bytes) -> Result<Message, ReplyError> {
    let asked = |name| {
        let value = request.property(name);
        value.ok_or_else(|| {
            ReplyError::invalid(format!("the message to reply to has no property {name}, so it is no request"))
        })
    };
    let mut reply = Message::new(reply_topic(asked(name::CLUSTER)?), body);
    reply.set(name::MESSAGE_TYPE, REPLY);
    reply.set(name::CORRELATION_ID, asked(name::CORRELATION_ID)?);
    reply.set(name::REPLY_TO_CLIENT, asked(name::REPLY_TO_CLIENT)?);
    if let Some(ttl) = request.property(name::TTL) {
        reply.set(name::TTL, ttl);
    }
    Ok(reply)
}

/// Sends a reply until the client that asked has it, within the producer's deadline. Over and over does no harm: that client
/// takes the first one.
pub(crate) async fn reply(sender: &Sender, request: &MessageExt, message: Message) -> Result<(), ReplyError> {
    let _place = sender.enter().await.map_err(|_| ReplyError::ShutDown)?;
    let ends = Instant::now() + sender.settings().retry.deadline;
    let client_id = message.get(name::REPLY_TO_CLIENT).unwrap_or_default().to_owned();
    let mut prepared = Prepared::new(message, sender.settings()).map_err(|error| match error {
        SendError::Invalid { reason } => ReplyError::Invalid { reason },
        error => ReplyError::invalid(error.to_string()),
    })?;
    let observed = Sending::begin(sender.core(), &mut prepared, false);
    let delivered = deliver(sender, request, &prepared, ends).instrument(observed.span()).await;
    delivered.map_err(|told| {
        let error = told.into_error(client_id);
        observed.failed("not_delivered", &error);
        error
    })
}

/// Asks one broker after the other, until one has passed the reply on.
async fn deliver(sender: &Sender, request: &MessageExt, prepared: &Prepared, ends: Instant) -> Result<(), Told> {
    let policy = sender.settings().retry;
    let mut told = Told::default();
    let mut pause = PAUSE_FIRST;
    let mut refresh = false;
    loop {
        let queues = queues(sender, &prepared.topic, request.queue().broker(), refresh);
        let queues = tokio::time::timeout_at(ends, queues).await;
        match queues.unwrap_or_else(|_| Err(RequestError::too_late("a broker", policy.deadline))) {
            Err(error) => told.add(error),
            Ok(queues) => {
                for queue in queues {
                    let patience = policy.attempt_timeout.min(ends.saturating_duration_since(Instant::now()));
                    match attempt(sender, prepared, &queue, patience).await {
                        Ok(()) => return Ok(()),
                        Err(error) => told.add(error),
                    }
                }
            }
        }
        told.end_round();
        let again = Instant::now() + pause;
        if again >= ends || told.is_enough(policy.attempts_max, is_over(request)) {
            return Err(told);
        }
        tokio::time::sleep_until(again).await;
        (pause, refresh) = ((pause * 2).min(PAUSE_MAX), true);
    }
}

/// Whether the requester has stopped to wait, as far as the clocks of two machines can tell.
fn is_over(request: &MessageExt) -> bool {
    let ttl = request.property(name::TTL).and_then(|ttl| ttl.parse().ok()).map(Duration::from_millis);
    let ends = ttl.and_then(|ttl| request.born_at().checked_add(ttl));
    let now = UNIX_EPOCH + Duration::from_millis(clock::wall_ms().max(0) as u64);
    ends.is_none_or(|ends| ends < now)
}

/// One queue of the reply topic per broker: first that of the broker which the request was read from, since the requester
/// talked to it.
async fn queues(sender: &Sender, topic: &str, near: &str, refresh: bool) -> Result<Vec<MessageQueue>, RequestError> {
    let route = sender.route(topic, refresh).await?;
    let mut queues: Vec<MessageQueue> = Vec::new();
    for queue in &route.writable {
        if !queues.iter().any(|other| other.broker() == queue.broker()) {
            queues.push(queue.clone());
        }
    }
    if queues.is_empty() {
        return Err(RequestError::NoRoute { topic: topic.to_owned() });
    }
    queues.sort_by_key(|queue| queue.broker() != near);
    Ok(queues)
}

/// Has one broker pass the reply on.
async fn attempt(
    sender: &Sender,
    prepared: &Prepared,
    queue: &MessageQueue,
    patience: Duration,
) -> Result<(), RequestError> {
    let (core, ends) = (sender.core(), Instant::now() + patience);
    let way = tokio::time::timeout_at(ends, core.way_to(queue.broker(), queue.topic())).await;
    let addr: Arc<str> = way.unwrap_or_else(|_| Err(RequestError::too_late(queue.broker(), patience)))?;
    let rest = ends.saturating_duration_since(Instant::now());
    if rest.is_zero() {
        return Err(RequestError::too_late(&addr, patience));
    }
    let ask = Frame { code: request::SEND_REPLY_MESSAGE_V2, ..sender.frame_of(prepared, queue) };
    let answer = core.call(&addr, ask, rest).await?;
    match answer.code {
        response::SUCCESS => Ok(()),
        _ => Err(crate::core::refused(&addr, answer)),
    }
}

/// What the attempts came to.
#[derive(Debug, Default)]
struct Told {
    /// The last failure after which the requester may have the reply all the same.
    unknown: Option<RequestError>,
    /// The last answer of a broker that has no connection to the requester.
    gone: Option<RequestError>,
    /// How the last attempt failed.
    last: Option<RequestError>,
    /// In this round some broker got the reply.
    heard: bool,
    /// Rounds in which some broker got the reply.
    heard_rounds: u32,
}

impl Told {
    fn add(&mut self, error: RequestError) {
        tracing::debug!(%error, "reply not delivered yet");
        match &error {
            RequestError::Refused { remark, .. } if remark.starts_with(NO_CHANNEL) => self.gone = Some(error.clone()),
            error if error.outcome_unknown() => self.unknown = Some(error.clone()),
            _ => {}
        }
        self.heard |= error.outcome_unknown();
        self.last = Some(error);
    }

    fn end_round(&mut self) {
        self.heard_rounds += u32::from(std::mem::take(&mut self.heard));
    }

    /// Whether another round is of no use. One in which no broker could be reached does not count: a leader that is away has a
    /// successor soon. Nor does a requester that no broker knows have to be gone: it may be on its way to that successor.
    fn is_enough(&self, rounds_max: u32, is_over: bool) -> bool {
        self.heard_rounds >= rounds_max
            || is_over && self.gone.is_some() && self.unknown.is_none()
            || self.last.as_ref().is_some_and(|last| !last.is_retryable())
    }

    fn into_error(self, client_id: String) -> ReplyError {
        match (self.unknown, self.gone, self.last) {
            (Some(last), ..) => ReplyError::OutcomeUnknown { last },
            (None, Some(last), _) => ReplyError::RequesterGone { client_id, last },
            (None, None, Some(last)) => ReplyError::NotDelivered { last },
            (None, None, None) => unreachable!("a producer makes at least one attempt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::{delivered, with_properties};

    #[test]
    fn a_reply_carries_what_leads_back_to_the_requester() {
        let request = with_properties(&[
            ("CLUSTER", "C"),
            ("CORRELATION_ID", "c1"),
            ("REPLY_TO_CLIENT", "me@1"),
            ("TTL", "3000"),
            ("KEYS", "k"),
        ]);
        assert!(is_request(&request));
        let reply = reply_to(&request, "yes".into()).expect("a reply");
        assert_eq!(reply.topic(), "C_REPLY_TOPIC");
        let properties: Vec<_> = reply.properties().collect();
        let expected = [("MSG_TYPE", "reply"), ("CORRELATION_ID", "c1"), ("REPLY_TO_CLIENT", "me@1"), ("TTL", "3000")];
        assert_eq!(properties, expected);
    }

    #[test]
    fn what_asks_for_nothing_gets_no_reply() {
        let plain = delivered("T", 0, b"x");
        assert!(!is_request(&plain));
        let error = reply_to(&plain, "yes".into()).expect_err("no request");
        assert!(
            matches!(&error, ReplyError::Invalid { reason } if reason.contains("CLUSTER")) && !error.is_retryable()
        );
    }

    #[test]
    fn rounds_that_reached_nobody_do_not_count_and_a_requester_whose_time_is_up_is_not_looked_for() {
        let unreachable = || RequestError::Unreachable { addr: "a".into(), reason: "refused".into() };
        let gone =
            || RequestError::Refused { addr: "a".into(), code: 1, remark: format!("{NO_CHANNEL} <me> not found.") };
        let mut told = Told::default();
        for _ in 0..5 {
            told.add(unreachable());
            told.end_round();
        }
        assert!(!told.is_enough(2, true));
        for enough in [false, true] {
            told.add(gone());
            told.end_round();
            assert_eq!((told.is_enough(2, false), told.is_enough(2, true)), (enough, true));
        }
        let mut refused = Told::default();
        refused.add(RequestError::Refused { addr: "a".into(), code: response::MESSAGE_ILLEGAL, remark: String::new() });
        assert!(refused.is_enough(2, false));
    }

    #[test]
    fn the_error_tells_a_requester_that_is_gone_from_one_that_may_have_the_reply() {
        let refused = |remark: &str| RequestError::Refused { addr: "a".into(), code: 1, remark: remark.into() };
        let timed_out = RequestError::TimedOut { addr: "a".into(), after: PAUSE_FIRST };
        let ended = |errors: Vec<RequestError>| {
            let mut told = Told::default();
            for error in errors {
                told.add(error);
            }
            told.into_error("me".into())
        };
        let gone = ended(vec![refused("push reply message fail, channel of <me> not found.")]);
        assert!(matches!(&gone, ReplyError::RequesterGone { .. }) && !gone.outcome_unknown());
        let unreachable = RequestError::Unreachable { addr: "a".into(), reason: "refused".into() };
        assert!(matches!(ended(vec![unreachable]), ReplyError::NotDelivered { .. }));
        let unknown = ended(vec![timed_out, refused("push reply message fail, channel of <me> not found.")]);
        assert!(unknown.outcome_unknown(), "the first attempt may have delivered it: {unknown}");
    }
}
