//! Undecided half messages, what is due for a check, and repeated sends. Listings are in `listing`.

use bytes::BufMut;
use sha2::{Digest, Sha256};

use super::batch::IndexBatch;
use super::error::IndexError;
use super::history::{Act, Asked, put_history, read_history};
use super::listing::{LISTED_BYTES, listed_key};
use super::reader::IndexReader;
use super::table;
use crate::terms::{
    Content, Cursor, Entered, HalfId, Malformed, ParkReason, Position, QueueId, Stamp, When, get_optional, get_when,
    put_optional, put_text, put_when, to_u8,
};

/// 1 to 3 were used before the first release.
const VERSION: u8 = 4;

/// A half message without a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfRow {
    /// The half id: its position at Prepare. The key.
    pub half: HalfId,
    /// Its dense counter.
    pub counter: u64,
    /// Where its unit is now.
    pub position: Position,
    /// Length of its unit.
    pub length: u32,
    /// The queue that it enters when committed.
    pub queue: QueueId,
    /// Id of the first queue of its topic, which names the topic in listings.
    pub topic: QueueId,
    /// Hash of its tag.
    pub tag_hash: i32,
    /// When it becomes visible, counted from the commit.
    pub when: When,
    /// Its own wait before the first check, in milliseconds.
    pub immunity: Option<u64>,
    /// First half of its transaction, if it is a further one: it is settled with that one, and never checked.
    pub first_half: Option<HalfId>,
    /// Further halves of its transaction, if it is the first one.
    pub members: Vec<HalfId>,
    /// When it was prepared.
    pub prepared_at: Stamp,
    /// When the next check is due; `None` while the first check, by order, is not done.
    pub next_due: Option<Stamp>,
    /// Checks sent that count.
    pub checks: u32,
    /// Whom the last checks went to, the newest at the end.
    pub asked: Vec<Asked>,
    /// Why it is parked, and since when; `None` while it is open.
    pub parked: Option<(ParkReason, Stamp)>,
    /// The acts of operators on it, the newest at the end.
    pub acts: Vec<Act>,
    /// How long after its decision a repeat still gets its identity, in milliseconds.
    pub duplicate_window: u64,
    /// Tells it from another message under its unique key.
    pub content: Content,
    /// Id of the producer group.
    pub group_id: u32,
    /// The producer group that is asked.
    pub group: String,
    /// The client that sent it.
    pub client: String,
    /// Its unique key; may be empty.
    pub unique_id: String,
}

impl HalfRow {
    /// The key of its due time; `None` while it has none.
    fn due_key(&self) -> Option<[u8; 17]> {
        let due = self.next_due.filter(|_| self.parked.is_none() && self.first_half.is_none());
        due.map(|_| table::key2(table::DUE, Stamp::to_stored(due), self.half.get()))
    }

    /// Its key in the listing.
    fn listed_key(&self) -> [u8; LISTED_BYTES] {
        listed_key(self.parked.is_some(), self.group_id, self.topic.0, self.half)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(144 + self.group.len() + self.client.len() + self.unique_id.len());
        out.put_u8(VERSION);
        out.put_u64(self.counter);
        out.put_u64(self.position.get());
        out.put_u32(self.length);
        out.put_u32(self.queue.0);
        out.put_i32(self.tag_hash);
        put_when(&mut out, self.when);
        put_optional(&mut out, self.immunity);
        put_optional(&mut out, self.first_half.map(HalfId::get));
        out.put_u64(self.prepared_at.get());
        out.put_u64(Stamp::to_stored(self.next_due));
        out.put_u32(self.checks);
        let (reason, since) = self.parked.map_or((0, 0), |(reason, since)| (reason as u8, since.get()));
        out.put_u8(reason);
        out.put_u64(since);
        out.put_u64(self.duplicate_window);
        out.put_slice(&self.content.0);
        for text in [&self.group, &self.client, &self.unique_id] {
            put_text(&mut out, text);
        }
        out.put_u32(self.topic.0);
        out.put_u32(self.group_id);
        out.put_u8(to_u8(self.members.len()));
        for member in &self.members {
            out.put_u64(member.get());
        }
        put_history(&mut out, &self.asked, &self.acts);
        out
    }

