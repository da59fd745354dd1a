//! Which bytes retention must keep although they are in no queue: those of half messages and of messages that wait.
//!
//! A half lies where its id says until it is moved, so the half table itself is the pin of all that never were moved: of
//! those from a mark on. Moved halves and all timers have a row here, by position.

use bytes::BufMut;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::reader::IndexReader;
use super::table;
use crate::terms::{Cursor, PinOwner, Position};

/// Keeps the bytes at a position.
pub(crate) fn put(batch: &mut IndexBatch, position: Position, owner: PinOwner) {
    let mut value = Vec::with_capacity(9);
    let (kind, number) = owner.parts();
    value.put_u8(kind);
    value.put_u64(number);
    batch.put_new(table::key1(table::PIN, position.get()), value);
}

/// Lets them go.
pub(crate) fn delete(batch: &mut IndexBatch, position: Position) {
    batch.delete(table::key1(table::PIN, position.get()));
}

/// Calls `each` with the pins of this table from `from` on and below `upto`, lowest position first, until it says stop.
pub(crate) fn scan(
    index: &IndexReader,
    from: Position,
    upto: Position,
    mut each: impl FnMut(Position, PinOwner) -> bool,
) -> Result<(), IndexError> {
    let low = table::key1(table::PIN, from.get());
    let high = table::key1(table::PIN, upto.get());
    for row in index.scan(&low, &high) {
        let (key, value) = row?;
        let mut cursor = Cursor::new(&value);
        let mut read = || {
            let (kind, number) = (cursor.u8("pin kind")?, cursor.u64("pin owner")?);
            PinOwner::from_parts(kind, number).ok_or_else(|| cursor.malformed("pin kind"))
        };
        let owner = read().map_err(IndexError::row(table::PIN))?;
        if !each(Position(table::number_of_key1(&key).unwrap_or_default()), owner) {
            break;
        }
    }
    Ok(())
}
