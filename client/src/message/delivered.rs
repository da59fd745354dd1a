//! A message that a broker handed out.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use escrowmq_common::message as wire;
use escrowmq_common::message::CompressionError;
use escrowmq_common::message::properties::name;

use super::Message;
use crate::queue::MessageQueue;
use crate::request_reply::{self, ReplyError};
use crate::trace::{TRACE_PARENT, TRACE_STATE};

/// The largest body that a compressed message may unfold to, in bytes: what a broker would have taken uncompressed, with
/// room for brokers that are configured to take more.
const PLAIN_BYTES_MAX: usize = 64 << 20;

/// The property in which a dead letter carries the reason that its handler gave.
pub(crate) const DEAD_LETTER_REASON: &str = "DLQ_REASON";

/// A message with all that the broker knows about it. Cloning is cheap: clones share everything.
#[derive(Clone)]
pub struct MessageExt {
    shared: Arc<Delivered>,
}

struct Delivered {
    unit: wire::Message,
    /// Where it was read from: for a retried message the retry topic's queue.
    queue: MessageQueue,
    body_error: Option<String>,
}

impl fmt::Debug for MessageExt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageExt")
            .field("topic", &self.topic())
            .field("message_id", &self.message_id())
            .field("queue", self.queue())
            .field("queue_offset", &self.queue_offset())
            .field("reconsume_times", &self.reconsume_times())
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

impl MessageExt {
    /// Takes a unit that was read from `broker` and unfolds its body.
    pub(crate) fn from_unit(unit: wire::Message, broker: &str) -> MessageExt {
        let queue = MessageQueue::new(unit.topic.as_str(), broker, unit.queue_id);
        MessageExt::from_queue(unit, queue)
    }

    /// Takes a unit that was read from `queue` and unfolds its body. A body that does not unfold stays as it is: the
    /// message must be neither lost nor stop its queue.
    pub(crate) fn from_queue(mut unit: wire::Message, queue: MessageQueue) -> MessageExt {
        let body_error = unit.decompress(PLAIN_BYTES_MAX).err().map(|error| told(&error));
        let original = unit.property(name::RETRY_TOPIC).map(str::to_owned);
        if let Some(topic) = original {
            unit.topic = topic;
        }
        MessageExt { shared: Arc::new(Delivered { unit, queue, body_error }) }
    }

    /// The topic it was sent to; for a retried message the original one.
    pub fn topic(&self) -> &str {
        &self.shared.unit.topic
    }

    /// Why the body cannot be unfolded, if it was sent compressed and cannot: [`body`](MessageExt::body) is then what was
    /// sent. A push consumer does not hand such a message to its handler; it goes the way of failed messages. Without the
    /// feature `zstd` this is also the end of bodies that Zstandard compressed, and the text names the feature.
    pub fn body_error(&self) -> Option<&str> {
        self.shared.body_error.as_deref()
    }

    /// The body, plain.
    pub fn body(&self) -> &Bytes {
        &self.shared.unit.body
    }

    /// The queue it was read from; for a retried message a queue of the group's retry topic.
    pub fn queue(&self) -> &MessageQueue {
        &self.shared.queue
    }

    /// Its number in that queue.
    pub fn queue_offset(&self) -> i64 {
        self.shared.unit.queue_offset
    }

    /// Byte position in the broker's log.
    pub fn position(&self) -> i64 {
        self.shared.unit.position
    }

    /// The unique id that the producer gave it, else the broker's offset message id.
    pub fn message_id(&self) -> String {
        self.shared.unit.message_id()
    }

    /// The broker's own id: its address and the position.
    pub fn offset_message_id(&self) -> String {
        self.shared.unit.offset_message_id().to_string()
    }

    /// The transaction's id, if it was sent in a transaction.
    pub fn transaction_id(&self) -> Option<&str> {
        self.shared.unit.property(name::TRANSACTION_PREPARED)?;
        self.shared.unit.property(name::TRANSACTION_ID).or_else(|| self.shared.unit.unique_id())
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.shared.unit.tag()
    }

