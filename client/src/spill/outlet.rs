//! Where a spill sends to: a producer, or what a test puts in its place.

use std::sync::Arc;
use std::time::Duration;

use crate::error::SendError;
use crate::message::Message;
use crate::producer::{Producer, SendResult, SentInOrder, Until, seal, send_in_order};

/// A way to brokers.
pub(super) trait Outlet: Send + Sync + 'static {
    /// Checks a message and gives it what all attempts share. Answers its unique id.
    fn seal(&self, message: &mut Message) -> Result<String, SendError>;

    /// Sends one.
    fn send(&self, message: Message) -> impl Future<Output = Result<SendResult, SendError>> + Send;

    /// Sends several; those of a sharding key in their order.
    fn send_page(&self, page: Vec<(u64, Message)>) -> impl Future<Output = SentInOrder<u64>> + Send;
}

impl Outlet for Producer {
    fn seal(&self, message: &mut Message) -> Result<String, SendError> {
        let settings = self.settings();
        message.validate(settings.body_bytes_max)?;
        settings.profile.admits(message)?;
        Ok(seal(message, settings.profile.waits()))
    }

    async fn send(&self, message: Message) -> Result<SendResult, SendError> {
        Producer::send(self, message).await
    }

    async fn send_page(&self, page: Vec<(u64, Message)>) -> SentInOrder<u64> {
        // The folder's lock is held: nobody else sends these.
        let always: Until = Arc::new(|| Duration::MAX);
        send_in_order(self, page, &always).await
    }
}
