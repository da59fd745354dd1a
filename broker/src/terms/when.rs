//! When messages become visible.

use bytes::BufMut;

use super::{Cursor, Malformed, Stamp};

/// When a message becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At apply.
    Now,
    /// This many milliseconds after the batch's stamp.
    After(u64),
    /// At this time.
    At(Stamp),
}

/// Appends it to a row or record.
pub fn put_when(out: &mut impl BufMut, when: When) {
    let (kind, value) = match when {
        When::Now => (0, 0),
        When::After(millis) => (1, millis),
        When::At(time) => (2, time.get()),
    };
    out.put_u8(kind);
    out.put_u64(value);
}

/// Reads what [`put_when`] wrote.
pub fn get_when(body: &mut Cursor<'_>) -> Result<When, Malformed> {
    let kind = body.u8("when")?;
    let value = body.u64("when")?;
    match kind {
        0 => Ok(When::Now),
        1 => Ok(When::After(value)),
        2 => Ok(When::At(Stamp(value))),
        _ => Err(body.malformed("when")),
    }
}
