//! How the messages of a lane are sent, by each kind of producer.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::error::{EARLIER, RequestError, SendError};
use crate::message::Message;
use crate::producer::{BatchLimit, Producer, SendResult, concerns_message, next_batch, queue_by_key};
use crate::queue::MessageQueue;

/// Keeps others from implementing [`Batches`].
pub(crate) mod sealed {
    /// See the module.
    pub trait Sealed {}
}

/// Producers whose messages a [`BatchingProducer`](super::BatchingProducer) gathers: [`Producer`] and, on Unix,
/// [`SpillingProducer`](crate::SpillingProducer).
pub trait Batches: sealed::Sealed + Clone + Send + Sync + 'static {
    /// The result for a message that a broker has, or that is kept.
    type Receipt: Send + 'static;
    /// The result for a message that is neither.
    type Error: From<SendError> + Send + 'static;

    /// Checks a message and gives it what all attempts share. Answers its unique id.
    #[doc(hidden)]
    fn seal(&self, message: &mut Message) -> Result<String, SendError>;

    /// Sends messages of one topic, those of a sharding key in their order. Answers what became of each, in their order.
    #[doc(hidden)]
    fn send_lane(
        &self,
        messages: Vec<Message>,
        messages_max: usize,
    ) -> impl Future<Output = Vec<Result<Self::Receipt, Self::Error>>> + Send;
}

impl sealed::Sealed for Producer {}

impl Batches for Producer {
    type Receipt = SendResult;
    type Error = SendError;

    fn seal(&self, message: &mut Message) -> Result<String, SendError> {
        Producer::seal(self, message)
    }

    async fn send_lane(&self, messages: Vec<Message>, messages_max: usize) -> Vec<Result<SendResult, SendError>> {
        send_each(self, messages, messages_max).await
    }
}

/// The results of messages, by their numbers.
type Ended = Vec<(usize, Result<SendResult, SendError>)>;

/// Sends messages of one topic in batches. Those of one queue go in their order if a key chose it, and then the first failure that is
/// no message's own ends the queue: the others of it are told that they were not sent.
pub(crate) async fn send_each(
    producer: &Producer,
    messages: Vec<Message>,
    messages_max: usize,
) -> Vec<Result<SendResult, SendError>> {
    let count = messages.len();
    let mut ended: Ended = Vec::with_capacity(count);
    let mut groups: BTreeMap<Option<MessageQueue>, Vec<(usize, Message)>> = BTreeMap::new();
    let mut failure: Option<RequestError> = None;
    for (number, message) in messages.into_iter().enumerate() {
        let queue = match &failure {
            // It may be of the same key, and the route may be there again.
            Some(last) => Err(after(last)),
            None => queue_by_key(producer, &message).await,
        };
        match queue {
            Ok(queue) => groups.entry(queue).or_default().push((number, message)),
            Err(last) => {
                failure.get_or_insert_with(|| last.clone());
                ended.push((number, Err(SendError::NotStored { attempts: 0, last })));
            }
        }
    }
    let groups = groups.into_iter().map(|(queue, messages)| send_group(producer, queue, messages, messages_max));
    ended.extend(join_all(groups).await.into_iter().flatten());
    ended.sort_by_key(|(number, _)| *number);
    debug_assert_eq!(ended.len(), count);
    ended.into_iter().map(|(_, result)| result).collect()
}

async fn send_group(
    producer: &Producer,
    queue: Option<MessageQueue>,
    messages: Vec<(usize, Message)>,
    messages_max: usize,
) -> Ended {
    // A broker recognises a repeat message by message, and a batch only as a whole.
    let is_single = producer.recognises_repeats(messages[0].1.topic(), queue.as_ref()).await;
    let limit =
        if is_single { BatchLimit::SINGLE } else { BatchLimit { messages: messages_max, ..BatchLimit::of(producer) } };
    let mut messages = messages.into_iter().peekable();
    let batches = std::iter::from_fn(|| next_batch(&mut messages, limit));
    if queue.is_none() {
        let sends = batches.map(|batch| send_batch(producer, None, batch));
        return join_all(sends).await.into_iter().flatten().collect();
    }
    let (mut ended, mut failure): (Ended, Option<RequestError>) = (Vec::new(), None);
    for batch in batches {
        if let Some(last) = &failure {
            let not_sent = |(number, _)| (number, Err(SendError::NotStored { attempts: 0, last: after(last) }));
            ended.extend(batch.into_iter().map(not_sent));
            continue;
        }
        let sent = send_batch(producer, queue.as_ref(), batch).await;
        failure = sent.iter().find_map(|(_, result)| result.as_ref().err().and_then(ends_queue));
        ended.extend(sent);
    }
    ended
}

/// The end of a message that would overtake one that failed so.
fn after(failure: &RequestError) -> RequestError {
    match failure {
        RequestError::NotSent { step: EARLIER, .. } | RequestError::ShutDown => failure.clone(),
        failure => RequestError::NotSent { step: EARLIER, last: Box::new(failure.clone()) },
    }
}

/// The cause, if a failure ends what follows in its queue.
fn ends_queue(error: &SendError) -> Option<RequestError> {
    match error {
        error if concerns_message(error) => None,
        SendError::NotStored { last, .. } | SendError::OutcomeUnknown { last, .. } => Some(last.clone()),
        SendError::ShutDown => Some(RequestError::ShutDown),
        _ => None,
    }
}

async fn send_batch(producer: &Producer, queue: Option<&MessageQueue>, batch: Vec<(usize, Message)>) -> Ended {
    let numbers: Vec<usize> = batch.iter().map(|(number, _)| *number).collect();
    let messages: Vec<Message> = batch.into_iter().map(|(_, message)| message).collect();
    let error = match producer.send_together(messages.clone(), queue).await {
        Ok(sent) => return numbers.into_iter().zip(sent.into_iter().map(Ok)).collect(),
        Err(error) => error,
    };
    if messages.len() == 1 || !concerns_message(&error) {
        let told = |(number, message): (usize, &Message)| (number, Err(about(error.clone(), message)));
        return numbers.into_iter().zip(&messages).map(told).collect();
    }
    // Which of them is it?
    let mut ended: Ended = Vec::with_capacity(numbers.len());
    for (number, message) in numbers.into_iter().zip(messages) {
        let sent = producer.send_together(vec![message], queue).await;
        ended.push((number, sent.map(|mut sent| sent.remove(0))));
    }
    ended
}

/// The error of a batch as that of one message of it.
fn about(error: SendError, message: &Message) -> SendError {
    let own = || message.get(escrowmq_common::message::properties::name::UNIQUE_KEY).unwrap_or_default().to_owned();
    match error {
        SendError::OutcomeUnknown { attempts, last, .. } => {
            SendError::OutcomeUnknown { message_id: own(), attempts, last }
        }
        SendError::BelowAsked { queue, level, .. } => SendError::BelowAsked { message_id: own(), queue, level },
        other => other,
    }
}