    /// The index keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.shared.unit.keys()
    }

    /// The sharding key.
    pub fn sharding_key(&self) -> Option<&str> {
        self.shared.unit.property(name::SHARDING_KEY)
    }

    /// A property, the user's own or the protocol's.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.shared.unit.property(name)
    }

    /// Why it is a dead letter, if its handler said so. One whose attempts were used up has no reason of its own.
    pub fn dead_letter_reason(&self) -> Option<&str> {
        self.property(DEAD_LETTER_REASON)
    }

    /// All properties.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.unit.properties().iter()
    }

    /// Whether its sender waits for a reply: see [`Producer::reply`](crate::Producer::reply).
    pub fn wants_reply(&self) -> bool {
        request_reply::is_request(self)
    }

    /// The reply to this request, to be given properties of its own and to
    /// [`Producer::send_reply`](crate::Producer::send_reply).
    ///
    /// # Errors
    ///
    /// [`ReplyError::Invalid`] if the message is no request.
    pub fn reply(&self, body: impl Into<Bytes>) -> Result<Message, ReplyError> {
        request_reply::reply_to(self, body.into())
    }

    /// The W3C trace context that it carries: `traceparent`, as the sender's tracing wrote it. With the feature `opentelemetry`
    /// a handler runs in a span that continues it; without, this is for tracing of your own. A sender without that feature
    /// writes it with [`Message::property`].
    pub fn trace_parent(&self) -> Option<&str> {
        self.property(TRACE_PARENT)
    }

    /// What belongs to [`trace_parent`](MessageExt::trace_parent): `tracestate`.
    pub fn trace_state(&self) -> Option<&str> {
        self.property(TRACE_STATE)
    }

    /// The user's own number.
    pub fn flag(&self) -> i32 {
        self.shared.unit.flag
    }

    /// How many attempts to consume it have failed before this one.
    pub fn reconsume_times(&self) -> u32 {
        self.shared.unit.reconsume_times.max(0) as u32
    }

    /// When it was made, by the producer's clock.
    pub fn born_at(&self) -> SystemTime {
        from_millis(self.shared.unit.born_timestamp)
    }

    /// The producer's address as the broker saw it.
    pub fn born_host(&self) -> SocketAddr {
        self.shared.unit.born_host
    }

    /// When it was stored, by the broker's clock.
    pub fn stored_at(&self) -> SystemTime {
        from_millis(self.shared.unit.store_timestamp)
    }

    /// The address of the broker that stored it.
    pub fn store_host(&self) -> SocketAddr {
        self.shared.unit.store_host
    }
}

/// Why a body does not unfold, in the words of this package's features.
fn told(error: &CompressionError) -> String {
    match error {
        CompressionError::NotCompiledIn { .. } => {
            "zstd is not compiled in: build with the feature `zstd` of escrowmq-client, then the message can be read"
                .to_owned()
        }
        error => error.to_string(),
    }
}

fn from_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.max(0) as u64)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A delivered message of queue 0, as little as the pure tests need.
    pub(crate) fn delivered(topic: &str, queue_offset: i64, body: &[u8]) -> MessageExt {
        MessageExt::from_unit(unit(topic, queue_offset, body), "a")
    }

    /// A delivered message with these properties.
    pub(crate) fn with_properties(properties: &[(&str, &str)]) -> MessageExt {
        let mut unit = unit("T", 0, b"x");
        for (name, value) in properties {
            wire::properties::append(&mut unit.property_text, name, value);
        }
        MessageExt::from_unit(unit, "a")
    }

    fn unit(topic: &str, queue_offset: i64, body: &[u8]) -> wire::Message {
        let host: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
        wire::Message {
            topic: topic.to_owned(),
            queue_id: 0,
            queue_offset,
            position: queue_offset * 100,
            flag: 0,
            sys_flag: wire::SysFlag::default(),
            body_crc: 0,
            born_timestamp: 0,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            store_size: 0,
            body: Bytes::copy_from_slice(body),
            property_text: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_does_not_unfold_is_kept_and_told() {
        let mut unit = testing::delivered("T", 0, b"not zlib").shared.unit.clone();
        unit.sys_flag = wire::SysFlag(wire::SysFlag::COMPRESSED);
        let message = MessageExt::from_unit(unit, "a");
        assert_eq!(message.body(), &b"not zlib"[..]);
        assert!(message.body_error().is_some());
        assert_eq!(testing::delivered("T", 0, b"plain").body_error(), None);
    }

    #[test]
    fn a_zstd_body_is_read_or_the_feature_is_named() {
        // One frame of one raw block, by hand: this package cannot compress so.
        let frame = b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0plain";
        let mut unit = testing::delivered("T", 0, frame).shared.unit.clone();
        unit.sys_flag = wire::SysFlag::default().with_compression(wire::CompressionType::Zstd);
        let message = MessageExt::from_unit(unit, "a");
        if cfg!(feature = "zstd") {
            assert_eq!((message.body_error(), &message.body()[..]), (None, &b"plain"[..]));
        } else if let Some(error) = message.body_error() {
            assert!(error.contains("the feature `zstd` of escrowmq-client"), "{error}");
            assert_eq!(message.body(), &frame[..]);
        }
        let without = CompressionError::NotCompiledIn { feature: "ruzstd" };
        assert!(told(&without).contains("the feature `zstd` of escrowmq-client"));
    }
}
