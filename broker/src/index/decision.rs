//! How transactions were decided, for as long as it is remembered.
//!
//! Decisions on halves that lie near each other in the log share pages, because most halves are decided soon. Key of a
//! page: place (half id / 64 KiB), number of its first decision. Value: `version u8 | entries`, an entry being `length u16
//! | half id u64 | decision u8 | queue u32 | flags u8 | offset u64 | counter u64 | decided at u64 | group, by, reason`, of a
//! half that was asked about, parked or resumed `checks u32 | whom checks went to | what operators did`, and of a transaction of
//! several halves `first half u64 (all ones for the first one itself) | further halves u64 each`.
//! Numbers rise with each entry, and of several entries of one half the last one counts: it says where a message went that
//! had to wait for its time.
//!
//! A decision is forgotten by time alone, see [`meta::forgotten`]; its bytes go when RocksDB merges files.

use std::collections::BTreeMap;

use bytes::BufMut;
use escrowmq_common::limits;

use super::batch::IndexBatch;
use super::error::IndexError;
use super::history::{Act, Asked, HISTORY_BYTES_MAX, put_history, read_history};
use super::reader::{IndexReader, after_prefix};
use super::{meta, table};
use crate::terms::{
    Cursor, Decision, HalfId, Malformed, QueueId, QueueOffset, Stamp, TRANSACTION_HALVES_MAX, put_text,
};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1;
/// The bytes that the keys of all pages of a place begin with.
const PLACE_KEY_BYTES: usize = 9;
/// Bytes of an entry in front of its time.
const BEFORE_AT_BYTES: usize = 30;
/// Halves share a place if their ids are equal but for this many low bits.
const PLACE_BITS: u32 = 16;

/// Bytes of a text that is cut so that its decision has room.
const SHORT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an entry beside its texts, history and further halves.
const FIXED_BYTES: usize = 64;
const _: () = assert!(
    FIXED_BYTES
        + limits::NAMED_GROUP_BYTES_MAX
        + limits::OPERATOR_BYTES_MAX
        + limits::REASON_BYTES_MAX
        + HISTORY_BYTES_MAX
        + 8 * TRANSACTION_HALVES_MAX
        <= u16::MAX as usize,
    "a decision on what the limits allow has room"
);
const _: () = assert!(FIXED_BYTES + 3 * SHORT_BYTES_MAX + 8 * TRANSACTION_HALVES_MAX <= u16::MAX as usize);

/// The message is visible, at the offset.
const IS_VISIBLE: u8 = 1;
/// There is a history.
const HAS_HISTORY: u8 = 2;

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// Commit or rollback.
    pub decision: Decision,
    /// The real queue.
    pub queue: QueueId,
    /// Queue offset, if it was committed and is visible.
    pub offset: Option<QueueOffset>,
    /// The half's dense counter.
    pub counter: u64,
    /// When it was decided.
    pub at: Stamp,
    /// The producer group.
    pub group: String,
    /// The operator who decided; else empty.
    pub by: String,
    /// The operator's reason; else empty.
    pub reason: String,
    /// Checks sent before it that counted.
    pub checks: u32,
    /// Whom the last checks went to, the newest at the end.
    pub asked: Vec<Asked>,
    /// The acts of operators on the half before it was decided, the newest at the end.
    pub acts: Vec<Act>,
    /// The first half of the transaction, if this is a further one.
    pub first_half: Option<HalfId>,
    /// The further halves of the transaction, if this is the first one.
    pub members: Vec<HalfId>,
}

impl DecisionRow {
    /// Writes the decision on a half. `number` is higher than that of every entry before.
    pub fn put(&self, half: HalfId, number: u64, batch: &mut IndexBatch) {
        let mut out = self.encode(half);
        if out.len() > HEAD_BYTES + 2 + usize::from(u16::MAX) {
            out = self.shortened().encode(half);
        }
        let key = table::key2(table::DECISION, half.get() >> PLACE_BITS, number);
        batch.append(key, PLACE_KEY_BYTES, out, HEAD_BYTES);
    }

    /// The same with short texts and without a history. The log has no limits of its own: another version may have put names of
    /// up to 65,535 bytes into it, and the decision on such a half must have room all the same.
    fn shortened(&self) -> Self {
        let short = |text: &str| {
            let ends = (0..=SHORT_BYTES_MAX.min(text.len())).rev();
            text[..ends.into_iter().find(|end| text.is_char_boundary(*end)).unwrap_or_default()].to_owned()
        };
        Self {
            group: short(&self.group),
            by: short(&self.by),
            reason: short(&self.reason),
            asked: Vec::new(),
            acts: Vec::new(),
            ..self.clone()
        }
    }

