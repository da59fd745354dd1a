//! Messages that outlive the response they came in.

use std::net::SocketAddr;

use bytes::Bytes;

use super::compression::CompressionError;
use super::id::OffsetMessageId;
use super::properties::{Properties, name};
use super::sys_flag::SysFlag;
use super::unit::{MessageUnit, UnitError};

/// A message as a consumer, a checked producer or a tool holds it. The body shares the bytes of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic it was delivered under; for a retried message the retry topic.
    pub topic: String,
    /// Queue it was read from.
    pub queue_id: i32,
    /// Its number in that queue.
    pub queue_offset: i64,
    /// Byte position in the broker's log.
    pub position: i64,
    /// The user's own flag.
    pub flag: i32,
    /// Compression, transaction and host bits.
    pub sys_flag: SysFlag,
    /// Stored checksum of the body as delivered.
    pub body_crc: u32,
    /// Milliseconds since 1970 by the producer's clock.
    pub born_timestamp: i64,
    /// The producer's address as the broker saw it.
    pub born_host: SocketAddr,
    /// Milliseconds since 1970 by the broker's clock.
    pub store_timestamp: i64,
    /// The broker's advertised address.
    pub store_host: SocketAddr,
    /// How often the message has been sent back for another attempt.
    pub reconsume_times: i32,
    /// Position of the half message of a committed message, else 0.
    pub prepared_offset: i64,
    /// Size of the unit it came in, in bytes.
    pub store_size: usize,
    /// Body; compressed as long as [`SysFlag::COMPRESSED`] is set, see [`Message::decompress`].
    pub body: Bytes,
    /// The property string; read it with [`Message::property`] or [`Message::properties`].
    pub property_text: String,
}

impl Message {
    /// Reads the unit at the start of `bytes` and takes a shared slice of its body.
    pub fn decode(bytes: &Bytes) -> Result<Self, UnitError> {
        let unit = MessageUnit::decode(bytes)?;
        Ok(Self {
            topic: unit.topic().to_owned(),
            queue_id: unit.queue_id(),
            queue_offset: unit.queue_offset(),
            position: unit.position(),
            flag: unit.flag(),
            sys_flag: unit.sys_flag(),
            body_crc: unit.body_crc(),
            born_timestamp: unit.born_timestamp(),
            born_host: unit.born_host(),
            store_timestamp: unit.store_timestamp(),
            store_host: unit.store_host(),
            reconsume_times: unit.reconsume_times(),
            prepared_offset: unit.prepared_offset(),
            store_size: unit.size(),
            body: bytes.slice(unit.layout().body.clone()),
            property_text: unit.properties_text().into_owned(),
        })
    }

    /// All properties.
    pub fn properties(&self) -> Properties<'_> {
        Properties::new(&self.property_text)
    }

    /// One property.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties().get(name)
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.property(name::TAGS)
    }

    /// The index keys, one by one.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.property(name::KEYS).unwrap_or_default();
        keys.split(' ').filter(|key| !key.is_empty())
    }

    /// The id that the producer gave the message, if it gave one.
    pub fn unique_id(&self) -> Option<&str> {
        self.property(name::UNIQUE_KEY)
    }

    /// The id made of store host and position.
    pub fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId { host: self.store_host, position: self.position }
    }

    /// The id that users see: the producer's, else the broker's.
    pub fn message_id(&self) -> String {
        match self.unique_id() {
            Some(id) => id.to_owned(),
            None => self.offset_message_id().to_string(),
        }
    }

    /// Replaces a compressed body by the plain one, at most `limit` bytes, and clears the compressed bit; the type bits
    /// stay, as other clients leave them. Does nothing to a plain body.
    pub fn decompress(&mut self, limit: usize) -> Result<(), CompressionError> {
        let Some(compression) = self.sys_flag.compression() else {
            return Ok(());
        };
        let compression = compression.map_err(CompressionError::UnknownType)?;
        self.body = compression.decompress(&self.body, limit)?;
        self.sys_flag = self.sys_flag.without(SysFlag::COMPRESSED);
        Ok(())
    }
}

/// Reads the units of a response body, one after another.
pub fn decode_units(body: Bytes) -> Units {
    Units { rest: body }
}

/// Iterator over concatenated units. After the first error it ends, because nobody can tell where the next unit begins.
#[derive(Clone, Debug)]
pub struct Units {
    rest: Bytes,
}

impl Iterator for Units {
    type Item = Result<Message, UnitError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = Message::decode(&self.rest);
        self.rest = match &message {
            Ok(message) => self.rest.slice(message.store_size..),
            Err(_) => Bytes::new(),
        };
        Some(message)
    }
}

impl std::iter::FusedIterator for Units {}
