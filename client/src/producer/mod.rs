//! Sending: ordinary messages, one-way messages, batches.
//!
//! ```text
//!  Message -> Prepared (checked, compressed, unique id given once)
//!          -> select a queue -> one attempt -> SendResult
//!                 ^                 | failed
//!                 `---- retry judges: elsewhere, later, or give up
//! ```
//!
//! Promises: every attempt of a message carries the same unique id; a send ends by its total deadline; an error says
//! whether the message may be stored all the same. Choosing a queue ([`select`]) and judging failures ([`retry`]) are pure;
//! [`send`] does the I/O.
//!
//! Left to others: transactions ([`crate::transaction`]), which send their half messages through [`send`] too; [`half`] has
//! what those need of a broker.

mod batch;
mod builder;
mod half;
mod in_order;
mod prepare;
mod profile;
mod retry;
mod select;
mod send;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::message::Message as Unit;
use escrowmq_common::remoting::Connection;

pub use batch::BatchResult;
pub use builder::ProducerBuilder;
pub use half::Half;
pub use profile::Profile;
pub use send::{SendResult, StoreLevel};

pub(crate) use builder::{SendSettings, send_setters};
pub(crate) use half::{First, HalfNeeds};
pub(crate) use in_order::{
    BatchLimit, SentInOrder, Until, concerns_message, next_batch, packed_bytes, queue_by_key, send_in_order,
};
pub(crate) use prepare::Prepared;
pub(crate) use prepare::seal;
pub(crate) use send::{Sender, SenderError};

use crate::batching::BatchingBuilder;
use crate::client::Client;
use crate::error::{RequestError, SendError};
use crate::groups::{Closing, ProducerMember};
use crate::message::{Message, MessageExt};
use crate::queue::MessageQueue;
use crate::request_reply::{self, NoReply, ReplyError};
use crate::stats::ProducerStats;

/// Sends messages. Cheap to clone; made by [`Client::producer`](crate::Client::producer).
///
/// Many sends may run at once on one producer and share its connections: to send fast, keep several going (for example
/// with `futures::future::join_all`) rather than making more producers.
///
/// A send whose future is dropped before its end may or may not have stored the message.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    sender: Sender,
    topics: Vec<Arc<str>>,
}

impl Producer {
    fn new(client: Client, sender: Sender, topics: Vec<Arc<str>>) -> Producer {
        Producer { shared: Arc::new(Shared { client, sender, topics }) }
    }

    /// The producer's group.
    pub fn group(&self) -> &str {
        self.shared.sender.group()
    }

    /// Sends a message to a queue of the producer's choice (that of its sharding key, if it has one) and waits until a
    /// broker has stored it. Failed attempts are repeated on other queues and brokers within the deadline.
    pub async fn send(&self, message: Message) -> Result<SendResult, SendError> {
        self.shared.sender.send(message, None).await
    }

    /// Sends a message to this queue and no other.
    pub async fn send_to(&self, message: Message, queue: &MessageQueue) -> Result<SendResult, SendError> {
        self.shared.sender.send(message, Some(queue.clone())).await
    }

    /// Sends a request and waits for its reply, together at most `timeout`: request-reply. The consumer that handles the
    /// request answers with [`reply`](Producer::reply), in this language or another. A request that a broker delivers again
    /// is handled again; the first reply counts.
    ///
    /// # Errors
    ///
    /// [`NoReply::NotSent`] if nobody will ever handle the request; [`NoReply::TimedOut`] if there is no reply in time, but
    /// the request may be handled all the same.
    pub async fn request(&self, message: Message, timeout: Duration) -> Result<MessageExt, NoReply> {
        request_reply::ask(&self.shared.sender, message, timeout).await
    }

    /// Replies to a request: the client that asked has got this body when this returns. Sending a reply again does no harm.
    ///
    /// # Errors
    ///
    /// [`ReplyError::Invalid`] if the message is no request, [`ReplyError::RequesterGone`] if the client that asked is not
    /// there any more. A client that is there but has stopped to wait takes the reply like any other and drops it.
    pub async fn reply(&self, request: &MessageExt, body: impl Into<Bytes>) -> Result<(), ReplyError> {
        let reply = request.reply(body)?;
        self.send_reply(request, reply).await
    }

