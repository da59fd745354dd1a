//! From older versions of the index to the next one.
//!
//! Version 1 had a row for each decision and one more to find it by age, and likewise two for each half that is recognised
//! when it is repeated. Version 2 listed no halves and had no numbers for producer groups. Nothing is served while rows are
//! written anew; a crash in between leaves the older version, and the next start begins again.

use std::collections::HashMap;

use super::decision::DecisionRow;
use super::format::{self, INDEX_FORMAT};
use super::half::{self, Repeat};
use super::meta::{self, Sequences};
use super::producer::ProducerRow;
use super::store::{FLUSH_BYTES, Index, IndexBatch, IndexError};
use super::table::{self, numbers_of_key2};
use crate::shard::{Content, Cursor, Malformed, QueueId};

/// `group, topic, unique id` -> half id and body checksum.
const OPEN: u8 = b'O';
/// `end of window u64, half id u64` -> the `OPEN` key.
const OPEN_END: u8 = b'W';
/// `half id u64` -> how it was decided.
const DECISION: u8 = b'D';
/// `decided at u64, half id u64` -> ().
const DECISION_AGE: u8 = b'E';
/// Halves written anew at once.
const PAGE: usize = 1000;

/// Brings an index of version 1 to version 2.
pub(super) fn from_first(index: &Index) -> Result<(), IndexError> {
    tracing::info!("the index is of version 1 and is brought up to version 2");
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
    format::put(&mut batch, 2);
    index.write(batch);
    index.flush()
}

/// Brings an index of version 2 to version 3.
pub(super) fn from_second(index: &Index) -> Result<(), IndexError> {
    tracing::info!("the index is of version 2 and is brought up to version {INDEX_FORMAT}");
    let mut batch = IndexBatch::default();
    // What an attempt left that was cut short.
    batch.delete_range([table::LISTED], [table::LISTED + 1]);
    index.write(batch);
    let mut topics = HashMap::new();
    for topic in meta::topics(index)? {
        let first = topic.queues.first().copied().unwrap_or_default();
        topics.extend(topic.queues.iter().map(|queue| (*queue, first)));
    }
    let mut sequences = meta::sequences(index)?;
    sequences.next_producer = 0;
    let mut producers: HashMap<String, ProducerRow> = HashMap::new();
    let mut from = 0;
    loop {
        // Page by page: what is scanned is written anew.
        let mut rows = Vec::new();
        half::scan(index, from, |row| {
            rows.push(row);
            rows.len() < PAGE
        })?;
        let Some(last) = rows.last().map(|row| row.half) else { break };
        let mut batch = IndexBatch::default();
        for mut row in rows {
            row.topic = QueueId(topics.get(&row.queue.0).copied().unwrap_or(row.queue.0));
            let producer = producers.entry(row.group.clone()).or_insert_with(|| {
                let id = sequences.next_producer;
                sequences.next_producer += 1;
                ProducerRow { id, open: 0, parked: 0, further: [0, 0], used_at: 0, name: row.group.clone() }
            });
            row.group_id = producer.id;
            let count = if row.parked.is_some() { &mut producer.parked } else { &mut producer.open };
            *count += 1;
            producer.further[usize::from(row.parked.is_some())] += u64::from(row.first_half.is_some());
            producer.used_at = producer.used_at.max(row.prepared_at);
            half::put_converted(&mut batch, &row);
        }
        write(index, batch)?;
        from = last + 1;
    }
    let mut batch = IndexBatch::default();
    for producer in producers.values() {
        producer.put(&mut batch);
    }
    meta::put_sequences(&mut batch, &sequences);
    format::put(&mut batch, INDEX_FORMAT);
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
            let (group, topic, unique_id) = (key.text("group")?, key.text("topic")?, key.text("unique id")?);
            let (half, body_crc) = (value.u64("half")?, value.u32("body crc")?);
            let key = half::repeat_key(group, topic, unique_id, Content::Crc(body_crc));
            Ok((key, Repeat { half, body_crc, ends: ends.get(&half).copied().unwrap_or_default(), place: None }))
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
            let key = half::repeat_key("group", "topic", &format!("id {half}"), Content::Crc(7));
            let ends = if half < 200 { 60_000 + half } else { 0 };
            assert_eq!(
                half::get_repeat(&index, key).expect("readable"),
                Some(Repeat { half, body_crc: 7, ends, place: None })
            );
        }
        let sequences = meta::sequences(&index).expect("readable");
        assert_eq!((sequences.decisions, sequences.decided_at), (200, 1000));
        assert_eq!(format::version(&index).expect("readable"), Some(INDEX_FORMAT));
        for table in [OPEN, OPEN_END, DECISION, DECISION_AGE] {
            assert_eq!(index.scan(&[table], &[table + 1]).count(), 0);
        }
    }
}
