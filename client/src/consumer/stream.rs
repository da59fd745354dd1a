//! A consumer whose messages are a stream, each answered by itself.
//!
//! ```text
//!  worker (one per credit) -> Delivery -> the user -> ack / retry_after / reject / dropped -> the worker goes on
//! ```
//!
//! It is a push consumer whose handler puts the message into the stream and waits for the answer, so that everything else is the
//! same: shares, buffers, offsets, retries, dead letters.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::builder::{Parts, consumer_setters};
use super::group::{Group, HeldQueue};
use super::handler::{Handler, only};
use super::in_order::Order;
use super::process_queue::BufferLimits;
use super::push_consumer::PushConsumer;
use super::start::ConsumeFrom;
use super::steer::{Lag, SeekTo};
use super::subscription::Subscription;
use super::verdict::Verdict;
use crate::client::Client;
use crate::error::{RequestError, StartError};
use crate::message::MessageExt;
use crate::queue::MessageQueue;

/// Collects the settings of a consumer whose messages are a stream. Made by [`Client::stream`](crate::Client::stream).
///
/// All members of a group must subscribe to the same topics with the same expressions: a broker keeps one set per group.
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct StreamBuilder {
    parts: Parts,
}

impl StreamBuilder {
    pub(crate) fn new(client: Client, group: String) -> StreamBuilder {
        let mut parts = Parts::new(client, group);
        parts.settings.concurrency = 256;
        StreamBuilder { parts }
    }

    consumer_setters!();

    /// Messages that may be out at the same time: in the stream, or with the user and not answered. Default 256.
    pub fn credits(mut self, count: usize) -> StreamBuilder {
        self.parts.settings.concurrency = count;
        self
    }

    /// A message that is not answered for so long comes again, and its answer does not count any more. Default 15 min.
    pub fn answer_within(mut self, time: Duration) -> StreamBuilder {
        self.parts.settings.handler_timeout = time;
        self
    }

    /// Reads these queues, instead of a share of those of the group. They are of the topics that are subscribed to.
    ///
    /// Nobody reads the retry topic of the group then: a message that is to come again stays in memory, and comes again from there.
    pub fn assign(mut self, queues: impl IntoIterator<Item = MessageQueue>) -> StreamBuilder {
        self.parts.assigned = Some(queues.into_iter().collect());
        self
    }

    /// Starts to consume.
    ///
    /// # Errors
    ///
    /// [`StartError`]: a setting, name or expression that cannot be, a group that this client consumes already, or a
    /// broker that refuses a subscription.
    pub async fn open(self) -> Result<Deliveries, StartError> {
        // The workers are the credits; the channel only carries.
        let (sender, messages) = mpsc::channel(1);
        let handler = Handler::new(move |messages, held| {
            let sender = sender.clone();
            let (answer, answered) = oneshot::channel();
            let delivery = Delivery { message: only(messages), held: held.cloned(), answer };
            Box::pin(async move {
                // An end of the stream ends the consumer, and what it has handed out comes again.
                let _ = sender.send(delivery).await;
                answered.await.unwrap_or_else(|_| Verdict::again("it was dropped without an answer"))
            })
        });
        let consumer = self.parts.begin(handler).await?;
        let intake = consumer.shared().intake.clone();
        let ended = Box::pin(async move { intake.cancelled().await });
        Ok(Deliveries { consumer, messages, ended })
    }
}

