//! Everything there is one of: how far the index has applied, counters, topics, groups, settings.

use std::collections::BTreeMap;

use bytes::BufMut;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::batch::IndexBatch;
use super::error::IndexError;
use super::reader::IndexReader;
use super::table;
use crate::terms::{
    Cursor, FIRST_LEVEL, GroupSettings, HalfId, LogIndex, LostRange, Malformed, Position, QueueId, QueueOffset, Stamp,
    TopicSettings, decode_cold, encode_cold, put_text,
};

/// Names of rows that `store` looks at in files.
pub(super) const APPLIED: &str = "applied";
pub(super) const FORGOTTEN: &str = "forgotten";

pub(super) fn key(name: &str) -> Vec<u8> {
    let mut key = vec![table::META];
    key.extend_from_slice(name.as_bytes());
    key
}

const TOPIC: &str = "topic/";
const GROUP: &str = "group/";
const SETTING: &str = "setting/";
const LEVEL: &str = "feature level";

/// How far the index has applied the log. Written in each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Raft term of the last applied entry.
    pub term: u64,
    /// Raft index of the last applied entry.
    pub index: LogIndex,
    /// Log position after it.
    pub end: Position,
    /// The newest stamp that was applied.
    pub stamp: Stamp,
}

/// Counters of the state machine. Written when they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sequences {
    /// The next queue id.
    pub next_queue: u32,
    /// The next half's dense counter.
    pub next_half: u64,
    /// The next number of a message that waits for its time.
    pub next_timer: u64,
    /// Every half up to this id has had its first check scheduled; [`HalfId::ZERO`] is below all of them.
    pub first_checked: HalfId,
    /// Undecided halves that are not parked.
    pub open_halves: u64,
    /// Parked halves.
    pub parked_halves: u64,
    /// Commits, ever.
    pub committed: u64,
    /// Rollbacks, ever.
    pub rolled_back: u64,
    /// Messages that wait for their time.
    pub timers: u64,
    /// The number of the next entry of a page of decisions.
    pub decisions: u64,
    /// When the newest decision was made; `None` if there never was one.
    pub decided_at: Option<Stamp>,
    /// The next number of a producer group.
    pub next_producer: u32,
}

/// Writes how far the index has applied.
pub(crate) fn put_applied(batch: &mut IndexBatch, applied: Applied) {
    let mut value = Vec::with_capacity(32);
    value.put_u64(applied.term);
    value.put_u64(applied.index.get());
    value.put_u64(applied.end.get());
    value.put_u64(applied.stamp.get());
    batch.put(key(APPLIED), value);
}

/// How far the index has applied; `None` for a new one.
pub(crate) fn applied(index: &IndexReader) -> Result<Option<Applied>, IndexError> {
    index.get(key(APPLIED))?.map(|value| decode_applied(&value)).transpose()
}

pub(super) fn decode_applied(value: &[u8]) -> Result<Applied, IndexError> {
    let mut row = Cursor::new(value);
    let mut number = || row.u64(APPLIED).map_err(IndexError::row(table::META));
    Ok(Applied { term: number()?, index: LogIndex(number()?), end: Position(number()?), stamp: Stamp(number()?) })
}

/// Writes the counters.
pub(crate) fn put_sequences(batch: &mut IndexBatch, sequences: &Sequences) {
    let mut value = Vec::with_capacity(96);
    for number in [
        u64::from(sequences.next_queue),
        sequences.next_half,
        sequences.next_timer,
        sequences.first_checked.get(),
        sequences.open_halves,
        sequences.parked_halves,
        sequences.committed,
        sequences.rolled_back,
        sequences.timers,
        sequences.decisions,
        Stamp::to_stored(sequences.decided_at),
        u64::from(sequences.next_producer),
    ] {
        value.put_u64(number);
    }
    batch.put(key("sequences"), value);
}

/// The counters; all 0 for a new index.
pub(crate) fn sequences(index: &IndexReader) -> Result<Sequences, IndexError> {
    let Some(value) = index.get(key("sequences"))? else { return Ok(Sequences::default()) };
    let mut row = Cursor::new(&value);
    let mut number = || row.u64("sequences").map_err(IndexError::row(table::META));
    let id = |number: u64| {
        let too_large =
            |_| IndexError::row(table::META)(Cursor::new(&value).malformed("sequences: a number that no id has"));
        u32::try_from(number).map_err(too_large)
    };
    Ok(Sequences {
        next_queue: id(number()?)?,
        next_half: number()?,
        next_timer: number()?,
        first_checked: HalfId(number()?),
        open_halves: number()?,
        parked_halves: number()?,
        committed: number()?,
        rolled_back: number()?,
        timers: number()?,
        decisions: number()?,
        decided_at: Stamp::from_stored(number()?),
        next_producer: id(number()?)?,
    })
}

