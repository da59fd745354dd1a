//! Sending several messages whose order counts: one queue after its own order, in batches where that changes nothing.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_common::message::properties::name;
use futures_util::future::join_all;

use super::Producer;
use super::prepare::is_delayed;
use crate::error::{RequestError, SendError};
use crate::message::Message;
use crate::queue::MessageQueue;

/// A batch has no more messages and bytes than these.
const BATCH_MESSAGES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// What became of the messages, each named by what came with it. Those that are not named wait for another try.
#[derive(Debug)]
pub(crate) struct SentInOrder<T> {
    /// A broker has them.
    pub(crate) stored: Vec<T>,
    /// They were refused for what they are.
    pub(crate) refused: Vec<(T, SendError)>,
    /// Those at which a queue ended for another reason, or of which nobody knows whether a broker has them. They wait, too.
    pub(crate) away: Vec<(T, SendError)>,
}

impl<T> Default for SentInOrder<T> {
    fn default() -> Self {
        SentInOrder { stored: Vec::new(), refused: Vec::new(), away: Vec::new() }
    }
}

/// A topic, and the queue in it if a key chooses one.
type Destination = (Arc<str>, Option<MessageQueue>);

/// Until when its caller may send, as a time of the monotonic clock; it may move on meanwhile.
pub(crate) type Until = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Sends messages. Those of one queue go in their order; the first that fails ends its queue.
pub(crate) async fn send_in_order<T>(
    producer: &Producer,
    messages: Vec<(T, Message)>,
    until: &Until,
) -> SentInOrder<T> {
    let mut sent = SentInOrder::default();
    let mut groups: BTreeMap<Destination, Vec<(T, Message)>> = BTreeMap::new();
    for (tag, message) in messages {
        let queue = match queue_by_key(producer, &message).await {
            Ok(queue) => queue,
            Err(last) => {
                // What follows may be of its key.
                sent.away.push((tag, SendError::NotStored { attempts: 0, last }));
                break;
            }
        };
        groups.entry((message.topic_shared(), queue)).or_default().push((tag, message));
    }
    let groups = groups.into_iter().map(|((_, queue), messages)| send_group(producer, queue, messages, until));
    for group in join_all(groups).await {
        sent.stored.extend(group.stored);
        sent.refused.extend(group.refused);
        sent.away.extend(group.away);
    }
    sent
}

/// The queue that the key of a message chooses; none without a key.
pub(crate) async fn queue_by_key(producer: &Producer, message: &Message) -> Result<Option<MessageQueue>, RequestError> {
    match message.get(name::SHARDING_KEY) {
        Some(key) => producer.queue_of(message.topic(), key).await.map(Some),
        None => Ok(None),
    }
}

async fn send_group<T>(
    producer: &Producer,
    queue: Option<MessageQueue>,
    messages: Vec<(T, Message)>,
    until: &Until,
) -> SentInOrder<T> {
    let mut sent = SentInOrder::default();
    // A broker recognises a repeat message by message, and a batch only as a whole.
    let is_single = producer.recognises_repeats(messages[0].1.topic(), queue.as_ref()).await;
    let limit = if is_single { BatchLimit::SINGLE } else { BatchLimit::of(producer) };
    let mut messages = messages.into_iter().peekable();
    while let Some(batch) = next_batch(&mut messages, limit) {
        // Cut off when its time is over: somebody else may send these then.
        if within(until, send_batch(producer, queue.as_ref(), batch, &mut sent)).await != Some(true) {
            return sent;
        }
    }
    sent
}

/// What goes together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl BatchLimit {
    /// One message at a time.
    pub(crate) const SINGLE: BatchLimit = BatchLimit { messages: 1, bytes: usize::MAX };

    /// What goes together by a producer that does not say otherwise.
    pub(crate) fn of(producer: &Producer) -> BatchLimit {
        BatchLimit { messages: BATCH_MESSAGES, bytes: BATCH_BYTES.min(producer.settings().body_bytes_max) }
    }
}

/// The next ones that go together: one at least, and nothing beside a delayed one.
pub(crate) fn next_batch<T>(
    messages: &mut Peekable<impl Iterator<Item = (T, Message)>>,
    limit: BatchLimit,
) -> Option<Vec<(T, Message)>> {
    let first = messages.next()?;
    let mut bytes = packed_bytes(&first.1);
    let mut batch = vec![first];
    while batch.len() < limit.messages
        && !is_delayed(&batch[0].1)
        && let Some(next) = messages.next_if(|(_, next)| !is_delayed(next) && bytes + packed_bytes(next) <= limit.bytes)
    {
        bytes += packed_bytes(&next.1);
        batch.push(next);
    }
    Some(batch)
}

