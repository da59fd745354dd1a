//! Where a row is, and what a script answers about it.

use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::calendar::CalendarTime;

use crate::outbox::row::{OutboxRow, OutboxState, SLOTS, Work};

/// The last time that is shown as one, in milliseconds since 1970: the end of the year 9999.
const LATEST: i64 = 253_402_300_799_999;

/// Each slot counts its own rows; ids are numbers of all of them.
pub(super) fn id(slot: i64, seq: i64) -> i64 {
    seq * SLOTS + slot
}

/// Slot and number in it. No row has the number 0, which is that of ids that cannot be.
pub(super) fn place(id: i64) -> (i64, i64) {
    (id.max(0) % SLOTS, id.max(0) / SLOTS)
}

/// What a script answers about rows: its time, and what it reads of each.
pub(super) type Answer = (i64, Vec<Vec<Option<Vec<u8>>>>);

/// A row, for a relay and for a person.
pub(super) struct Seen {
    pub(super) work: Work,
    state: OutboxState,
    last_error: String,
    created_ms: i64,
    changed_ms: i64,
}

impl Seen {
    pub(super) fn all((now, rows): Answer) -> impl Iterator<Item = Seen> {
        rows.into_iter().map(move |cells| Seen::of(cells, now))
    }

    /// In the order of the scripts. What somebody else has written may make it a row that cannot be sent, and fails.
    fn of(cells: Vec<Option<Vec<u8>>>, now: i64) -> Seen {
        let mut cells = cells.into_iter().map(Option::unwrap_or_default);
        let mut bytes = || cells.next().unwrap_or_default();
        let (slot, seq) = (number(&bytes()), number(&bytes()));
        let state = OutboxState::from_word(&text(&bytes())).unwrap_or(OutboxState::Waiting);
        // No message is empty.
        let body = Some(bytes()).filter(|body| !body.is_empty()).map(Bytes::from);
        let (topic, key, unique_id) = (text(&bytes()), text(&bytes()), text(&bytes()));
        let (flag, properties, row_bytes) = (number(&bytes()), text(&bytes()), number(&bytes()));
        let (created_ms, attempts, last_error) = (number(&bytes()), number(&bytes()), text(&bytes()));
        let changed_ms = number(&bytes()).max(created_ms);
        let work = Work {
            id: id(slot, seq),
            slot,
            topic,
            key,
            unique_id,
            flag,
            properties,
            body,
            bytes: row_bytes,
            attempts,
            age_ms: now.saturating_sub(created_ms).max(0),
        };
        Seen { work, state, last_error, created_ms, changed_ms }
    }
}

impl From<Seen> for OutboxRow {
    fn from(seen: Seen) -> OutboxRow {
        let work = seen.work;
        OutboxRow {
            id: work.id,
            state: seen.state,
            tenant: String::new(),
            topic: work.topic,
            key: work.key,
            unique_id: work.unique_id,
            bytes: work.bytes.unsigned_abs(),
            attempts: u32::try_from(work.attempts).unwrap_or(u32::MAX),
            last_error: seen.last_error,
            created_at: shown(seen.created_ms),
            changed_at: shown(seen.changed_ms),
            age: Duration::from_millis(work.age_ms.unsigned_abs()),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(bytes: &[u8]) -> i64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A time in UTC, as the databases write it.
fn shown(millis: i64) -> String {
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(millis.clamp(0, LATEST));
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_one_place() {
        for (slot, seq) in [(0, 1), (127, 1), (5, 1 << 50)] {
            assert_eq!(place(id(slot, seq)), (slot, seq));
        }
    }

    #[test]
    fn what_a_script_answers_is_a_row() {
        let cells = ["7", "3", "failed", "", "T", "k", "u", "-2", "{}", "9", "60000", "2", "too large", "61000"];
        let cells = cells.map(|cell| Some(cell.as_bytes().to_vec())).to_vec();
        let seen = Seen::of(cells, 62_000);
        assert_eq!((seen.work.slot, seen.work.flag, &seen.work.body, seen.work.age_ms), (7, -2, &None, 2000));
        let row = OutboxRow::from(seen);
        assert_eq!((row.id, row.state, row.attempts, row.bytes), (3 * SLOTS + 7, OutboxState::Failed, 2, 9));
        assert_eq!(
            (row.created_at.as_str(), row.changed_at.as_str()),
            ("1970-01-01 00:01:00.000", "1970-01-01 00:01:01.000")
        );
        // A new row has no state of its own, and a damaged one is still one.
        let new = OutboxRow::from(Seen::of(vec![Some(b"7".to_vec()), Some(b"3".to_vec()), None], 1));
        assert_eq!((new.state, new.topic.as_str(), new.attempts), (OutboxState::Waiting, "", 0));
    }
}
