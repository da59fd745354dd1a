//! A message that a broker handed out.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use escrowmq_common::message as wire;
use escrowmq_common::message::properties::name;

use crate::queue::MessageQueue;

/// The largest body that a compressed message may unfold to, in bytes: what a broker would have taken uncompressed, with
/// room for brokers that are configured to take more.
const PLAIN_BYTES_MAX: usize = 64 << 20;

/// A message with all that the broker knows about it. Cloning shares the body with the response it came in.
#[derive(Clone, Debug)]
pub struct MessageExt {
    unit: wire::Message,
    /// Where it was read from: for a retried message the retry topic's queue.
    queue: MessageQueue,
}

impl MessageExt {
    /// Takes a unit that was read from `broker` and unfolds its body.
    pub(crate) fn from_unit(mut unit: wire::Message, broker: &str) -> Result<MessageExt, wire::CompressionError> {
        unit.decompress(PLAIN_BYTES_MAX)?;
        let queue = MessageQueue::new(unit.topic.as_str(), broker, unit.queue_id);
        if let Some(topic) = unit.property(name::RETRY_TOPIC) {
            unit.topic = topic.to_owned();
        }
        Ok(MessageExt { unit, queue })
    }

    /// The topic it was sent to; for a retried message the original one.
    pub fn topic(&self) -> &str {
        &self.unit.topic
    }

    /// The body, plain.
    pub fn body(&self) -> &Bytes {
        &self.unit.body
    }

    /// The queue it was read from; for a retried message a queue of the group's retry topic.
    pub fn queue(&self) -> &MessageQueue {
        &self.queue
    }

    /// Its number in that queue.
    pub fn queue_offset(&self) -> i64 {
        self.unit.queue_offset
    }

    /// Byte position in the broker's log.
    pub fn position(&self) -> i64 {
        self.unit.position
    }

    /// The unique id that the producer gave it, else the broker's offset message id.
    pub fn message_id(&self) -> String {
        self.unit.message_id()
    }

    /// The broker's own id: its address and the position.
    pub fn offset_message_id(&self) -> String {
        self.unit.offset_message_id().to_string()
    }

    /// The transaction's id, if it was sent in a transaction.
    pub fn transaction_id(&self) -> Option<&str> {
        self.unit.property(name::TRANSACTION_PREPARED)?;
        self.unit.property(name::TRANSACTION_ID).or_else(|| self.unit.unique_id())
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.unit.tag()
    }

    /// The index keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.unit.keys()
    }

    /// The sharding key.
    pub fn sharding_key(&self) -> Option<&str> {
        self.unit.property(name::SHARDING_KEY)
    }

    /// A property, the user's own or the protocol's.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.unit.property(name)
    }

    /// All properties.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unit.properties().iter()
    }

    /// The user's own number.
    pub fn flag(&self) -> i32 {
        self.unit.flag
    }

    /// How many attempts to consume it have failed before this one.
    pub fn reconsume_times(&self) -> u32 {
        self.unit.reconsume_times.max(0) as u32
    }

    /// When it was made, by the producer's clock.
    pub fn born_at(&self) -> SystemTime {
        from_millis(self.unit.born_timestamp)
    }

    /// The producer's address as the broker saw it.
    pub fn born_host(&self) -> SocketAddr {
        self.unit.born_host
    }

    /// When it was stored, by the broker's clock.
    pub fn stored_at(&self) -> SystemTime {
        from_millis(self.unit.store_timestamp)
    }

    /// The address of the broker that stored it.
    pub fn store_host(&self) -> SocketAddr {
        self.unit.store_host
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
        let host: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
        let unit = wire::Message {
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
        };
        MessageExt::from_unit(unit, "a").expect("a plain body")
    }
}