/// About what a message takes in a batch.
pub(crate) fn packed_bytes(message: &Message) -> usize {
    const OTHERS: usize = 32;
    let properties: usize = message.properties().map(|(name, value)| name.len() + value.len() + 2).sum();
    message.body().len() + properties + OTHERS
}

/// Does this as long as the caller may send. `None` if that was over first.
async fn within<T>(until: &Until, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        let left = until().saturating_sub(clock::monotonic());
        if left.is_zero() {
            return None;
        }
        if let Ok(done) = tokio::time::timeout(left, &mut work).await {
            return Some(done);
        }
    }
}

/// Says whether the next ones may be sent.
async fn send_batch<T>(
    producer: &Producer,
    queue: Option<&MessageQueue>,
    batch: Vec<(T, Message)>,
    sent: &mut SentInOrder<T>,
) -> bool {
    if batch.len() > 1 {
        let messages = batch.iter().map(|(_, message)| message.clone()).collect();
        match producer.send_together(messages, queue).await {
            Ok(_) => {
                sent.stored.extend(batch.into_iter().map(|(tag, _)| tag));
                return true;
            }
            // Which of them is it?
            Err(error) if may_be_one(&error) => {}
            Err(error) => {
                sent.away.extend(batch.into_iter().next().map(|(tag, _)| (tag, error)));
                return false;
            }
        }
    }
    for (tag, message) in batch {
        match producer.send_together(vec![message], queue).await {
            Ok(_) => sent.stored.push(tag),
            Err(error) if concerns_message(&error) => {
                sent.refused.push((tag, error));
                return false;
            }
            Err(error) => {
                sent.away.push((tag, error));
                return false;
            }
        }
    }
    true
}

/// Whether a batch was refused for one of its messages, perhaps: with a code that does not say that others would be refused, too.
fn may_be_one(error: &SendError) -> bool {
    let is_other =
        matches!(error, SendError::NotStored { last: last @ RequestError::Refused { .. }, .. } if !last.is_retryable());
    is_other || concerns_message(error)
}

/// Whether the message itself is what was refused: it, its topic or the right to send to it. Everything else passes by itself.
pub(crate) fn concerns_message(error: &SendError) -> bool {
    match error {
        SendError::Invalid { .. } | SendError::NotStored { last: RequestError::Invalid { .. }, .. } => true,
        SendError::NotStored { last: RequestError::Refused { code, .. }, .. } => {
            matches!(*code, response::MESSAGE_ILLEGAL | response::NO_PERMISSION | response::TOPIC_NOT_EXIST)
        }
        SendError::NotStored { .. }
        | SendError::OutcomeUnknown { .. }
        | SendError::BelowAsked { .. }
        | SendError::UnsafeBroker { .. }
        | SendError::ShutDown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_its_time_is_renewed_and_no_longer() {
        let left = |time: Duration| -> Until {
            let until = clock::monotonic() + time;
            Arc::new(move || until)
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(within(&left(hour), async { 7 }).await, Some(7));
        assert_eq!(within(&left(Duration::ZERO), async { 7 }).await, None);
        assert_eq!(within(&left(Duration::from_millis(1)), std::future::pending::<()>()).await, None);
        // Renewed once, so that the work ends in time.
        let (asked, short) = (std::sync::atomic::AtomicU32::new(0), clock::monotonic() + Duration::from_millis(5));
        let renewed: Until = Arc::new(move || {
            let is_first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            if is_first { short } else { short + hour }
        });
        let work = tokio::time::sleep(Duration::from_millis(20));
        assert_eq!(within(&renewed, work).await, Some(()));
    }

    #[test]
    fn only_answers_about_the_message_count_against_it() {
        let refused = |code| RequestError::Refused { addr: "a".into(), code, remark: String::new() };
        let not_stored = |last| SendError::NotStored { attempts: 1, last };
        for code in [response::MESSAGE_ILLEGAL, response::NO_PERMISSION, response::TOPIC_NOT_EXIST] {
            assert!(concerns_message(&not_stored(refused(code))), "{code}");
            // Nobody knows what became of it: it is sent again under its id.
            let unknown = SendError::OutcomeUnknown { message_id: String::new(), attempts: 2, last: refused(code) };
            assert!(!concerns_message(&unknown), "{code}");
        }
        assert!(may_be_one(&not_stored(refused(9999))) && !may_be_one(&not_stored(refused(response::FLOW_CONTROL))));
        // A code that nobody knows may pass, too.
        let others = [response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE, response::SYSTEM_ERROR];
        for code in others.into_iter().chain([response::FLOW_CONTROL, 9999]) {
            assert!(!concerns_message(&not_stored(refused(code))), "{code}");
        }
        assert!(!concerns_message(&not_stored(RequestError::NoRoute { topic: "T".into() })));
        assert!(concerns_message(&SendError::Invalid { reason: String::new() }));
        assert!(!concerns_message(&SendError::ShutDown));
    }
}