    pub(super) fn decode(half: HalfId, value: &[u8]) -> Result<Self, Malformed> {
        let mut row = Cursor::new(value);
        if row.u8("half version")? != VERSION {
            return Err(row.malformed("half version"));
        }
        let counter = row.u64("counter")?;
        let position = Position(row.u64("position")?);
        let length = row.u32("length")?;
        let queue = QueueId(row.u32("queue")?);
        let tag_hash = row.u32("tag hash")?.cast_signed();
        let when = get_when(&mut row)?;
        let immunity = get_optional(&mut row)?;
        let first_half = get_optional(&mut row)?.map(HalfId);
        let prepared_at = Stamp(row.u64("prepared at")?);
        let next_due = Stamp::from_stored(row.u64("next due")?);
        let checks = row.u32("checks")?;
        let reason = ParkReason::from_u8(row.u8("parked")?);
        let since = Stamp(row.u64("parked since")?);
        let duplicate_window = row.u64("duplicate window")?;
        let mut content = [0; 16];
        content.copy_from_slice(row.take(16, "content")?);
        let mut text = || row.text("text").map(str::to_owned);
        let (group, client, unique_id) = (text()?, text()?, text()?);
        let topic = QueueId(row.u32("topic")?);
        let group_id = row.u32("group id")?;
        let members = (0..row.u8("members")?).map(|_| row.u64("member").map(HalfId)).collect::<Result<_, _>>()?;
        let (asked, acts) = read_history(&mut row)?;
        Ok(Self {
            half,
            counter,
            position,
            length,
            queue,
            topic,
            tag_hash,
            when,
            immunity,
            first_half,
            members,
            prepared_at,
            next_due,
            checks,
            asked,
            parked: reason.map(|reason| (reason, since)),
            acts,
            duplicate_window,
            content: Content(content),
            group_id,
            group,
            client,
            unique_id,
        })
    }
}

/// Moves the rows of a half from one state to another: its own, its due time's, and the one that lists it. An `old` of
/// `None`: there is no such half yet; a `new` of `None`: it is not undecided any more.
pub(crate) fn replace(batch: &mut IndexBatch, old: Option<&HalfRow>, new: Option<&HalfRow>) {
    let (old_due, new_due) = (old.and_then(HalfRow::due_key), new.and_then(HalfRow::due_key));
    if old_due != new_due {
        old_due.inspect(|key| batch.delete(key));
        new_due.inspect(|key| batch.put_new(key, Vec::new()));
    }
    let (old_listed, new_listed) = (old.map(HalfRow::listed_key), new.map(HalfRow::listed_key));
    if old_listed != new_listed {
        old_listed.inspect(|key| batch.delete(key));
        new_listed.inspect(|key| batch.put_new(key, Vec::new()));
    }
    match (old, new) {
        (None, Some(new)) => batch.put_new(table::key1(table::HALF, new.half.get()), new.encode()),
        (Some(_), Some(new)) => batch.put(table::key1(table::HALF, new.half.get()), new.encode()),
        (Some(old), None) => batch.delete(table::key1(table::HALF, old.half.get())),
        (None, None) => {}
    }
}

/// The undecided half with this id.
pub(crate) fn get(index: &IndexReader, half: HalfId) -> Result<Option<HalfRow>, IndexError> {
    index
        .get(table::key1(table::HALF, half.get()))?
        .map(|value| HalfRow::decode(half, &value).map_err(IndexError::row(table::HALF)))
        .transpose()
}

/// Calls `each` with the undecided halves from id `from` on, in order, until it says stop.
pub(crate) fn scan(index: &IndexReader, from: HalfId, mut each: impl FnMut(HalfRow) -> bool) -> Result<(), IndexError> {
    for row in index.scan_prefix(&[table::HALF], &table::key1(table::HALF, from.get())) {
        let (key, value) = row?;
        let half = HalfId(table::number_of_key1(&key).unwrap_or_default());
        if !each(HalfRow::decode(half, &value).map_err(IndexError::row(table::HALF))?) {
            break;
        }
    }
    Ok(())
}

