//! A message inside a command: its tag hash, a checksum of its own, and its unit.
//!
//! A unit is the protocol's own message encoding with placeholders in the fields that are known only later (queue
//! offset, position, store time, transaction bits). It is stored once; a pull copies it and puts the fields in place.
//! Bytes: `tag hash i64 | unit length u32 | CRC-32 of the unit u32 | unit`. The checksum is the message's own, so that
//! reading one message out of a large record can be verified without reading the record.

use bytes::{BufMut, BytesMut};

use super::codec::COMMAND_BYTES_MAX;
use crate::terms::to_u32;
use crate::terms::{Cursor, Malformed, TooLong};

/// Something that can write a message unit once, into the batch.
pub trait WriteUnit: Sync {
    /// Appends the unit.
    fn write_unit(&self, out: &mut BytesMut);
}

impl WriteUnit for [u8] {
    fn write_unit(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

impl WriteUnit for Vec<u8> {
    fn write_unit(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

impl WriteUnit for bytes::Bytes {
    fn write_unit(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

/// The unit of a message: not yet written, or read back.
#[derive(Clone, Copy)]
pub enum Unit<'a> {
    /// On its way into a batch.
    New(&'a dyn WriteUnit),
    /// Read from a record's payload.
    Stored {
        /// Where the unit starts in the payload.
        at: usize,
        /// The unit.
        bytes: &'a [u8],
        /// Its checksum as stored.
        crc: u32,
    },
}

impl std::fmt::Debug for Unit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New(_) => f.write_str("New"),
            Self::Stored { at, bytes, .. } => write!(f, "Stored({} bytes at {at})", bytes.len()),
        }
    }
}

/// One message of a command.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Java's `hashCode` of the tag, sign-extended; 0 without a tag.
    pub tag_hash: i32,
    /// The message itself.
    pub unit: Unit<'a>,
}

impl<'a> Message<'a> {
    /// Least bytes that one message takes.
    const HEAD: usize = 16;

    /// A message to be written.
    pub fn new(tag_hash: i32, unit: &'a dyn WriteUnit) -> Self {
        Self { tag_hash, unit: Unit::New(unit) }
    }

    /// Appends the message. After an error `out` may hold a part of it.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), TooLong> {
        out.put_i64(i64::from(self.tag_hash));
        let head = out.len();
        out.put_u64(0);
        let start = out.len();
        match self.unit {
            Unit::New(unit) => unit.write_unit(out),
            Unit::Stored { bytes, .. } => out.put_slice(bytes),
        }
        TooLong::check("the message", out.len() - start, COMMAND_BYTES_MAX)?;
        let length = to_u32(out.len() - start);
        let crc = crc32fast::hash(&out[start..]);
        out[head..head + 4].copy_from_slice(&length.to_be_bytes());
        out[head + 4..head + 8].copy_from_slice(&crc.to_be_bytes());
        Ok(())
    }

    /// Reads the message at the cursor. The checksum is not verified here: the record's own covers it.
    pub fn decode(body: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let tag_hash = i32::try_from(body.i64("tag hash")?).map_err(|_| body.malformed("tag hash"))?;
        let length = body.u32("unit length")? as usize;
        let crc = body.u32("unit crc")?;
        let at = body.position();
        let bytes = body.take(length, "unit")?;
        Ok(Self { tag_hash, unit: Unit::Stored { at, bytes, crc } })
    }
}

/// The messages of a [`Publish`](super::command::Publish).
#[derive(Debug, Clone)]
pub enum MessageList<'a> {
    /// A single message to be written.
    One(Message<'a>),
    /// The members of a batch to be written.
    Many(&'a [Message<'a>]),
    /// Read back: `count` messages at the cursor.
    Stored {
        /// How many.
        count: u32,
        /// Their bytes.
        messages: Cursor<'a>,
    },
}

impl<'a> MessageList<'a> {
    /// How many messages.
    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(messages) => messages.len(),
            Self::Stored { count, .. } => *count as usize,
        }
    }

    /// Whether there is none; no valid command is so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends count and messages. After an error `out` may hold a part of them.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), TooLong> {
        TooLong::check("the list of messages", self.len(), COMMAND_BYTES_MAX)?;
        out.put_u32(to_u32(self.len()));
        match self {
            Self::One(message) => message.encode(out)?,
            Self::Many(messages) => messages.iter().try_for_each(|message| message.encode(out))?,
            Self::Stored { messages, .. } => {
                let mut rest = messages.clone();
                let all = rest.take(rest.remaining(), "messages").expect("takes what is there");
                out.put_slice(all);
            }
        }
        Ok(())
    }

    /// Reads the rest of a command as messages, and checks that they are all there.
    pub fn decode(body: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let count = body.u32("message count")?;
        if count == 0 || count as usize > body.remaining() / Message::HEAD {
            return Err(body.malformed("message count"));
        }
        let messages = body.clone();
        for _ in 0..count {
            Message::decode(body)?;
        }
        Ok(Self::Stored { count, messages })
    }

    /// The messages read back.
    ///
    /// # Panics
    /// On a list that was not decoded: apply only ever sees decoded commands.
    pub fn stored(&self) -> impl Iterator<Item = Message<'a>> {
        let Self::Stored { count, messages } = self else {
            unreachable!("only decoded commands are applied");
        };
        let mut cursor = messages.clone();
        (0..*count).map(move |_| Message::decode(&mut cursor).expect("checked when the list was decoded"))
    }
}
