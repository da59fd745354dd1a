//! Reads of an answer what a load generator needs, and not more.
//!
//! Decoding a whole header costs more than the rest of the work on an answer. Both header encodings have code and opaque
//! where they are found at once; what is not found there is left to the full decoder.

use bytes::Bytes;
use escrowmq_common::frame::{Frame, FrameError, HeaderEncoding, MAX_FRAME_LEN};

/// Flag bit of a response, beside a request of the broker's own.
const RESPONSE: i32 = 1;

/// One frame from the broker.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// Response code, or the code of the broker's request.
    pub(super) code: i32,
    /// Request that is answered.
    pub(super) opaque: i32,
    /// False for a request of the broker's own.
    pub(super) is_response: bool,
    /// The payload.
    pub(super) body: &'a [u8],
    header: &'a [u8],
    encoding: HeaderEncoding,
    frame: &'a [u8],
}

/// The first frame in `bytes` and its length, or `None` if it is not whole yet.
pub(super) fn next(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>, FrameError> {
    let Some(length) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let payload = u32::from_be_bytes(*length) as usize;
    if payload < 4 {
        return Err(FrameError::BadLength(payload as i64));
    }
    let whole = payload + 4;
    if whole > MAX_FRAME_LEN {
        return Err(FrameError::TooLong { length: whole as u64, limit: MAX_FRAME_LEN });
    }
    let Some(frame) = bytes.get(4..whole) else {
        return Ok(None);
    };
    Ok(Some((Answer::parse(frame)?, whole)))
}

/// The length of the first frame in `bytes`, if that much is known; bounded like [`next`].
pub(super) fn needed(bytes: &[u8]) -> usize {
    bytes.first_chunk::<4>().map_or(0, |length| (u32::from_be_bytes(*length) as usize).min(MAX_FRAME_LEN) + 4)
}

impl<'a> Answer<'a> {
    /// Reads a frame without its length field.
    fn parse(frame: &'a [u8]) -> Result<Answer<'a>, FrameError> {
        let [kind, high, middle, low] = *frame.first_chunk::<4>().ok_or(FrameError::BadLength(frame.len() as i64))?;
        let encoding = match kind {
            0 => HeaderEncoding::Json,
            1 => HeaderEncoding::Binary,
            other => return Err(FrameError::UnknownEncoding(other)),
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let rest = &frame[4..];
        if length > rest.len() {
            return Err(FrameError::HeaderBeyondFrame { header: length, frame: frame.len() });
        }
        let (header, body) = rest.split_at(length);
        let head = match encoding {
            HeaderEncoding::Json => json_head(header),
            HeaderEncoding::Binary => binary_head(header),
        };
        let (code, opaque, flag) = if let Some(head) = head {
            head
        } else {
            let whole = Frame::decode(Bytes::copy_from_slice(frame))?;
            (whole.code, whole.opaque, whole.flag)
        };
        Ok(Answer { code, opaque, is_response: flag & RESPONSE != 0, body, header, encoding, frame })
    }

    /// The whole frame, by the full decoder.
    pub(super) fn frame(&self) -> Result<Frame, FrameError> {
        Frame::decode(Bytes::copy_from_slice(self.frame))
    }

    /// A number among the fields.
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.with_text(key, |text| text.parse().ok())
    }

    /// The text of a field, read where it lies if it can be.
    pub(super) fn with_text<T>(&self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let found = match self.encoding {
            HeaderEncoding::Json => json_text(self.header, key.as_bytes()),
            HeaderEncoding::Binary => binary_text(self.header, key.as_bytes()),
        };
        match found.and_then(|text| std::str::from_utf8(text).ok()) {
            Some(text) => read(text),
            None => read(self.frame().ok()?.fields.get(key)?),
        }
    }
}

/// Code, opaque and flag of a header as known servers write it: the code first, opaque and flag near the end.
fn json_head(header: &[u8]) -> Option<(i32, i32, i32)> {
    let code = number_at(header.strip_prefix(b"{\"code\":")?)?;
    let opaque = json_number_from_the_end(header, b"\"opaque\":")?;
    let flag = json_number_from_the_end(header, b"\"flag\":")?;
    Some((code, opaque, flag))
}

/// A quote within a text is escaped, so a key with both its quotes is a key; field values are texts, so a number after
/// it is no field's.
fn json_number_from_the_end(header: &[u8], key: &[u8]) -> Option<i32> {
    let at = header.windows(key.len()).rposition(|window| window[1] == key[1] && window == key)?;
    number_at(&header[at + key.len()..])
}

fn number_at(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let end = digits.iter().position(|digit| !digit.is_ascii_digit()).filter(|end| (1..=10).contains(end))?;
    let number = digits[..end].iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    i32::try_from(if negative { -number } else { number }).ok()
}

/// Code, opaque and flag of a binary header: fixed places.
fn binary_head(header: &[u8]) -> Option<(i32, i32, i32)> {
    let code = i16::from_be_bytes(*header.first_chunk()?);
    let opaque = i32::from_be_bytes(*header.get(5..)?.first_chunk()?);
    let flag = i32::from_be_bytes(*header.get(9..)?.first_chunk()?);
    Some((i32::from(code), opaque, flag))
}

/// The text of a field; `None` also if it has escapes.
fn json_text<'a>(header: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let quoted = key.len() + 4;
    let at = header.windows(quoted).position(|window| {
        window[1] == key[0]
            && window[0] == b'"'
            && window[1..=key.len()] == *key
            && window[key.len() + 1..] == *b"\":\""
    })?;
    let text = &header[at + quoted..];
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (text[end] == b'"').then(|| &text[..end])
}

/// The text of a field after the fixed part and the remark.
fn binary_text<'a>(header: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let remark = u32::from_be_bytes(*header.get(13..)?.first_chunk()?) as usize;
    let mut rest = header.get(17 + remark + 4..)?;
    loop {
        let (found, behind) = split(rest.get(2..)?, usize::from(u16::from_be_bytes(*rest.first_chunk()?)))?;
        let (value, behind) = split(behind.get(4..)?, u32::from_be_bytes(*behind.first_chunk()?) as usize)?;
        if found == key {
            return Some(value);
        }
        rest = behind;
    }
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(at)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn response(encoding: HeaderEncoding) -> Frame {
        let mut request = Frame::request(310);
        request.opaque = 1_000_000_123;
        request.encoding = encoding;
        Frame::response(&request, -7)
            .with_remark("busy, \"opaque\":5 and \"code\":9,\"flag\":0")
            .with_field("msgId", "7F00000100002A9F0000000000000042")
            .with_field("queueOffset", 1234)
            .with_field("odd", "a\"b")
            .with_body(&b"payload"[..])
    }

    fn encoded(frame: &Frame) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        out.to_vec()
    }

    #[test]
    fn both_encodings_are_read_and_nothing_is_mistaken() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let mut bytes = encoded(&response(encoding));
            let length = bytes.len();
            bytes.extend_from_slice(&[0, 0]);
            let (answer, used) = next(&bytes).unwrap().unwrap();
            assert_eq!((used, needed(&bytes)), (length, length));
            assert_eq!((answer.code, answer.opaque, answer.is_response), (-7, 1_000_000_123, true));
            assert_eq!(answer.body, b"payload");
            assert_eq!(answer.number("queueOffset"), Some(1234));
            let text = |key| answer.with_text(key, |text| Some(text.to_owned()));
            assert_eq!(text("msgId").as_deref(), Some("7F00000100002A9F0000000000000042"));
            assert_eq!(text("odd").as_deref(), Some("a\"b"));
            assert_eq!(text("none"), None);
            assert!(answer.frame().unwrap().remark.unwrap().starts_with("busy"));
        }
    }

    #[test]
    fn a_request_of_the_broker_is_told_from_an_answer() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let bytes = encoded(&Frame { encoding, opaque: 3, ..Frame::request(39) });
            let (answer, _) = next(&bytes).unwrap().unwrap();
            assert_eq!((answer.code, answer.opaque, answer.is_response), (39, 3, false));
        }
    }

    #[test]
    fn keys_in_another_order_are_read_by_the_full_decoder() {
        let header = br#"{"version":1,"opaque":1000000001,"flag":1,"language":"JAVA","code":14,"extFields":{"k":"v"}}"#;
        let mut bytes = ((header.len() + 4) as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes.extend_from_slice(header);
        let (answer, _) = next(&bytes).unwrap().unwrap();
        assert_eq!((answer.code, answer.opaque, answer.is_response), (14, 1_000_000_001, true));
    }

    #[test]
    fn what_is_cut_off_waits_and_what_is_no_frame_is_refused() {
        let bytes = encoded(&response(HeaderEncoding::Json));
        for end in 0..bytes.len() {
            assert!(next(&bytes[..end]).unwrap().is_none());
        }
        for bad in [[0, 0, 0, 3, 0, 0, 0, 0], [0, 0, 0, 4, 9, 0, 0, 0], [0, 0, 0, 4, 0, 0, 0, 1], [0xFF; 8]] {
            assert!(next(&bad).is_err(), "{bad:?}");
        }
    }
}