/// Calls `each` with `(due, half id)` of the halves due from `from` up to `upto`, earliest first, until it says stop.
pub(crate) fn scan_due(
    index: &IndexReader,
    from: Stamp,
    upto: Stamp,
    mut each: impl FnMut(Stamp, HalfId) -> Result<bool, IndexError>,
) -> Result<(), IndexError> {
    let low = table::key2(table::DUE, from.get(), 0);
    let high = table::key2(table::DUE, upto.saturating_add(1).get(), 0);
    for row in index.scan(&low, &high) {
        let (due, half) = table::numbers_of_key2(&row?.0).unwrap_or_default();
        if !each(Stamp(due), HalfId(half))? {
            break;
        }
    }
    Ok(())
}

/// The earliest due time at or after `from`.
pub(crate) fn next_due(index: &IndexReader, from: Stamp) -> Result<Option<Stamp>, IndexError> {
    let low = table::key2(table::DUE, from.get(), 0);
    let row = index.scan_prefix(&[table::DUE], &low).next().transpose()?;
    Ok(row.and_then(|(key, _)| table::numbers_of_key2(&key)).map(|(due, _)| Stamp(due)))
}

/// The key under which a half send is recognised when it is repeated.
pub(crate) type RepeatKey = [u8; 17];

/// The key of a half with this unique id and this content. A digest, cut to 128 bits: short, and nobody finds two texts with
/// the same one.
pub(crate) fn repeat_key(group: &str, topic: &str, unique_id: &str, content: Content) -> RepeatKey {
    let mut digest = Sha256::new();
    for text in [group, topic, unique_id] {
        // Behind their lengths, so that no two lists of texts are the same bytes.
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    digest.update(content.0);
    let mut key = [table::REPEAT; 17];
    key[1..].copy_from_slice(&digest.finalize()[..16]);
    key
}

/// The row that a repeated half send is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repeat {
    /// The message or half that was sent first.
    pub first: First,
    /// Until when a repeat gets its identity; `None` while nothing is decided.
    pub ends: Option<Stamp>,
}

/// The message or half that was sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// A half.
    Half(HalfId),
    /// A plain message.
    Message(RepeatPlace),
}

/// Where a plain message is that may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RepeatPlace {
    /// Its log position.
    pub position: Position,
    /// Its queue.
    pub queue: QueueId,
    /// Where it went.
    pub entered: Entered,
    /// Its store time.
    pub stamp: Stamp,
}

impl Repeat {
    /// Remembers the half under its key.
    pub(crate) fn put(&self, key: RepeatKey, batch: &mut IndexBatch) {
        let mut value = Vec::with_capacity(48);
        value.put_u64(match &self.first {
            First::Half(half) => half.get(),
            First::Message(place) => place.position.get(),
        });
        value.put_u64(Stamp::to_stored(self.ends));
        if let First::Message(place) = &self.first {
            value.put_u32(place.queue.0);
            value.put_u64(place.entered.number());
            value.put_u64(place.stamp.get());
            value.put_u64(Stamp::to_stored(place.entered.due()));
        }
        batch.put(key, value);
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut row = Cursor::new(value);
        let (position, ends) = (Position(row.u64("half")?), Stamp::from_stored(row.u64("end of window")?));
        let first = if row.remaining() == 0 {
            First::Half(HalfId::at(position))
        } else {
            let (queue, number) = (QueueId(row.u32("queue")?), row.u64("offset")?);
            let (stamp, due) = (Stamp(row.u64("stamp")?), Stamp::from_stored(row.u64("due")?));
            First::Message(RepeatPlace { position, queue, entered: Entered::from_parts(number, due), stamp })
        };
        Ok(Self { first, ends })
    }

    /// Whether its window has ended at `now`: then it is as if it were not there.
    pub(crate) fn has_ended(&self, now: Stamp) -> bool {
        self.ends.is_some_and(|ends| ends < now)
    }
}

/// The row under a key, even if its window has ended: such rows go when RocksDB merges files.
pub(crate) fn get_repeat(index: &IndexReader, key: RepeatKey) -> Result<Option<Repeat>, IndexError> {
    let Some(value) = index.get(key)? else { return Ok(None) };
    Repeat::decode(&value).map(Some).map_err(IndexError::row(table::REPEAT))
}
