//! Borrowed reading and writing of records and rows: fixed order, big-endian, every length checked before use.

use bytes::BufMut;

/// Bytes that are not what this version wrote: a reader ran past the end, or a tag or length is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} at byte {at}")]
pub struct Malformed {
    /// The name of the field that was being read.
    pub what: &'static str,
    /// Where, counted from the start of the bytes given.
    pub at: usize,
}

/// Reads fields one after the other out of a slice and remembers where it is.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The place of `at` 0 in the caller's coordinates.
    base: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, base: 0 }
    }

    /// A cursor whose [`position`](Self::position) counts from `base`.
    pub fn based(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Where the next field starts.
    pub fn position(&self) -> usize {
        self.base + self.at
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The error for the field at hand.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.position() }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        if count > self.remaining() {
            return Err(self.malformed(what));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A 16-bit number.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// A 32-bit number.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// A 64-bit number.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// Bytes after a 16-bit length.
    pub fn short_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u16(what)?;
        self.take(usize::from(length), what)
    }

    /// Bytes after a 32-bit length.
    pub fn long_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u32(what)?;
        self.take(length as usize, what)
    }

    /// Text after a 16-bit length.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let at = self.position();
        std::str::from_utf8(self.short_bytes(what)?).map_err(|_| Malformed { what, at })
    }
}

/// A part of a command that is longer than it may be. The command was not encoded; the same one never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {length} bytes and may have {limit}: shorten it; a retry of the same ends the same way")]
pub struct TooLong {
    /// Which part.
    pub what: &'static str,
    /// Its bytes.
    pub length: usize,
    /// The most that it may have.
    pub limit: usize,
}

impl TooLong {
    /// Refuses a part of more than `limit` bytes.
    pub fn check(what: &'static str, length: usize, limit: usize) -> Result<(), Self> {
        if length > limit { Err(Self { what, length, limit }) } else { Ok(()) }
    }
}

/// Appends text after a 16-bit length, or nothing if it is longer than `limit`, which is at most 65,535 bytes.
pub fn put_bounded(out: &mut impl BufMut, what: &'static str, text: &str, limit: usize) -> Result<(), TooLong> {
    let length = u16::try_from(text.len()).ok().filter(|length| usize::from(*length) <= limit);
    let limit = limit.min(usize::from(u16::MAX));
    out.put_u16(length.ok_or(TooLong { what, length: text.len(), limit })?);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Appends text that was read from a command or a row, after a 16-bit length: those have room for no more.
///
/// # Panics
/// On a longer text, which no command can hold.
pub fn put_text(out: &mut impl BufMut, text: &str) {
    let length = u16::try_from(text.len()).expect("a text of a command has at most 65,535 bytes");
    out.put_u16(length);
    out.put_slice(text.as_bytes());
}

/// Appends a number, or that there is none.
pub fn put_optional(out: &mut impl BufMut, value: Option<u64>) {
    out.put_u8(u8::from(value.is_some()));
    out.put_u64(value.unwrap_or_default());
}

/// Reads what [`put_optional`] wrote.
pub fn get_optional(body: &mut Cursor<'_>) -> Result<Option<u64>, Malformed> {
    let present = body.u8("flag")? != 0;
    let value = body.u64("value")?;
    Ok(present.then_some(value))
}
