//! Looking at rows one by one, without asking for anything: what `escrowmq fsck` does.

use super::error::IndexError;
use super::half::{HalfRow, Repeat};
use super::producer::ProducerRow;
use super::queue::{self, QueueEntry};
use super::timer::{self, TimerRow};
use super::{decision, meta, offset, table};
use crate::terms::{HalfId, Malformed, Position, QueueId, Stamp};

/// Where the bytes lie that a row points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Log position of the first byte.
    pub from: Position,
    /// Log position after the last one.
    pub upto: Position,
}

/// Decodes a row, and calls `points_at` with each message that it points at.
pub(crate) fn row(key: &[u8], value: &[u8], mut points_at: impl FnMut(Extent)) -> Result<(), IndexError> {
    let Some(&letter) = key.first() else { return Ok(()) };
    let wrong = IndexError::row(letter);
    let extent = |from: Position, length: u32| Extent { from, upto: from.saturating_advance(length.into()) };
    match letter {
        table::QUEUE => entries(key, value, |_, entry| points_at(extent(entry.position, entry.length)))?,
        table::HALF => {
            let id = table::number_of_key1(key).ok_or_else(|| wrong(Malformed { what: "half key", at: 0 }))?;
            let row = HalfRow::decode(HalfId(id), value).map_err(wrong)?;
            points_at(extent(row.position, row.length));
        }
        table::TIMER => {
            let row = TimerRow::decode(key, value).map_err(wrong)?;
            points_at(extent(row.position, row.length));
        }
        table::DECISION => decision::verify(value).map_err(wrong)?,
        table::PRODUCERS => drop(ProducerRow::decode(key, value).map_err(wrong)?),
        table::REPEAT => drop(Repeat::decode(value).map_err(wrong)?),
        table::LOCK => drop(offset::decode_lock(value)?),
        table::OFFSET if value.len() != 8 => return Err(wrong(Malformed { what: "offset", at: 0 })),
        table::FIRED => drop(timer::decode_fired(value).map_err(wrong)?),
        table::META => meta::verify(key, value)?,
        // Everything else is a key and nothing more, or looked at by nobody but its reader.
        _ => {}
    }
    Ok(())
}

/// Whether a row of the table of repeated halves means nothing any more at `now`.
pub(crate) fn is_ended_repeat(value: &[u8], now: Stamp) -> bool {
    Repeat::decode(value).is_ok_and(|repeat| repeat.has_ended(now))
}

/// Calls `each` with the entries of a row of the queue table.
pub(crate) fn entries(key: &[u8], value: &[u8], mut each: impl FnMut(QueueId, QueueEntry)) -> Result<(), IndexError> {
    let wrong = IndexError::row(table::QUEUE);
    let id = key.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let id = QueueId(id.ok_or_else(|| wrong(Malformed { what: "page key", at: 0 }))?);
    let page = queue::Page::decode(key, value).map_err(&wrong)?;
    page.entries(|entry| {
        each(id, entry);
        true
    })
    .map_err(wrong)?;
    Ok(())
}
