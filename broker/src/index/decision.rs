//! How transactions were decided, for as long as it is remembered.

use bytes::{BufMut, BytesMut};

use super::store::{Index, IndexBatch, IndexError};
use super::table;
use crate::shard::{Cursor, Decision, Malformed, QueueId, put_text};

const VERSION: u8 = 1;

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// Commit or rollback.
    pub decision: Decision,
    /// The real queue.
    pub queue: QueueId,
    /// Queue offset, if it was committed and is visible.
    pub offset: Option<u64>,
    /// The half's dense counter.
    pub counter: u64,
    /// When it was decided, in milliseconds since 1970.
    pub at: u64,
    /// The producer group.
    pub group: String,
    /// Who decided, for an operator.
    pub by: String,
    /// Why, for an operator.
    pub reason: String,
}

impl DecisionRow {
    /// Writes the decision and the row by which it is forgotten.
    pub fn put(&self, half: u64, batch: &mut IndexBatch) {
        let mut out = BytesMut::with_capacity(48 + self.group.len());
        out.put_u8(VERSION);
        out.put_u8(self.decision as u8);
        out.put_u32(self.queue.0);
        out.put_u8(u8::from(self.offset.is_some()));
        out.put_u64(self.offset.unwrap_or_default());
        out.put_u64(self.counter);
        out.put_u64(self.at);
        for text in [&self.group, &self.by, &self.reason] {
            put_text(&mut out, text);
        }
        batch.put(table::key1(table::DECISION, half), &out);
        batch.put(table::key2(table::DECISION_AGE, self.at, half), []);
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut row = Cursor::new(value);
        if row.u8("decision version")? != VERSION {
            return Err(row.malformed("decision version"));
        }
        let decision = Decision::from_u8(row.u8("decision")?).ok_or_else(|| row.malformed("decision"))?;
        let queue = QueueId(row.u32("queue")?);
        let visible = row.u8("offset flag")? != 0;
        let offset = row.u64("offset")?;
        Ok(Self {
            decision,
            queue,
            offset: visible.then_some(offset),
            counter: row.u64("counter")?,
            at: row.u64("at")?,
            group: row.text("group")?.to_owned(),
            by: row.text("by")?.to_owned(),
            reason: row.text("reason")?.to_owned(),
        })
    }
}

/// How a half was decided, if it was and that is remembered.
pub fn get(index: &Index, half: u64) -> Result<Option<DecisionRow>, IndexError> {
    index
        .get(table::key1(table::DECISION, half))?
        .map(|value| DecisionRow::decode(&value).map_err(IndexError::row(table::DECISION)))
        .transpose()
}

/// Forgets up to `limit` decisions made before `before`; says how many.
pub fn expire(index: &Index, batch: &mut IndexBatch, before: u64, limit: usize) -> Result<u32, IndexError> {
    let low = table::key2(table::DECISION_AGE, 0, 0);
    let high = table::key2(table::DECISION_AGE, before, 0);
    let mut forgotten = 0;
    for row in index.scan(&low, &high).take(limit) {
        let (key, _) = row?;
        if let Some((_, half)) = table::numbers_of_key2(&key) {
            batch.delete(table::key1(table::DECISION, half));
        }
        batch.delete(&key);
        forgotten += 1;
    }
    Ok(forgotten)
}

/// When the oldest decision that is remembered was made, in milliseconds since 1970.
pub fn oldest(index: &Index) -> Result<Option<u64>, IndexError> {
    let row = index.scan_prefix(&[table::DECISION_AGE], &[table::DECISION_AGE]).next().transpose()?;
    Ok(row.and_then(|(key, _)| table::numbers_of_key2(&key)).map(|(at, _)| at))
}
