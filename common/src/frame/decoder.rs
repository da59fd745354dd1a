//! Cuts a byte stream into frames.

use bytes::{Buf, Bytes, BytesMut};

use super::{Frame, FrameError, HeaderEncoding, binary, json};

/// Most bytes of one frame, its length field included: what every known server and client accepts.
pub const MAX_FRAME_LEN: usize = 16 * 1024 * 1024;

/// Takes frames from the front of a read buffer.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    limit: usize,
}

impl Default for FrameDecoder {
    fn default() -> FrameDecoder {
        FrameDecoder::new(MAX_FRAME_LEN)
    }
}

impl FrameDecoder {
    /// A decoder that refuses frames of more than `limit` bytes (at most [`MAX_FRAME_LEN`]).
    pub fn new(limit: usize) -> FrameDecoder {
        FrameDecoder { limit: limit.min(MAX_FRAME_LEN) }
    }

    /// A decoder for a connection between two processes of one kind, who know what they send each other: frames may be
    /// longer than [`MAX_FRAME_LEN`], up to `limit` bytes.
    pub fn between_equals(limit: usize) -> FrameDecoder {
        FrameDecoder { limit: limit.min(i32::MAX as usize) }
    }

    /// The next whole frame, or `None` if more bytes are needed. After an error the stream cannot be read on.
    ///
    /// Makes no room for what has not arrived, whatever length is declared.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((payload, _)) = self.measure(buffer)?.filter(|(payload, _)| payload + 4 <= buffer.len()) else {
            return Ok(None);
        };
        let (mut frame, body_start) = decode_head(&buffer[4..payload + 4])?;
        buffer.advance(4 + body_start);
        if payload > body_start {
            // Only a body shares the buffer; a frame without one leaves it free for reuse.
            frame.body = buffer.split_to(payload - body_start).freeze();
        } else {
            frame.body = Bytes::new();
        }
        Ok(Some(frame))
    }

    /// The header of a frame whose body has not arrived, and the bytes of the whole frame; `None` while the header is not
    /// complete either.
    pub fn head(&self, buffer: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
        let Some((payload, Some(header))) = self.measure(buffer)? else { return Ok(None) };
        let Some(head) = buffer.get(4..8 + header) else { return Ok(None) };
        let (encoding, _) = head_length(&head[..4], payload)?;
        Ok(Some((decode_header(encoding, &head[4..])?, payload + 4)))
    }

    /// The bytes of the whole frame that begins here, its length field included; `None` while that is not complete.
    /// Whoever knows the sender may make room for them.
    pub fn frame_len(&self, buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        Ok(self.measure(buffer)?.map(|(payload, _)| payload + 4))
    }

    /// Bytes after the length field, and bytes of the header if its length has arrived. Nonsense is refused as soon as it
    /// can be seen, not after its declared length has been awaited.
    fn measure(self, buffer: &[u8]) -> Result<Option<(usize, Option<usize>)>, FrameError> {
        let Some(length) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let Some(payload) = usize::try_from(length).ok().filter(|payload| *payload >= 4) else {
            return Err(FrameError::BadLength(i64::from(length)));
        };
        let whole = payload + 4;
        if whole > self.limit {
            return Err(FrameError::TooLong { length: whole as u64, limit: self.limit });
        }
        let header = buffer.get(4..8).map(|mark| head_length(mark, payload)).transpose()?;
        Ok(Some((payload, header.map(|(_, header)| header))))
    }
}

/// Encoding and length of the header, from the four bytes after the length field.
fn head_length(mark: &[u8], payload: usize) -> Result<(HeaderEncoding, usize), FrameError> {
    let [kind, high, middle, low] = *mark else {
        return Err(FrameError::BadLength(payload as i64));
    };
    let encoding = match kind {
        0 => HeaderEncoding::Json,
        1 => HeaderEncoding::Binary,
        other => return Err(FrameError::UnknownEncoding(other)),
    };
    let header = u32::from_be_bytes([0, high, middle, low]) as usize;
    if header > payload - 4 {
        return Err(FrameError::HeaderBeyondFrame { header, frame: payload });
    }
    Ok((encoding, header))
}

/// Decodes the header of a frame without its length field; also answers where the body begins.
pub(super) fn decode_head(payload: &[u8]) -> Result<(Frame, usize), FrameError> {
    let Some(mark) = payload.get(..4) else {
        return Err(FrameError::BadLength(payload.len() as i64));
    };
    let (encoding, header) = head_length(mark, payload.len())?;
    let body_start = 4 + header;
    Ok((decode_header(encoding, &payload[4..body_start])?, body_start))
}

fn decode_header(encoding: HeaderEncoding, header: &[u8]) -> Result<Frame, FrameError> {
    match encoding {
        HeaderEncoding::Json => json::decode(header),
        HeaderEncoding::Binary => binary::decode(header),
    }
}
