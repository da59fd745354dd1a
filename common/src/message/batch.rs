//! Several messages in the body of one send request.
//!
//! ```text
//!  total i32 | magic i32 = 0 | crc i32 = 0 | flag i32 | length i32 + body | length i16 + properties
//! ```

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use super::cursor::Cursor;
use super::layout::SHORT_BYTES_MAX;

/// Everything of an inner message but its body and its properties, in bytes.
pub const OVERHEAD_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 2;

/// One message of a batch. It has no topic, times or hosts of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The user's own flag.
    pub flag: i32,
    /// Body as it is to be stored.
    pub body: &'a [u8],
    /// Property string.
    pub properties: &'a str,
}

/// Why bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The body ends inside the message with this number, counted from 0.
    #[error("batch ends inside message {0}")]
    Truncated(usize),
    /// The declared size of the message with this number is not what its fields add up to.
    #[error("message {0} of the batch has a wrong size")]
    Size(usize),
    /// The properties of the message with this number are not UTF-8.
    #[error("properties of message {0} of the batch are not UTF-8")]
    Properties(usize),
    /// A part is too long for its length field.
    #[error("{part} of {bytes} bytes does not fit into a batch")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its size in bytes.
        bytes: usize,
    },
}

impl BatchMessage<'_> {
    /// Appends the message to the batch body `out`. On an error nothing is written.
    pub fn write(&self, out: &mut BytesMut) -> Result<(), BatchError> {
        if self.properties.len() > SHORT_BYTES_MAX {
            let bytes = self.properties.len();
            return Err(BatchError::TooLong { part: "properties", bytes });
        }
        let total = OVERHEAD_BYTES + self.body.len() + self.properties.len();
        if i32::try_from(total).is_err() {
            return Err(BatchError::TooLong { part: "body", bytes: self.body.len() });
        }
        out.reserve(total);
        out.put_i32(total as i32);
        // Magic and checksum: present for the likeness to a unit, zero, and ignored by every reader.
        out.put_i32(0);
        out.put_i32(0);
        out.put_i32(self.flag);
        out.put_i32(self.body.len() as i32);
        out.put_slice(self.body);
        out.put_i16(self.properties.len() as i16);
        out.put_slice(self.properties.as_bytes());
        Ok(())
    }
}

/// Reads a batch body in place.
pub fn messages(body: &[u8]) -> BatchMessages<'_> {
    BatchMessages { rest: body, number: 0 }
}

/// Iterator over a batch body. It ends after the first error: a batch with one bad message is bad as a whole, so look
/// at all of it before storing any.
#[derive(Clone, Debug)]
pub struct BatchMessages<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> BatchMessages<'a> {
    fn read(&mut self) -> Result<BatchMessage<'a>, BatchError> {
        let number = self.number;
        let declared = Cursor::new(self.rest).i32().ok_or(BatchError::Truncated(number))?;
        let total = usize::try_from(declared).map_err(|_| BatchError::Size(number))?;
        let message = self.rest.get(..total).ok_or(BatchError::Truncated(number))?;
        self.rest = &self.rest[total..];
        self.number += 1;
        let (flag, body, properties) = fields(message).ok_or(BatchError::Size(number))?;
        let properties = std::str::from_utf8(properties).map_err(|_| BatchError::Properties(number))?;
        Ok(BatchMessage { flag, body, properties })
    }
}

fn fields(message: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let mut cursor = Cursor::at(message, 12);
    let flag = cursor.i32()?;
    let body_bytes = cursor.i32()?;
    let body = cursor.take(usize::try_from(body_bytes).ok()?)?;
    let property_bytes = cursor.i16()?;
    let properties = cursor.take(usize::try_from(property_bytes).ok()?)?;
    (cursor.position() == message.len()).then_some((flag, body, properties))
}

impl<'a> Iterator for BatchMessages<'a> {
    type Item = Result<BatchMessage<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.read();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

impl std::iter::FusedIterator for BatchMessages<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> BytesMut {
        let mut out = BytesMut::new();
        let first = BatchMessage { flag: 1, body: b"a", properties: "K\u{1}v\u{2}" };
        first.write(&mut out).unwrap();
        BatchMessage { flag: -1, body: b"", properties: "" }.write(&mut out).unwrap();
        out
    }

    #[test]
    fn messages_are_read_back() {
        let body = two();
        let read: Result<Vec<_>, _> = messages(&body).collect();
        let read = read.unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].properties, "K\u{1}v\u{2}");
        assert_eq!(read[1], BatchMessage { flag: -1, body: b"", properties: "" });
    }

    #[test]
    fn every_cut_but_at_a_boundary_is_an_error() {
        let body = two();
        let boundary = body.len() - OVERHEAD_BYTES;
        for cut in 1..body.len() {
            let outcome: Result<Vec<_>, _> = messages(&body[..cut]).collect();
            assert_eq!(outcome.is_ok(), cut == boundary, "{cut}");
        }
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        for (at, value) in [(0, i32::MAX), (0, -1), (0, 0), (0, 21), (16, i32::MAX), (16, -1)] {
            let mut body = two();
            body[at..at + 4].copy_from_slice(&value.to_be_bytes());
            assert!(messages(&body).any(|message| message.is_err()), "{at} {value}");
        }
    }
}
