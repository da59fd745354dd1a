//! Reads the binary header (type 1).

use std::borrow::Cow;

use super::{FLAG_RESPONSE, Fields, Frame, FrameError, HeaderEncoding, Language};

/// Decodes a binary header. Bytes that are no UTF-8 are replaced by U+FFFD, as the Java side does.
pub(super) fn decode(header: &[u8]) -> Result<Frame, FrameError> {
    let mut reader = Reader { rest: header };
    let code = i32::from(i16::from_be_bytes(reader.array("code")?));
    let [language] = reader.array("language")?;
    let version = i32::from(i16::from_be_bytes(reader.array("version")?));
    let opaque = i32::from_be_bytes(reader.array("opaque")?);
    let flag = i32::from_be_bytes(reader.array("flag")?);
    let remark = reader.long_bytes("remark")?;
    let ext = reader.long_bytes("ext fields")?;
    // Bytes after the ext block are ignored: a later release may put something there.
    Ok(Frame {
        code: if flag & FLAG_RESPONSE == 0 { request_code(code) } else { code },
        language: Language::from_code(language),
        version,
        opaque,
        flag,
        remark: if remark.is_empty() { None } else { Some(text(remark).into_owned()) },
        fields: decode_fields(ext)?,
        body: bytes::Bytes::new(),
        encoding: HeaderEncoding::Binary,
    })
}

fn decode_fields(ext: &[u8]) -> Result<Fields, FrameError> {
    let mut fields = Fields::with_text_capacity(ext.len());
    let mut reader = Reader { rest: ext };
    while !reader.rest.is_empty() {
        let key = reader.short_bytes("field key")?;
        let value = reader.long_bytes("field value")?;
        let pair = fields.text_mut();
        pair.push_str(&text(key));
        let key_end = pair.len();
        pair.push_str(&text(value));
        fields.close_pair(key_end)?;
    }
    Ok(fields)
}

/// The request code that was meant: codes above 32767 do not fit into the header and arrive cut to 16 bits.
fn request_code(code: i32) -> i32 {
    match code {
        3442..=3448 | 3543 => code + 3 * 65536,
        other => other,
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Reads from the front of a slice; running over its end is an error that names the field.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FrameError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(FrameError::Binary(what))?;
        self.rest = rest;
        Ok(*head)
    }

    /// Bytes after an i16 length.
    fn short_bytes(&mut self, what: &'static str) -> Result<&'a [u8], FrameError> {
        let length = i16::from_be_bytes(self.array(what)?);
        self.bytes(usize::try_from(length).map_err(|_| FrameError::Binary(what))?, what)
    }

    /// Bytes after an i32 length.
    fn long_bytes(&mut self, what: &'static str) -> Result<&'a [u8], FrameError> {
        let length = i32::from_be_bytes(self.array(what)?);
        self.bytes(usize::try_from(length).map_err(|_| FrameError::Binary(what))?, what)
    }

    fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], FrameError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(FrameError::Binary(what))?;
        self.rest = rest;
        Ok(head)
    }
}