/// Writes bytes under a name: membership and the like.
pub(crate) fn put_bytes(batch: &mut IndexBatch, name: &str, bytes: &[u8]) {
    batch.put(key(name), bytes);
}

/// Bytes under a name.
pub(crate) fn bytes(index: &IndexReader, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
    Ok(index.get(key(name))?.map(|value| value.to_vec()))
}

/// A topic as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicRow {
    /// Its settings.
    pub settings: TopicSettings,
    /// Its queues, in the order of their numbers.
    pub queues: Vec<u32>,
}

/// Writes a topic.
pub(crate) fn put_topic(batch: &mut IndexBatch, row: &TopicRow) {
    batch.put(key(&format!("{TOPIC}{}", row.settings.name)), encode_cold(row));
}

/// Removes a topic.
pub(crate) fn delete_topic(batch: &mut IndexBatch, name: &str) {
    batch.delete(key(&format!("{TOPIC}{name}")));
}

/// Writes a group.
pub(crate) fn put_group(batch: &mut IndexBatch, group: &GroupSettings) {
    batch.put(key(&format!("{GROUP}{}", group.name)), encode_cold(group));
}

/// Removes a group.
pub(crate) fn delete_group(batch: &mut IndexBatch, name: &str) {
    batch.delete(key(&format!("{GROUP}{name}")));
}

/// Writes a setting of the group.
pub(crate) fn put_setting(batch: &mut IndexBatch, name: &str, value: &str) {
    batch.put(key(&format!("{SETTING}{name}")), value);
}

/// Writes the feature level of the log.
pub(crate) fn put_level(batch: &mut IndexBatch, level: u32) {
    batch.put(key(LEVEL), level.to_be_bytes());
}

/// The feature level of the log.
pub(crate) fn level(index: &IndexReader) -> Result<u32, IndexError> {
    let Some(value) = index.get(key(LEVEL))? else { return Ok(FIRST_LEVEL) };
    Cursor::new(&value).u32(LEVEL).map_err(IndexError::row(table::META))
}

/// All topics.
pub(crate) fn topics(index: &IndexReader) -> Result<Vec<TopicRow>, IndexError> {
    cold_rows(index, TOPIC)
}

/// All groups.
pub(crate) fn groups(index: &IndexReader) -> Result<Vec<GroupSettings>, IndexError> {
    cold_rows(index, GROUP)
}

/// All settings of the group.
pub(crate) fn settings(index: &IndexReader) -> Result<BTreeMap<String, String>, IndexError> {
    let prefix = key(SETTING);
    let mut settings = BTreeMap::new();
    for row in index.scan_prefix(&prefix, &prefix) {
        let (key, value) = row?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| not_text(&key));
        settings.insert(text(&key[prefix.len()..])?, text(&value)?);
    }
    Ok(settings)
}

fn not_text(key: &[u8]) -> IndexError {
    IndexError::Cold { name: name_of(key), why: "it is no text".to_owned() }
}

/// The name in a key of this table.
fn name_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned()
}

fn cold_rows<T: DeserializeOwned>(index: &IndexReader, prefix: &str) -> Result<Vec<T>, IndexError> {
    let prefix = key(prefix);
    let mut rows = Vec::new();
    for row in index.scan_prefix(&prefix, &prefix) {
        let (key, value) = row?;
        rows.push(decode_cold(&value).map_err(|why| IndexError::Cold { name: name_of(&key), why })?);
    }
    Ok(rows)
}

/// How far retention has come. Written by the commands that move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    /// Bytes below this log position may be deleted: none of them before the first trim.
    pub trimmed: Position,
    /// Every half with an id below this one was moved, if it is still undecided.
    pub moved_halves: HalfId,
}

/// Writes how far retention has come.
pub(crate) fn put_kept(batch: &mut IndexBatch, kept: Kept) {
    let mut value = Vec::with_capacity(16);
    value.put_u64(kept.trimmed.get());
    value.put_u64(kept.moved_halves.get());
    batch.put(key("kept"), value);
}

/// How far retention has come: nowhere in a new index.
pub(crate) fn kept(index: &IndexReader) -> Result<Kept, IndexError> {
    let Some(value) = index.get(key("kept"))? else { return Ok(Kept::default()) };
    let mut row = Cursor::new(&value);
    let mut number = || row.u64("kept").map_err(IndexError::row(table::META));
    Ok(Kept { trimmed: Position(number()?), moved_halves: HalfId(number()?) })
}

