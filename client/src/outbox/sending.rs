//! Sending what was read from one slot: in the order of its rows, in batches where that changes nothing.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock;
use futures_util::future::join_all;

use super::row::Work;
use crate::error::{RequestError, SendError};
use crate::message::Message;
use crate::producer::{Producer, is_delayed};
use crate::queue::MessageQueue;

/// A batch has no more messages and bytes than these.
const BATCH_MESSAGES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// A row with its body.
pub(super) struct Ready {
    pub(super) row: Work,
    pub(super) body: Bytes,
}

/// What became of the rows of a slot. Rows that are not named wait for another try.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// A broker has them.
    pub(super) stored: Vec<i64>,
    /// They were refused for what they are.
    pub(super) refused: Vec<(Work, String)>,
    /// Why the others were not sent, or why nobody knows.
    pub(super) away: Option<SendError>,
}

/// A topic, and the queue in it if a key chooses one.
type Destination = (String, Option<MessageQueue>);

/// Whether the relay may still send what it has read: its lease runs until this time of the monotonic clock.
pub(super) type Until = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Sends the rows of one slot. Those of one queue go in their order; the first that fails ends its queue.
pub(super) async fn send(producer: &Producer, rows: Vec<Ready>, until: &Until) -> Sent {
    let mut sent = Sent::default();
    let mut groups: BTreeMap<Destination, Vec<(Work, Message)>> = BTreeMap::new();
    for Ready { row, body } in rows {
        let message = match row.message(body) {
            Ok(message) => message,
            Err(reason) => {
                sent.refused.push((row, reason));
                // What follows may be of its key.
                break;
            }
        };
        let queue = match queue(producer, &row).await {
            Ok(queue) => queue,
            Err(last) => {
                sent.away = Some(SendError::NotStored { attempts: 0, last });
                break;
            }
        };
        groups.entry((row.topic.clone(), queue)).or_default().push((row, message));
    }
    let groups = groups.into_iter().map(|((_, queue), rows)| send_group(producer, queue, rows, until));
    for group in join_all(groups).await {
        sent.stored.extend(group.stored);
        sent.refused.extend(group.refused);
        sent.away = sent.away.or(group.away);
    }
    sent
}

/// The queue that the key of a row chooses; none without a key.
async fn queue(producer: &Producer, row: &Work) -> Result<Option<MessageQueue>, RequestError> {
    if row.key.is_empty() { Ok(None) } else { producer.queue_of(&row.topic, &row.key).await.map(Some) }
}

async fn send_group(
    producer: &Producer,
    queue: Option<MessageQueue>,
    rows: Vec<(Work, Message)>,
    until: &Until,
) -> Sent {
    let mut sent = Sent::default();
    // A broker recognises a repeat message by message, and a batch only as a whole.
    let is_single = producer.recognises_repeats(&rows[0].0.topic, queue.as_ref()).await;
    let mut rows = rows.into_iter().peekable();
    while let Some(first) = rows.next() {
        let mut bytes = first.1.body().len();
        let mut batch = vec![first];
        while !is_single
            && batch.len() < BATCH_MESSAGES
            && !is_delayed(&batch[0].1)
            && let Some(next) = rows.next_if(|(_, next)| !is_delayed(next) && bytes + next.body().len() <= BATCH_BYTES)
        {
            bytes += next.1.body().len();
            batch.push(next);
        }
        // Cut off when the lease is over: another relay may send these then.
        if while_leased(until, send_batch(producer, queue.as_ref(), batch, &mut sent)).await != Some(true) {
            return sent;
        }
    }
    sent
}

/// Does this as long as the lease runs, which may be renewed meanwhile. `None` if the lease was over first.
async fn while_leased<T>(until: &Until, work: impl Future<Output = T>) -> Option<T> {
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
async fn send_batch(
    producer: &Producer,
    queue: Option<&MessageQueue>,
    batch: Vec<(Work, Message)>,
    sent: &mut Sent,
) -> bool {
    if batch.len() > 1 {
        let messages = batch.iter().map(|(_, message)| message.clone()).collect();
        match producer.send_together(messages, queue).await {
            Ok(()) => {
                sent.stored.extend(batch.iter().map(|(row, _)| row.id));
                return true;
            }
            // Which of them is it?
            Err(error) if concerns_message(&error) => {}
            Err(error) => {
                sent.away = Some(error);
                return false;
            }
        }
    }
    for (row, message) in batch {
        match producer.send_together(vec![message], queue).await {
            Ok(()) => sent.stored.push(row.id),
            Err(error) if concerns_message(&error) => {
                sent.refused.push((row, error.to_string()));
                return false;
            }
            Err(error) => {
                sent.away = Some(error);
                return false;
            }
        }
    }
    true
}

/// Whether the message itself is what was refused: it, its topic or the right to send to it. Everything else passes by itself.
fn concerns_message(error: &SendError) -> bool {
    use escrowmq_common::code::response;
    match error {
        SendError::Invalid { .. } | SendError::NotStored { last: RequestError::Invalid { .. }, .. } => true,
        SendError::NotStored { last: RequestError::Refused { code, .. }, .. } => {
            matches!(*code, response::MESSAGE_ILLEGAL | response::NO_PERMISSION | response::TOPIC_NOT_EXIST)
        }
        SendError::NotStored { .. } | SendError::OutcomeUnknown { .. } | SendError::ShutDown => false,
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_common::code::response;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_its_lease_is_renewed_and_no_longer() {
        let left = |time: Duration| -> Until {
            let until = clock::monotonic() + time;
            Arc::new(move || until)
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(while_leased(&left(hour), async { 7 }).await, Some(7));
        assert_eq!(while_leased(&left(Duration::ZERO), async { 7 }).await, None);
        assert_eq!(while_leased(&left(Duration::from_millis(1)), std::future::pending::<()>()).await, None);
        // Renewed once, so that the work ends in time.
        let (asked, short) = (std::sync::atomic::AtomicU32::new(0), clock::monotonic() + Duration::from_millis(5));
        let renewed: Until = Arc::new(move || {
            let is_first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            if is_first { short } else { short + hour }
        });
        let work = tokio::time::sleep(Duration::from_millis(20));
        assert_eq!(while_leased(&renewed, work).await, Some(()));
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
        for code in [response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE, response::SYSTEM_ERROR] {
            assert!(!concerns_message(&not_stored(refused(code))), "{code}");
        }
        assert!(!concerns_message(&not_stored(RequestError::NoRoute { topic: "T".into() })));
        assert!(concerns_message(&SendError::Invalid { reason: String::new() }));
        assert!(!concerns_message(&SendError::ShutDown));
    }
}
