//! Reading one stored message without copying it.

use std::borrow::Cow;
use std::net::SocketAddr;

use thiserror::Error;

use super::cursor::Cursor;
use super::host;
use super::id::OffsetMessageId;
use super::layout::{UnitLayout, field};
use super::properties::Properties;
use super::sys_flag::SysFlag;

/// CRC-32 (IEEE) of a body as stored, with the top bit cleared, because readers take the field for signed.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7fff_ffff
}

/// Why bytes are no unit, or why fields do not fit into one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The bytes end before the unit does.
    #[error("unit is cut off after {available} bytes")]
    Truncated {
        /// How many bytes there are.
        available: usize,
    },
    /// Neither of the two known encodings.
    #[error("unknown magic {0:#010x}")]
    UnknownMagic(u32),
    /// The declared size is negative or not what the fields add up to.
    #[error("declared size {0} does not match the fields")]
    Size(i32),
    /// The topic is not UTF-8.
    #[error("topic is not UTF-8")]
    Topic,
    /// The body does not have the checksum stored with it.
    #[error("body checksum is {actual:#010x}, the unit says {stored:#010x}")]
    BodyCrc {
        /// The checksum that the unit names.
        stored: u32,
        /// The checksum that the body has.
        actual: u32,
    },
    /// A part is too long for its length field.
    #[error("{part} of {bytes} bytes exceeds {limit}")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The most that fits.
        limit: usize,
    },
}

/// One stored message, borrowed from the bytes it was read from.
#[derive(Clone, Debug)]
pub struct MessageUnit<'a> {
    bytes: &'a [u8],
    layout: UnitLayout,
    topic: &'a str,
    sys_flag: SysFlag,
    born_host: SocketAddr,
    store_host: SocketAddr,
}

impl<'a> MessageUnit<'a> {
    /// Reads the unit at the start of `bytes`; there may be more after it, see [`MessageUnit::size`]. The body's
    /// checksum is not verified, see [`MessageUnit::check_crc`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, UnitError> {
        let layout = UnitLayout::of(bytes)?;
        let bytes = &bytes[..layout.total];
        let topic = std::str::from_utf8(&bytes[layout.topic.clone()]).map_err(|_| UnitError::Topic)?;
        let sys_flag = SysFlag(i32_at(bytes, field::SYS_FLAG));
        let host_at = |at, is_v6| host::read(&mut Cursor::at(bytes, at), is_v6).expect("the layout was checked");
        let born_host = host_at(field::BORN_HOST, sys_flag.is_born_host_v6());
        let store_host = host_at(layout.store_host, sys_flag.is_store_host_v6());
        Ok(Self { bytes, layout, topic, sys_flag, born_host, store_host })
    }

    /// The whole unit.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Size of the unit in bytes; the next one of a concatenation begins there.
    pub fn size(&self) -> usize {
        self.layout.total
    }

    /// Where the fields lie.
    pub fn layout(&self) -> &UnitLayout {
        &self.layout
    }

    /// The topic it is stored under.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Stored checksum of the body.
    pub fn body_crc(&self) -> u32 {
        i32_at(self.bytes, field::BODY_CRC) as u32
    }

    /// Queue it is stored in.
    pub fn queue_id(&self) -> i32 {
        i32_at(self.bytes, field::QUEUE_ID)
    }

    /// The user's own flag.
    pub fn flag(&self) -> i32 {
        i32_at(self.bytes, field::FLAG)
    }

    /// Number in its queue.
    pub fn queue_offset(&self) -> i64 {
        i64_at(self.bytes, field::QUEUE_OFFSET)
    }

    /// Byte position in the broker's log.
    pub fn position(&self) -> i64 {
        i64_at(self.bytes, field::POSITION)
    }

    /// Compression, transaction and host bits.
    pub fn sys_flag(&self) -> SysFlag {
        self.sys_flag
    }

    /// Milliseconds since 1970 by the producer's clock.
    pub fn born_timestamp(&self) -> i64 {
        i64_at(self.bytes, field::BORN_TIMESTAMP)
    }

    /// The producer's address as the broker saw it.
    pub fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// Milliseconds since 1970 by the broker's clock.
    pub fn store_timestamp(&self) -> i64 {
        i64_at(self.bytes, self.layout.store_timestamp)
    }

    /// The broker's advertised address.
    pub fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// How often the message has been sent back for another attempt.
    pub fn reconsume_times(&self) -> i32 {
        i32_at(self.bytes, self.layout.reconsume_times)
    }

    /// Position of the half message of a committed message, else 0.
    pub fn prepared_offset(&self) -> i64 {
        i64_at(self.bytes, self.layout.prepared_offset)
    }

    /// The body as stored, possibly compressed.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.layout.body.clone()]
    }

    /// The property string as stored.
    pub fn properties_bytes(&self) -> &'a [u8] {
        &self.bytes[self.layout.properties.clone()]
    }

    /// The property string; what is not UTF-8 is replaced, because one odd property must not cost the message.
    pub fn properties_text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.properties_bytes())
    }

    /// One property, without looking at more of the string than needed. `None` also if its value is not UTF-8.
    pub fn property(&self, name: &str) -> Option<&'a str> {
        Properties::find(self.properties_bytes(), name)
    }

    /// The id made of store host and position.
    pub fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId { host: self.store_host, position: self.position() }
    }

    /// Verifies the body against the stored checksum.
    pub fn check_crc(&self) -> Result<(), UnitError> {
        let (stored, actual) = (self.body_crc(), body_crc(self.body()));
        if stored == actual { Ok(()) } else { Err(UnitError::BodyCrc { stored, actual }) }
    }
}

// The layout guarantees that all fixed fields lie inside the bytes.
fn i32_at(bytes: &[u8], at: usize) -> i32 {
    Cursor::at(bytes, at).i32().expect("the layout was checked")
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    Cursor::at(bytes, at).i64().expect("the layout was checked")
}