    /// Like [`reply`](Producer::reply), for a reply made by [`MessageExt::reply`] that was given properties of its own.
    pub async fn send_reply(&self, request: &MessageExt, reply: Message) -> Result<(), ReplyError> {
        request_reply::reply(&self.shared.sender, request, reply).await
    }

    /// Sends a message once and does not wait for an answer: success says only that the request is on its way.
    pub async fn send_oneway(&self, message: Message) -> Result<(), SendError> {
        self.shared.sender.send_oneway(message).await
    }

    /// Sends several messages of one topic in one request. All of them get consecutive places in one queue, or none is
    /// stored. Delays, timers and transactions do not go together with batches.
    ///
    /// # Errors
    ///
    /// [`SendError::Invalid`] if the messages differ in topic or are larger together than one message may be: split them.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<BatchResult, SendError> {
        self.shared.sender.send_batch(messages, None).await
    }

    /// The queue that a sharding key chooses now.
    pub(crate) async fn queue_of(&self, topic: &str, key: &str) -> Result<MessageQueue, RequestError> {
        let route = self.shared.sender.route(topic, false).await?;
        let queue = select::select_by_key(&route.writable, key).cloned();
        queue.ok_or_else(|| RequestError::NoRoute { topic: topic.to_owned() })
    }

    /// Whether a repeat is recognised at this queue, or at those of the topic.
    pub(crate) async fn recognises_repeats(&self, topic: &str, queue: Option<&MessageQueue>) -> bool {
        let sender = &self.shared.sender;
        let queue = match queue {
            Some(queue) => Some(queue.clone()),
            None => sender.route(topic, false).await.ok().and_then(|route| route.writable.first().cloned()),
        };
        match queue {
            Some(queue) => sender.has_duplicate_window(&queue).await,
            None => false,
        }
    }

    /// Sends messages of one topic in one request, to this queue if there is one. Answers what became of each, in their order.
    pub(crate) async fn send_together(
        &self,
        mut messages: Vec<Message>,
        queue: Option<&MessageQueue>,
    ) -> Result<Vec<SendResult>, SendError> {
        let sender = &self.shared.sender;
        if messages.len() == 1 {
            return sender.send(messages.remove(0), queue.cloned()).await.map(|sent| vec![sent]);
        }
        sender.send_batch(messages, queue.cloned()).await.map(BatchResult::into_members)
    }

    /// Checks a message and gives it what all attempts share. Answers its unique id.
    pub(crate) fn seal(&self, message: &mut Message) -> Result<String, SendError> {
        let settings = self.settings();
        message.validate(settings.body_bytes_max)?;
        settings.profile.admits(message)?;
        Ok(seal(message, settings.profile.waits()))
    }

    /// Waits until it is shut down, or its client.
    #[cfg(unix)]
    pub(crate) async fn closing(&self) {
        self.shared.sender.closing().await;
    }

    pub(crate) fn settings(&self) -> &SendSettings {
        self.shared.sender.settings()
    }

    /// The queues of `topic` that take messages now.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, RequestError> {
        Ok(self.shared.client.core().routes.for_sending(topic).await?.writable.clone())
    }

    /// Begins a producer that gathers messages into batches by itself.
    pub fn batching(&self) -> BatchingBuilder<Producer> {
        BatchingBuilder::new(self.clone(), self.settings())
    }

    /// Refuses further sends, waits for those in flight and tells the brokers. A second call does nothing.
    pub async fn shutdown(&self) {
        self.shared.close().await;
    }
}

impl ProducerMember for Shared {
    fn group(&self) -> &str {
        self.sender.group()
    }

    fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    fn check(&self, _: &Arc<Connection>, _: escrowmq_common::frame::Frame, _: Unit) {
        // Not a transactional producer: somebody else of the group has the answer.
    }

    fn stats(&self) -> ProducerStats {
        self.sender.stats()
    }

    fn close(&self) -> Closing<'_> {
        Box::pin(async {
            if self.sender.close().await {
                let core = self.client.core();
                core.groups.remove_producer(self.sender.group());
                core.leave(Some(self.sender.group()), None).await;
            }
        })
    }
}
