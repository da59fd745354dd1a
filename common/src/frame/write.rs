//! Writes frames: a whole [`Frame`](super::Frame), or a response straight from its parts.

use std::fmt::{self, Display, Write as _};

use bytes::{BufMut, BytesMut};

use super::{FLAG_RESPONSE, FrameError, HeaderEncoding, Language, MAX_FRAME_LEN, WIRE_VERSION, scan};

/// The fixed part of a header.
pub(super) struct Head<'a> {
    pub(super) encoding: HeaderEncoding,
    pub(super) code: i32,
    pub(super) language: Language,
    pub(super) version: i32,
    pub(super) opaque: i32,
    pub(super) flag: i32,
    pub(super) remark: Option<&'a str>,
}

/// The fixed part of a response, taken from its request and from the outcome.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Encoding of the request.
    pub encoding: HeaderEncoding,
    /// Opaque of the request.
    pub opaque: i32,
    /// Response code.
    pub code: i32,
    /// Text for humans.
    pub remark: Option<&'a str>,
}

/// Appends a response to `out` without building a frame: the body parts are copied once, nothing is allocated beyond
/// `out` itself. A response above [`MAX_FRAME_LEN`] is replaced by a system error that says so.
pub fn write_response(
    out: &mut BytesMut,
    head: ResponseHead<'_>,
    fields: impl FnOnce(&mut FieldWriter<'_>),
    body: &[&[u8]],
) {
    let head = Head {
        encoding: head.encoding,
        code: head.code,
        language: Language::JAVA,
        version: WIRE_VERSION,
        opaque: head.opaque,
        flag: FLAG_RESPONSE,
        remark: head.remark,
    };
    if let Err(error) = write_frame(out, &head, fields, body) {
        let remark = error.to_string();
        let head = Head { code: crate::code::response::SYSTEM_ERROR, remark: Some(&remark), ..head };
        write_frame(out, &head, |_| {}, &[]).expect("a response without fields and body fits");
    }
}

/// Appends a frame to `out`; leaves `out` as it was if the frame would be too long.
pub(super) fn write_frame(
    out: &mut BytesMut,
    head: &Head<'_>,
    fields: impl FnOnce(&mut FieldWriter<'_>),
    body: &[&[u8]],
) -> Result<(), FrameError> {
    let body_len: usize = body.iter().map(|part| part.len()).sum();
    if body_len > MAX_FRAME_LEN {
        return Err(FrameError::TooLong { length: body_len as u64, limit: MAX_FRAME_LEN });
    }
    out.reserve(8 + 256 + body_len);
    write_head(out, head, fields, body_len, MAX_FRAME_LEN)?;
    for part in body {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// Appends all of a frame that stands in front of its body; leaves `out` as it was if the frame would be longer than `limit`.
pub(super) fn write_head(
    out: &mut BytesMut,
    head: &Head<'_>,
    fields: impl FnOnce(&mut FieldWriter<'_>),
    body_len: usize,
    limit: usize,
) -> Result<(), FrameError> {
    let start = out.len();
    out.put_u64(0);
    match head.encoding {
        HeaderEncoding::Json => write_json(out, head, fields),
        HeaderEncoding::Binary => write_binary(out, head, fields),
    }
    let header_len = out.len() - start - 8;
    let whole = 8 + header_len + body_len;
    // The header length has 24 bits: what no frame of a client exceeds, no header does either.
    if whole > limit || header_len >= MAX_FRAME_LEN {
        out.truncate(start);
        return Err(FrameError::TooLong { length: whole as u64, limit });
    }
    let kind: u32 = match head.encoding {
        HeaderEncoding::Json => 0,
        HeaderEncoding::Binary => 1 << 24,
    };
    out[start..start + 4].copy_from_slice(&(whole as u32 - 4).to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&(kind | header_len as u32).to_be_bytes());
    Ok(())
}

/// Keys in the order in which Java writes them; absent things are left out.
fn write_json(out: &mut BytesMut, head: &Head<'_>, fields: impl FnOnce(&mut FieldWriter<'_>)) {
    out.extend_from_slice(b"{\"code\":");
    put_decimal(out, i64::from(head.code));
    let mut writer = FieldWriter { out, encoding: HeaderEncoding::Json, count: 0 };
    fields(&mut writer);
    if writer.count > 0 {
        out.put_u8(b'}');
    }
    out.extend_from_slice(b",\"flag\":");
    put_decimal(out, i64::from(head.flag));
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(head.language.name().as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    put_decimal(out, i64::from(head.opaque));
    if let Some(remark) = head.remark {
        out.extend_from_slice(b",\"remark\":\"");
        put_escaped(out, remark);
        out.put_u8(b'"');
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_decimal(out, i64::from(head.version));
    out.put_u8(b'}');
}

/// Codes above 32767 are cut to 16 bits, as every binary writer does.
fn write_binary(out: &mut BytesMut, head: &Head<'_>, fields: impl FnOnce(&mut FieldWriter<'_>)) {
    out.put_i16(head.code as i16);
    out.put_u8(head.language.code());
    out.put_i16(head.version as i16);
    out.put_i32(head.opaque);
    out.put_i32(head.flag);
    let remark = head.remark.unwrap_or_default();
    out.put_i32(remark.len() as i32);
    out.extend_from_slice(remark.as_bytes());
    let ext_start = out.len();
    out.put_i32(0);
    fields(&mut FieldWriter { out, encoding: HeaderEncoding::Binary, count: 0 });
    let ext_len = out.len() - ext_start - 4;
    out[ext_start..ext_start + 4].copy_from_slice(&(ext_len as i32).to_be_bytes());
}

/// Writes the fields of a header straight into an out buffer.
#[derive(Debug)]
pub struct FieldWriter<'a> {
    out: &'a mut BytesMut,
    encoding: HeaderEncoding,
    count: usize,
}

impl FieldWriter<'_> {
    /// A text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.pair(key, |out, encoding| match encoding {
            HeaderEncoding::Json => put_escaped(out, value),
            HeaderEncoding::Binary => out.extend_from_slice(value.as_bytes()),
        });
    }

    /// A number, in decimal.
    pub fn number(&mut self, key: &str, value: impl Into<i64>) {
        self.pair(key, |out, _| put_decimal(out, value.into()));
    }

    /// A boolean, `true` or `false`.
    pub fn boolean(&mut self, key: &str, value: bool) {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.pair(key, |out, _| out.extend_from_slice(text));
    }

    /// Anything that can be formatted, without an intermediate string.
    pub fn display(&mut self, key: &str, value: impl Display) {
        self.pair(key, |out, encoding| match encoding {
            HeaderEncoding::Json => {
                write!(Escaping(out), "{value}").expect("a buffer takes everything");
            }
            HeaderEncoding::Binary => write!(out, "{value}").expect("a buffer takes everything"),
        });
    }

    fn pair(&mut self, key: &str, value: impl FnOnce(&mut BytesMut, HeaderEncoding)) {
        let out = &mut *self.out;
        match self.encoding {
            HeaderEncoding::Json => {
                let opening: &[u8] = if self.count == 0 { b",\"extFields\":{\"" } else { b",\"" };
                out.extend_from_slice(opening);
                put_escaped(out, key);
                out.extend_from_slice(b"\":\"");
                value(out, self.encoding);
                out.put_u8(b'"');
            }
            HeaderEncoding::Binary => {
                // No such key exists; one that does not fit is left out rather than written cut.
                let Ok(key_len) = i16::try_from(key.len()) else {
                    return;
                };
                out.put_i16(key_len);
                out.extend_from_slice(key.as_bytes());
                let start = out.len();
                out.put_i32(0);
                value(out, self.encoding);
                let value_len = out.len() - start - 4;
                out[start..start + 4].copy_from_slice(&(value_len as i32).to_be_bytes());
            }
        }
        self.count += 1;
    }
}

/// Escapes whatever is formatted into it.
struct Escaping<'a>(&'a mut BytesMut);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        put_escaped(self.0, text);
        Ok(())
    }
}

/// Appends text with quotes, backslashes and control characters escaped.
fn put_escaped(out: &mut BytesMut, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let at = scan::special(rest);
        out.extend_from_slice(&rest[..at]);
        let Some(special) = rest.get(at) else { return };
        rest = &rest[at + 1..];
        match *special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 15)]);
            }
        }
    }
}

/// Appends a number in decimal, without the machinery of `format!`.
fn put_decimal(out: &mut BytesMut, value: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}
