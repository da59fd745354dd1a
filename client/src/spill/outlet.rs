//! Where a spill sends to: a producer, or what a test puts in its place.

use std::sync::Arc;
use std::time::Duration;

use crate::batching::send_each;
use crate::error::SendError;
use crate::message::Message;
use crate::producer::{Producer, SendResult, SentInOrder, Until, send_in_order};

/// A way to brokers.
pub(super) trait Outlet: Send + Sync + 'static {
    /// Checks a message and gives it what all attempts share. Answers its unique id.
    fn seal(&self, message: &mut Message) -> Result<String, SendError>;

    /// Waits until it sends nothing any more.
    fn closing(&self) -> impl Future<Output = ()> + Send;

    /// Sends one.
    fn send(&self, message: Message) -> impl Future<Output = Result<SendResult, SendError>> + Send;

    /// Sends what was gathered, of one topic. Answers what became of each. Of a sharding key none is sent after one that was not.
    fn send_lane(
        &self,
        messages: Vec<Message>,
        messages_max: usize,
    ) -> impl Future<Output = Vec<Result<SendResult, SendError>>> + Send;

    /// Sends several that waited; those of a sharding key in their order.
    fn send_page(&self, page: Vec<(u64, Message)>) -> impl Future<Output = SentInOrder<u64>> + Send;
}

impl Outlet for Producer {
    fn seal(&self, message: &mut Message) -> Result<String, SendError> {
        Producer::seal(self, message)
    }

    async fn closing(&self) {
        Producer::closing(self).await;
    }

    async fn send(&self, message: Message) -> Result<SendResult, SendError> {
        Producer::send(self, message).await
    }

    async fn send_lane(&self, messages: Vec<Message>, messages_max: usize) -> Vec<Result<SendResult, SendError>> {
        send_each(self, messages, messages_max).await
    }

    async fn send_page(&self, page: Vec<(u64, Message)>) -> SentInOrder<u64> {
        // The folder's lock is held: nobody else sends these.
        let always: Until = Arc::new(|| Duration::MAX);
        send_in_order(self, page, &always).await
    }
}
