//! The handle of a push consumer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::group::Group;
use super::steer::{Lag, SeekTo};
use crate::client::Client;
use crate::error::RequestError;
use crate::groups::ConsumerMember;
use crate::queue::MessageQueue;

/// Consumes messages with a handler. Made by [`Client::push_consumer`](crate::Client::push_consumer).
///
/// Call [`PushConsumer::shutdown`] at the end. One that is merely dropped stops without storing its last offsets: what
/// was handled since the last commit is then delivered again.
pub struct PushConsumer {
    /// Keeps the client alive as long as its consumer.
    client: Client,
    group: Arc<Group>,
}

impl std::fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConsumer")
            .field("client", &self.client.id())
            .field("group", &self.group.name)
            .finish_non_exhaustive()
    }
}

impl PushConsumer {
    pub(super) fn new(client: Client, group: Arc<Group>) -> PushConsumer {
        PushConsumer { client, group }
    }

    /// The consumer's group.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// The queues that this member holds now, in order.
    pub fn assignment(&self) -> Vec<MessageQueue> {
        self.group.assignment()
    }

    /// Hands out nothing of this queue until [`resume`](PushConsumer::resume), or until it has come back from another member. Answers
    /// whether this member holds it. Handlers that run go on.
    pub fn pause(&self, queue: &MessageQueue) -> bool {
        self.group.pause(queue, true)
    }

    /// Goes on with a queue. Answers whether this member holds it.
    pub fn resume(&self, queue: &MessageQueue) -> bool {
        self.group.pause(queue, false)
    }

    /// Goes to another place of a queue, which this member should hold: another one would go on from where it is.
    ///
    /// # Errors
    ///
    /// [`RequestError`] of the broker; trying again is safe.
    pub async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<(), RequestError> {
        self.group.seek(queue, to).await
    }

    /// How far behind the queues of this member are.
    ///
    /// # Errors
    ///
    /// [`RequestError`] of a broker.
    pub async fn lag(&self) -> Result<Vec<Lag>, RequestError> {
        self.group.lag().await
    }

    pub(super) fn shared(&self) -> &Arc<Group> {
        &self.group
    }

    /// Messages that wait for a handler or are in one.
    pub fn in_hand(&self) -> usize {
        let counts = self.group.held().into_iter().map(|held| {
            let buffer = held.buffer.lock();
            buffer.waiting() + buffer.running()
        });
        counts.sum()
    }

    /// Stops pulling, waits for the running handlers, stores the offsets and tells the brokers, so that other members
    /// take the queues over at once. Messages that no handler has begun are delivered to them. A second call waits for
    /// the first.
    pub async fn shutdown(&self) {
        self.group.close().await;
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        if !self.group.closed.load(Ordering::Acquire) {
            self.group.intake.cancel();
            self.group.ready.close();
        }
    }
}
