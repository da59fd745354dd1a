//! From the first version of the index to the second.
//!
//! Version 1 had a row for each decision and one more to find it by age, and likewise two for each half that is recognised
//! when it is repeated. Nothing is served while they are written anew; a crash in between leaves version 1, and the next
//! start begins again.

use std::collections::HashMap;

use super::decision::DecisionRow;
use super::format::{self, INDEX_FORMAT};
use super::half::{self, Repeat};
use super::meta::{self, Sequences};
use super::store::{FLUSH_BYTES, Index, IndexBatch, IndexError};
use super::table::{self, numbers_of_key2};
use crate::shard::{Cursor, Malformed};

/// `group, topic, unique id` -> half id and body checksum.
const OPEN: u8 = b'O';
/// `end of window u64, half id u64` -> the `OPEN` key.
const OPEN_END: u8 = b'W';
/// `half id u64` -> how it was decided.
const DECISION: u8 = b'D';
/// `decided at u64, half id u64` -> ().
const DECISION_AGE: u8 = b'E';

/// Brings an index of version 1 up to date.
pub(super) fn from_first(index: &Index) -> Result<(), IndexError> {
    tracing::info!("the index is of version 1 and is brought up to version {INDEX_FORMAT}");
    // What an attempt left that was cut short.
    let mut batch = IndexBatch::default();
    for table in [table::REPEAT, table::DECISION] {
        batch.delete_range([table], [table + 1]);
    }
    index.write(batch);
    repeats(index)?;
    let sequences = decisions(index, meta::sequences(index)?)?;
    let mut batch = IndexBatch::default();
    for table in [OPEN, OPEN_END, DECISION, DECISION_AGE] {
        batch.delete_range([table], [table + 1]);
    }
    meta::put_sequences(&mut batch, &sequences);
    format::put(&mut batch);
    index.write(batch);
    index.flush()
}

fn repeats(index: &Index) -> Result<(), IndexError> {
    let mut ends = HashMap::new();
    for row in index.scan(&[OPEN_END], &[OPEN_END + 1]) {
        let (end, half) = numbers_of_key2(&row?.0).unwrap_or_default();
        ends.insert(half, end);
    }
    for row in index.scan(&[OPEN], &[OPEN + 1]) {
        let (key, value) = row?;
        let read = || -> Result<(half::RepeatKey, Repeat), Malformed> {
            let (mut key, mut value) = (Cursor::new(&key[1..]), Cursor::new(&value));
            let key = half::repeat_key(key.text("group")?, key.text("topic")?, key.text("unique id")?);
            let (half, body_crc) = (value.u64("half")?, value.u32("body crc")?);
            Ok((key, Repeat { half, body_crc, ends: ends.get(&half).copied().unwrap_or_default() }))
        };
        let (key, repeat) = read().map_err(IndexError::row(OPEN))?;
        let mut batch = IndexBatch::default();
        repeat.put(key, &mut batch);
        write(index, batch)?;
    }
    Ok(())
}

fn decisions(index: &Index, mut sequences: Sequences) -> Result<Sequences, IndexError> {
    for row in index.scan(&[DECISION], &[DECISION + 1]) {
        let (key, value) = row?;
        let half = table::number_of_key1(&key).unwrap_or_default();
        let row = decision(&value).map_err(IndexError::row(DECISION))?;
        let mut batch = IndexBatch::default();
        row.put(half, sequences.decisions, &mut batch);
        sequences.decisions += 1;
        sequences.decided_at = sequences.decided_at.max(row.at);
        write(index, batch)?;
    }
    Ok(sequences)
}

fn decision(value: &[u8]) -> Result<DecisionRow, Malformed> {
    let mut row = Cursor::new(value);
    if row.u8("decision version")? != 1 {
        return Err(row.malformed("decision version"));
    }
    DecisionRow::read(&mut row)
}

/// Memory stays bounded, however many rows there are.
fn write(index: &Index, batch: IndexBatch) -> Result<(), IndexError> {
    index.write(batch);
    if index.unflushed_bytes() >= FLUSH_BYTES { index.flush() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::super::decision;
    use super::*;
    use crate::shard::{Decision, put_text};

    #[test]
    fn rows_of_the_first_version_say_the_same_afterwards() {
        let index = Index::in_memory().expect("an index");
        let mut batch = IndexBatch::default();
        for half in 0..300_u64 {
            let open = table::key_of_texts(OPEN, &["group", "topic", &format!("id {half}")]);
            let mut value = half.to_be_bytes().to_vec();
            value.put_u32(7);
            batch.put(&open, value);
            if half >= 200 {
                continue;
            }
            batch.put(table::key2(OPEN_END, 60_000 + half, half), open);
            let mut value = vec![1, 8];
            value.put_u32(3);
            value.put_u8(u8::from(half % 2 == 0));
            value.put_u64(half);
            value.put_u64(half + 1);
            value.put_u64(1000 - half);
            for text in ["group", "operator", ""] {
                put_text(&mut value, text);
            }
            value[1] = Decision::Commit as u8;
            batch.put(table::key1(DECISION, half), value);
            batch.put(table::key2(DECISION_AGE, 1000 - half, half), Vec::new());
        }
        // The very first had no version.
        meta::put_applied(&mut batch, meta::Applied { term: 1, index: 9, end: 99, stamp: 1000 });
        index.write(batch);
        // An attempt that was cut short.
        repeats(&index).expect("begun");
        decisions(&index, Sequences::default()).expect("begun");
        format::update(&index).expect("converted");
        let mut decided = Vec::new();
        decision::for_all(&index, |half, row| decided.push((half, row))).expect("readable");
        assert_eq!(decided.len(), 200);
        for (half, row) in decided {
            assert_eq!(row.offset, (half % 2 == 0).then_some(half));
            assert_eq!((row.counter, row.at, row.by.as_str()), (half + 1, 1000 - half, "operator"));
            assert_eq!(decision::get(&index, half).expect("readable"), Some(row));
        }
        for half in 0..300 {
            let key = half::repeat_key("group", "topic", &format!("id {half}"));
            let ends = if half < 200 { 60_000 + half } else { 0 };
            assert_eq!(half::get_repeat(&index, key).expect("readable"), Some(Repeat { half, body_crc: 7, ends }));
        }
        let sequences = meta::sequences(&index).expect("readable");
        assert_eq!((sequences.decisions, sequences.decided_at), (200, 1000));
        assert_eq!(format::version(&index).expect("readable"), Some(INDEX_FORMAT));
        for table in [OPEN, OPEN_END, DECISION, DECISION_AGE] {
            assert_eq!(index.scan(&[table], &[table + 1]).count(), 0);
        }
    }
}
