//! One remoting frame: the unit that two processes exchange over a connection.
//!
//! ```text
//!  0        4      5            8          8+H            4+length
//!  | length | type | H (24 bit) | header H | body ........ |
//! ```
//!
//! The header is JSON (type 0) or binary (type 1); every receiver decodes by the type byte of each frame, so both may be
//! mixed on one connection, and an answer uses the encoding of its request.
//!
//! Promises: bytes from the network never panic and never make us allocate more than a small multiple of the bytes that
//! really arrived; a header costs one allocation (the text of its fields) whatever its encoding; a response can be
//! written without building a [`Frame`] at all ([`write_response`]).
//!
//! Left to others: what codes and fields mean ([`crate::code`], [`crate::header`]), sockets ([`crate::remoting`]).

mod binary;
mod decoder;
mod error;
mod fields;
mod json;
mod language;
mod scan;
mod write;

use std::fmt::Display;

use bytes::{Buf as _, Bytes, BytesMut};

pub use decoder::{FrameDecoder, MAX_FRAME_LEN};
pub use error::FrameError;
pub use fields::{Fields, FieldsIter};
pub use language::Language;
pub use write::{FieldWriter, ResponseHead, write_response};

use crate::header::{Header, HeaderError};

/// The protocol version that we put into frames: the ordinal of release 5.3.3.
///
/// Clients refuse SQL92 pulls from a broker whose heartbeat answer says less than 232.
pub const WIRE_VERSION: i32 = 479;

/// Flag bit of a response.
const FLAG_RESPONSE: i32 = 1;
/// Flag bit of a request that must not be answered.
const FLAG_ONEWAY: i32 = 2;

/// How the header of a frame is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderEncoding {
    /// Type 0, a JSON object: what every client understands.
    #[default]
    Json,
    /// Type 1, fixed binary fields followed by length-prefixed pairs.
    Binary,
}

/// One request or response.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Request code, or response code if [`is_response`](Frame::is_response).
    pub code: i32,
    /// Language of the sender.
    pub language: Language,
    /// Version ordinal of the sender, 0 if it named none.
    pub version: i32,
    /// Request id, chosen by the requester and copied into the response.
    pub opaque: i32,
    /// Bit 0: response, bit 1: oneway.
    pub flag: i32,
    /// Text for humans, mostly the reason of a failure.
    pub remark: Option<String>,
    /// The request- or response-specific fields.
    pub fields: Fields,
    /// The payload; shares the read buffer of its connection, so copy what is kept for long.
    pub body: Bytes,
    /// How the header was, or will be, written.
    pub encoding: HeaderEncoding,
}

/// The beginning of a stranger's text, short enough for a remark.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

impl Frame {
    /// A request; the sending connection assigns its opaque.
    pub fn request(code: i32) -> Frame {
        Frame {
            code,
            language: Language::JAVA,
            version: WIRE_VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            fields: Fields::new(),
            body: Bytes::new(),
            encoding: HeaderEncoding::Json,
        }
    }

    /// The response to a request: same opaque, same encoding. The response to a oneway request is marked oneway itself, and
    /// [`Connection::reply`](crate::remoting::Connection::reply) drops it.
    pub fn response(to: &Frame, code: i32) -> Frame {
        Frame {
            opaque: to.opaque,
            flag: FLAG_RESPONSE | to.flag & FLAG_ONEWAY,
            encoding: to.encoding,
            ..Frame::request(code)
        }
    }

    /// Says why the header is refused, if its fields and its remark have more than `limit` bytes.
    pub fn header_excess(&self, limit: usize) -> Option<String> {
        let bytes = self.fields.bytes() + self.remark.as_ref().map_or(0, String::len);
        if bytes <= limit {
            return None;
        }
        let longest = self.fields.iter().max_by_key(|(_, value)| value.len());
        let (field, length) = longest.map_or_else(Default::default, |(key, value)| (shown(key), value.len()));
        Some(format!("header: {bytes} bytes, the limit is {limit}; the longest field is {field}: {length} bytes"))
    }

    /// Sets the remark.
    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<String>) -> Frame {
        self.remark = Some(remark.into());
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Frame {
        self.body = body.into();
        self
    }

    /// Adds one field.
    #[must_use]
    pub fn with_field(mut self, key: &str, value: impl Display) -> Frame {
        self.fields.insert(key, value);
        self
    }

    /// Adds all fields of a typed header.
    #[must_use]
    pub fn with_header<'a>(mut self, header: &impl Header<'a>) -> Frame {
        header.encode(&mut self.fields);
        self
    }

    /// The typed header of this frame; its strings borrow from the frame.
    pub fn header<'a, H: Header<'a>>(&'a self) -> Result<H, HeaderError> {
        H::decode(&self.fields)
    }

    /// Whether this answers a request of ours.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender wants no answer, not even about an error.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// Marks a request as not to be answered.
    pub fn set_oneway(&mut self) {
        self.flag |= FLAG_ONEWAY;
    }

    /// Appends the frame with its length bytes to `out`.
    ///
    /// A frame above [`MAX_FRAME_LEN`] would make the receiver close the connection: a response of that size is replaced
    /// by a system error that says so, a request is not written at all ([`try_encode`](Frame::try_encode) tells).
    pub fn encode(&self, out: &mut BytesMut) {
        if let Err(error) = self.try_encode(out)
            && self.is_response()
        {
            let remark = error.to_string();
            let head = ResponseHead {
                encoding: self.encoding,
                opaque: self.opaque,
                code: crate::code::response::SYSTEM_ERROR,
                remark: Some(&remark),
            };
            write_response(out, head, |_| {}, &[]);
        }
    }

    /// Appends the frame with its length bytes to `out`, or leaves `out` as it was if the frame is too long to be sent.
    pub fn try_encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        write::write_frame(out, &self.head(), |writer| self.write_fields(writer), &[&self.body])
    }

    /// Appends all of the frame but its body, which the caller writes after it, so that a large one is not copied. A frame of
    /// more than `limit` bytes is an error and leaves `out` as it was; a limit above [`MAX_FRAME_LEN`] is for receivers with
    /// [`FrameDecoder::between_equals`].
    pub fn encode_head(&self, out: &mut BytesMut, limit: usize) -> Result<(), FrameError> {
        let limit = limit.min(i32::MAX as usize);
        write::write_head(out, &self.head(), |writer| self.write_fields(writer), self.body.len(), limit)
    }

    fn head(&self) -> write::Head<'_> {
        write::Head {
            encoding: self.encoding,
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.as_deref(),
        }
    }

    fn write_fields(&self, writer: &mut FieldWriter<'_>) {
        for (key, value) in &self.fields {
            writer.text(key, value);
        }
    }

    /// Decodes one whole frame, given without its four length bytes.
    pub fn decode(mut bytes: Bytes) -> Result<Frame, FrameError> {
        let (mut frame, body_start) = decoder::decode_head(&bytes)?;
        if body_start < bytes.len() {
            bytes.advance(body_start);
            frame.body = bytes;
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
