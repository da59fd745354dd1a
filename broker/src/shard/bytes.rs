//! Borrowed reading and writing of the shard's own records: fixed order, big-endian, every length checked before use.

use bytes::BufMut;

/// Bytes that are not what this version wrote: a reader ran past the end, or a tag or length is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} at byte {at}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
    /// Where, counted from the start of the bytes given.
    pub at: usize,
}

/// Reads fields one after the other out of a slice and remembers where it is.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What `at` 0 means in the caller's coordinates.
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

    /// Bytes behind a 16-bit length.
    pub fn short_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u16(what)?;
        self.take(usize::from(length), what)
    }

    /// Bytes behind a 32-bit length.
    pub fn long_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u32(what)?;
        self.take(length as usize, what)
    }

    /// Text behind a 16-bit length.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let at = self.position();
        std::str::from_utf8(self.short_bytes(what)?).map_err(|_| Malformed { what, at })
    }
}

/// Appends bytes behind a 16-bit length. Longer ones are a bug of the caller: every name and note was bounded before.
pub fn put_short_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("names and notes are bounded below 64 KiB where they enter");
    out.put_u16(length);
    out.put_slice(bytes);
}

/// Appends text behind a 16-bit length.
pub fn put_text(out: &mut impl BufMut, text: &str) {
    put_short_bytes(out, text.as_bytes());
}