/// The messages of a consumer as a stream, each to be answered. Ends with [`shutdown`](Deliveries::shutdown).
///
/// ```no_run
/// # async fn run(client: escrowmq_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut orders = client.stream("billing").subscribe("Orders", "*").credits(256).open().await?;
/// while let Some(order) = orders.next().await {
///     println!("{} bytes", order.body().len());
///     order.ack()?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// One that is dropped ends without storing its last offsets: what was answered since the last commit is then delivered again.
pub struct Deliveries {
    // Ends first: what the channel still holds is then dropped without being sent back.
    consumer: PushConsumer,
    messages: mpsc::Receiver<Delivery>,
    ended: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl Deliveries {
    /// The next message; `None` after the end of the consumer or of its client.
    pub async fn next(&mut self) -> Option<Delivery> {
        StreamExt::next(self).await
    }

    /// The queues that this member reads now, in order.
    pub fn assignment(&self) -> Vec<MessageQueue> {
        self.consumer.assignment()
    }

    /// Reads these queues from now on, instead of those before. Others of the group may read them as well.
    pub fn assign(&self, queues: impl IntoIterator<Item = MessageQueue>) {
        self.group().assign(queues);
    }

    /// Hands out nothing of this queue until [`resume`](Deliveries::resume), or until it has come back from another member. Answers
    /// whether it is read here.
    pub fn pause(&self, queue: &MessageQueue) -> bool {
        self.consumer.pause(queue)
    }

    /// Goes on with a queue. Answers whether it is read here.
    pub fn resume(&self, queue: &MessageQueue) -> bool {
        self.consumer.resume(queue)
    }

    /// Goes to another place of this queue. Messages of before that are out are [`Expired`].
    ///
    /// # Errors
    ///
    /// [`RequestError`] of the broker; trying again is safe.
    pub async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<(), RequestError> {
        self.consumer.seek(queue, to).await
    }

    /// How far behind the queues are.
    ///
    /// # Errors
    ///
    /// [`RequestError`] of a broker.
    pub async fn lag(&self) -> Result<Vec<Lag>, RequestError> {
        self.consumer.lag().await
    }

    /// Stops pulling, waits for the answers to messages that are out, stores the offsets and tells the brokers. What is still in the
    /// stream comes again.
    pub async fn shutdown(mut self) {
        self.group().intake.cancel();
        self.close();
        self.consumer.shutdown().await;
    }

    /// Ends the stream. What nobody has taken is dropped here, and is thereby answered.
    fn close(&mut self) {
        self.messages.close();
        while self.messages.try_recv().is_ok() {}
    }

    fn group(&self) -> &Arc<Group> {
        self.consumer.shared()
    }
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        if self.ended.as_mut().poll(context).is_ready() {
            self.close();
            // A future that has ended is not to be asked again.
            self.ended = Box::pin(std::future::ready(()));
            return Poll::Ready(None);
        }
        loop {
            match self.messages.poll_recv(context) {
                // It is another member's by now.
                Poll::Ready(Some(delivery)) if delivery.is_expired() => {}
                ready => return ready,
            }
        }
    }
}

/// A message of a stream, to be answered. Dropped without an answer, it comes again.
#[derive(Debug)]
#[must_use = "a message that is not answered comes again"]
pub struct Delivery {
    message: MessageExt,
    held: Option<Arc<HeldQueue>>,
    answer: oneshot::Sender<Verdict>,
}

impl Delivery {
    /// The message.
    pub fn message(&self) -> &MessageExt {
        &self.message
    }

    /// It is done with. Its offset is stored with the next commit, once all before it are answered.
    ///
    /// # Errors
    ///
    /// [`Expired`].
    pub fn ack(self) -> Result<(), Expired> {
        self.answer(Verdict::Done)
    }

    /// It comes again, after this time; [`Verdict::Again`] says how exactly.
    ///
    /// # Errors
    ///
    /// [`Expired`].
    pub fn retry_after(self, time: Duration) -> Result<(), Expired> {
        self.answer(Verdict::again_after(time, "the user answered so"))
    }

    /// It goes to the dead letters, with the reason.
    ///
    /// # Errors
    ///
    /// [`Expired`].
    pub fn reject(self, reason: impl Into<String>) -> Result<(), Expired> {
        self.answer(Verdict::never(reason))
    }

    /// With this verdict.
    ///
    /// # Errors
    ///
    /// [`Expired`].
    pub fn answer(self, verdict: Verdict) -> Result<(), Expired> {
        if self.is_expired() {
            return Err(Expired);
        }
        self.answer.send(verdict).map_err(|_| Expired)
    }

    /// Whether an answer does not count any more.
    pub fn is_expired(&self) -> bool {
        self.answer.is_closed() || self.held.as_ref().is_some_and(|held| held.lost.load(Ordering::Acquire))
    }
}

impl Deref for Delivery {
    type Target = MessageExt;

    fn deref(&self) -> &MessageExt {
        &self.message
    }
}

/// The answer came too late: the queue is read by another member or from another place, the time for an answer is over, or the stream
/// has ended. The message comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer came too late, and the message comes again")]
pub struct Expired;