    fn encode(&self, half: HalfId) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.group.len());
        out.put_u8(VERSION);
        // Its length comes when it is known.
        out.put_u16(0);
        out.put_u64(half.get());
        out.put_u8(self.decision as u8);
        out.put_u32(self.queue.0);
        let has_history = self.checks > 0 || !self.asked.is_empty() || !self.acts.is_empty();
        let visible = if self.offset.is_some() { IS_VISIBLE } else { 0 };
        out.put_u8(visible | if has_history { HAS_HISTORY } else { 0 });
        out.put_u64(self.offset.map_or(0, QueueOffset::get));
        out.put_u64(self.counter);
        out.put_u64(self.at.get());
        for text in [&self.group, &self.by, &self.reason] {
            put_text(&mut out, text);
        }
        if has_history {
            out.put_u32(self.checks);
            put_history(&mut out, &self.asked, &self.acts);
        }
        if self.first_half.is_some() || !self.members.is_empty() {
            out.put_u64(self.first_half.unwrap_or(HalfId::MAX).get());
            for member in &self.members {
                out.put_u64(member.get());
            }
        }
        // Too long a one is not written, see above.
        let length = u16::try_from(out.len() - HEAD_BYTES - 2).unwrap_or(u16::MAX);
        out[HEAD_BYTES..][..2].copy_from_slice(&length.to_be_bytes());
        out
    }

    fn decode(mut row: Cursor<'_>) -> Result<(HalfId, Self), Malformed> {
        Ok((HalfId(row.u64("half")?), Self::read(&mut row)?))
    }

    /// Reads the part after the half id.
    pub(super) fn read(row: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let decision = Decision::from_u8(row.u8("decision")?).ok_or_else(|| row.malformed("decision"))?;
        let queue = QueueId(row.u32("queue")?);
        let flags = row.u8("flags")?;
        let offset = row.u64("offset")?;
        let mut decoded = Self {
            decision,
            queue,
            offset: (flags & IS_VISIBLE != 0).then_some(QueueOffset(offset)),
            counter: row.u64("counter")?,
            at: Stamp(row.u64("at")?),
            group: row.text("group")?.to_owned(),
            by: row.text("by")?.to_owned(),
            reason: row.text("reason")?.to_owned(),
            checks: 0,
            asked: Vec::new(),
            acts: Vec::new(),
            first_half: None,
            members: Vec::new(),
        };
        if flags & HAS_HISTORY != 0 {
            decoded.checks = row.u32("checks")?;
            (decoded.asked, decoded.acts) = read_history(row)?;
        }
        if row.remaining() > 0 {
            decoded.first_half = Some(HalfId(row.u64("first half")?)).filter(|first| *first != HalfId::MAX);
            while row.remaining() > 0 {
                decoded.members.push(HalfId(row.u64("member")?));
            }
        }
        Ok(decoded)
    }
}

/// Calls `each` with the bytes of every entry of a page.
fn entries<'a>(page: &'a [u8], mut each: impl FnMut(&'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let mut page = Cursor::new(page);
    if page.u8("decision version")? != VERSION {
        return Err(page.malformed("decision version"));
    }
    while page.remaining() > 0 {
        let length = page.u16("length of a decision")?;
        each(page.take(usize::from(length), "decision")?)?;
    }
    Ok(())
}

/// Decodes a page as its readers would.
pub(super) fn verify(page: &[u8]) -> Result<(), Malformed> {
    entries(page, |entry| DecisionRow::decode(Cursor::new(entry)).map(drop))
}

/// Whether all decisions of a page were made before `before`.
pub(super) fn is_forgotten(page: &[u8], before: Stamp) -> bool {
    let mut all = true;
    let looked = entries(page, |entry| {
        let mut entry = Cursor::new(entry);
        entry.take(BEFORE_AT_BYTES, "decision")?;
        all &= Stamp(entry.u64("decided at")?) < before;
        Ok(())
    });
    // An entry that cannot be read stays, so that a check of the store finds the damage.
    looked.is_ok() && all
}

/// How a half was decided, if it was and that is remembered.
pub(crate) fn get(index: &IndexReader, half: HalfId) -> Result<Option<DecisionRow>, IndexError> {
    let place = table::key1(table::DECISION, half.get() >> PLACE_BITS);
    let mut rows = index.cursor(&place, &place, &after_prefix(&place))?;
    let mut found = None;
    while let Some((_, page)) = rows.row() {
        let looked = entries(page, |entry| {
            if entry.starts_with(&half.get().to_be_bytes()) {
                found = Some(DecisionRow::decode(Cursor::new(entry))?.1);
            }
            Ok(())
        });
        looked.map_err(IndexError::row(table::DECISION))?;
        rows.advance()?;
    }
    match found {
        Some(row) if Some(row.at) < meta::forgotten(index)? => Ok(None),
        found => Ok(found),
    }
}

/// Calls `each` with all decisions that are remembered, in the order of half ids.
pub(crate) fn for_all(index: &IndexReader, mut each: impl FnMut(HalfId, DecisionRow)) -> Result<(), IndexError> {
    let forgotten = meta::forgotten(index)?;
    let mut place = (0, BTreeMap::new());
    let mut show = |rows: &mut BTreeMap<HalfId, DecisionRow>| {
        for (half, row) in std::mem::take(rows) {
            if Some(row.at) >= forgotten {
                each(half, row);
            }
        }
    };
    for row in index.scan_prefix(&[table::DECISION], &[table::DECISION]) {
        let (key, page) = row?;
        let (of, _) = table::numbers_of_key2(&key).unwrap_or_default();
        if of != place.0 {
            show(&mut place.1);
            place.0 = of;
        }
        let looked = entries(&page, |entry| {
            let (half, row) = DecisionRow::decode(Cursor::new(entry))?;
            place.1.insert(half, row);
            Ok(())
        });
        looked.map_err(IndexError::row(table::DECISION))?;
    }
    show(&mut place.1);
    Ok(())
}