/// In front of the log position where a lost range begins.
const LOST: &str = "lost/";

/// Writes a range of the log that was given up.
pub(crate) fn put_lost(batch: &mut IndexBatch, range: &LostRange) {
    let mut key = key(LOST);
    key.extend_from_slice(&range.positions.start.get().to_be_bytes());
    let mut value = Vec::with_capacity(32 + range.by.len() + range.why.len());
    for number in [range.positions.end.get(), range.messages, range.at.get()] {
        value.put_u64(number);
    }
    put_text(&mut value, &range.by);
    put_text(&mut value, &range.why);
    batch.put(key, value);
}

/// All ranges of the log that were given up, in the order of the times when they were.
pub(crate) fn lost_ranges(index: &IndexReader) -> Result<Vec<LostRange>, IndexError> {
    let prefix = key(LOST);
    let mut ranges = Vec::new();
    for row in index.scan_prefix(&prefix, &prefix) {
        let (key, value) = row?;
        let range = decode_lost(&key[prefix.len()..], &value);
        ranges.push(range.map_err(IndexError::row(table::META))?);
    }
    ranges.sort_by_key(|range| range.at);
    Ok(ranges)
}

fn decode_lost(start: &[u8], value: &[u8]) -> Result<LostRange, Malformed> {
    let mut row = Cursor::new(value);
    let positions = Position(Cursor::new(start).u64("lost from")?)..Position(row.u64("lost upto")?);
    Ok(LostRange {
        positions,
        messages: row.u64("messages")?,
        at: Stamp(row.u64("at")?),
        by: row.text("by")?.to_owned(),
        why: row.text("why")?.to_owned(),
    })
}

/// Lets decisions go that were made before a time.
pub(crate) fn put_forgotten(batch: &mut IndexBatch, before: Stamp) {
    batch.put(key(FORGOTTEN), before.get().to_be_bytes());
}

/// Decisions that were made before this time are forgotten; `None` while none is.
pub(crate) fn forgotten(index: &IndexReader) -> Result<Option<Stamp>, IndexError> {
    let Some(value) = index.get(key(FORGOTTEN))? else { return Ok(None) };
    let before = Cursor::new(&value).u64("forgotten").map_err(IndexError::row(table::META))?;
    Ok(Some(Stamp(before)))
}

/// Decodes a row of this table as its reader would.
pub(super) fn verify(key: &[u8], value: &[u8]) -> Result<(), IndexError> {
    let name = name_of(key);
    let decoded = match name.as_str() {
        topic if topic.starts_with(TOPIC) => decode_cold::<TopicRow>(value).map(drop),
        group if group.starts_with(GROUP) => decode_cold::<GroupSettings>(value).map(drop),
        setting if setting.starts_with(SETTING) => std::str::from_utf8(value).map(drop).map_err(|why| why.to_string()),
        LEVEL if value.len() != 4 => Err(format!("{} bytes instead of 4", value.len())),
        "applied" if value.len() < 32 => Err(format!("{} bytes instead of 32", value.len())),
        _ => Ok(()),
    };
    decoded.map_err(|why| IndexError::Cold { name, why })
}

/// Key of the queue's ends, kept where pages cannot tell them: after all pages were trimmed.
fn ends_key(queue: QueueId) -> Vec<u8> {
    let mut key = key("ends/");
    key.extend_from_slice(&queue.0.to_be_bytes());
    key
}

/// Writes the ends of a queue.
pub(crate) fn put_ends(batch: &mut IndexBatch, queue: QueueId, min: QueueOffset, max: QueueOffset) {
    let mut value = Vec::with_capacity(16);
    value.put_u64(min.get());
    value.put_u64(max.get());
    batch.put(ends_key(queue), value);
}

/// Calls `each` with every queue that a trim left its ends of.
pub(crate) fn for_all_ends(
    index: &IndexReader,
    mut each: impl FnMut(QueueId, QueueOffset, QueueOffset),
) -> Result<(), IndexError> {
    let prefix = key("ends/");
    for row in index.scan_prefix(&prefix, &prefix) {
        let (key, value) = row?;
        let (mut id, mut row) = (Cursor::new(&key[prefix.len()..]), Cursor::new(&value));
        let mut ends =
            || Ok((QueueId(id.u32("queue of ends")?), QueueOffset(row.u64("ends")?), QueueOffset(row.u64("ends")?)));
        let (queue, min, max) = ends().map_err(IndexError::row(table::META))?;
        each(queue, min, max);
    }
    Ok(())
}

/// Removes the ends of a queue.
pub(crate) fn delete_ends(batch: &mut IndexBatch, queue: QueueId) {
    batch.delete(ends_key(queue));
}
