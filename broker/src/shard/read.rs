//! Reading what apply made visible: entries of a queue, the bytes of a message, the place of a position.

use std::io::{ErrorKind, IoSliceMut};
use std::sync::Arc;

use bytes::BytesMut;
use escrowmq_common::message::{TransactionType, UnitPatch};

use super::ahead::AHEAD;
use super::handle::Shard;
use super::topic::Queue;
use crate::index::{self, HalfRow, IndexError, QueueEntry};
use crate::planted::{Bug, planted};
use crate::terms::to_usize;
use crate::terms::{HalfId, Position, QueueId, QueueOffset, Stamp};

/// Why a read did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Retention has let the bytes go.
    #[error("the message at log position {position} was removed by retention")]
    Trimmed {
        /// Where.
        position: Position,
    },
    /// An operator has given the bytes up.
    #[error("the message at log position {position} is lost: an operator gave it up")]
    GivenUp {
        /// Where.
        position: Position,
    },
    /// The log could not be read just now. Another try may go better.
    #[error("log at {position}: {source}; try again")]
    Log {
        /// Where.
        position: Position,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Bytes that must be there are not.
    #[error(
        "log position {position}: {source}. What reads it waits, and a retry succeeds when the file is back; if it is lost, \
         `escrowmq admin log give-up {position}` passes its messages"
    )]
    Missing {
        /// Where.
        position: Position,
        /// Which file, and what is wrong with it.
        source: std::io::Error,
    },
    /// The bytes are not what was written there.
    #[error(
        "the message at log position {position} does not match its checksum; it is not served, and what reads it waits. Run \
         `escrowmq fsck` on the data folder; if the message is lost, `escrowmq admin log give-up {position}` passes it"
    )]
    Corrupt {
        /// Where.
        position: Position,
    },
}

impl ReadError {
    /// Whether readers pass the message: retention has removed it, or an operator has given it up.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Trimmed { .. } | Self::GivenUp { .. })
    }

    /// Whether the bytes are damaged or missing, and stay so until an operator does something.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Corrupt { .. })
    }

    /// Whether another try may go better.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Index(_) | Self::Log { .. } | Self::Missing { .. })
    }
}

/// Entries of a queue that were looked at.
#[derive(Debug)]
pub struct QueueEntries {
    /// Those that the caller wants.
    pub wanted: Vec<QueueEntry>,
    /// The offset after the last one looked at: where the next look starts.
    pub next_offset: QueueOffset,
}

/// A message that is in a queue.
#[derive(Debug, Clone)]
pub struct Located {
    /// The queue.
    pub queue: Arc<Queue>,
    /// Its entry.
    pub entry: QueueEntry,
}

/// Bytes of a message's head in a command, in front of its unit: tag hash, length, checksum.
pub(in crate::shard) const MESSAGE_HEAD_BYTES: u64 = 16;

impl Shard {
    /// Looks at up to `scan_limit` entries of `queue` from `from` on and takes up to `limit` of those that `wants` says
    /// yes to. Never beyond the queue's published end.
    pub fn entries(
        &self,
        queue: &Queue,
        from: QueueOffset,
        limit: usize,
        scan_limit: usize,
        mut wants: impl FnMut(&QueueEntry) -> bool,
    ) -> Result<QueueEntries, ReadError> {
        let from = from.max(queue.min_offset());
        let max = queue.max_offset();
        let mut found = QueueEntries { wanted: Vec::new(), next_offset: from };
        if from >= max || limit == 0 {
            return Ok(found);
        }
        let mut looked = 0;
        // Takes an entry; answers whether it wants another one.
        let mut take = |entry: QueueEntry| {
            if entry.offset >= max {
                return false;
            }
            found.next_offset = entry.offset.next();
            looked += 1;
            if wants(&entry) {
                found.wanted.push(entry);
            }
            found.wanted.len() < limit && looked < scan_limit && entry.offset.next() < max
        };
        if index::queue::scan_memory(self.index(), queue.id, from, &mut take)? {
            return Ok(found);
        }
        let mut ahead = self.shared.ahead.take(queue.id, from);
        let mut wants_more = true;
        let mut next = from;
        while wants_more && let Some(entry) = ahead.pop_front() {
            next = entry.offset.next();
            wants_more = take(entry);
        }
        if wants_more && next < max {
            let scanned = index::queue::scan_files(self.index(), queue.id, next, |entry| {
                if wants_more {
                    wants_more = take(entry);
                } else {
                    ahead.push_back(entry);
                }
                // A reader that asks for a single entry wants no others next.
                (wants_more || limit > 1) && entry.offset.next() < max && ahead.len() < AHEAD
            });
            // A fault after the entries that were wanted is left to the reader that gets there.
            if wants_more {
                scanned?;
            }
        }
        if !ahead.is_empty() {
            self.shared.ahead.keep(queue.id, ahead);
        }
        Ok(found)
    }

    /// The entry at an offset of a queue.
    pub fn entry(&self, queue: &Queue, offset: QueueOffset) -> Result<Option<QueueEntry>, ReadError> {
        let found = self.entries(queue, offset, 1, 1, |_| true)?;
        Ok(found.wanted.into_iter().find(|entry| entry.offset == offset))
    }

    /// Appends the unit of an entry as consumers get it, if its bytes are in memory, the broker's or the system's; `None`
    /// if the disk must be waited for, and then nothing is appended.
    pub fn hot_unit(&self, queue: &Queue, entry: &QueueEntry, out: &mut BytesMut) -> Option<Result<(), ReadError>> {
        let (at, length) = stored_extent(entry.position, entry.length);
        if let Some(stored) = self.log().read_hot(at, length) {
            return Some(put_unit(&stored, queue, entry, out).map_err(|error| self.unless_given_up(error)));
        }
        // Straight from the file into its place in the answer.
        let start = out.len();
        let mut head = [0; to_usize(MESSAGE_HEAD_BYTES)];
        out.resize(start + entry.length as usize, 0);
        let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut out[start..])];
        if !self.log().read_ready(at, &mut buffers) {
            out.truncate(start);
            return None;
        }
        let checked = check(&head, &out[start..], entry.position);
        let patched = checked.and_then(|()| patch(queue, entry, &mut out[start..]));
        Some(patched.map_err(|error| {
            out.truncate(start);
            self.unless_given_up(error)
        }))
    }

    /// Appends the unit of an entry as consumers get it. May read a file: call it where blocking is allowed.
    pub fn unit(&self, queue: &Queue, entry: &QueueEntry, out: &mut BytesMut) -> Result<(), ReadError> {
        let stored = self.stored(entry.position, entry.length)?;
        put_unit(&stored, queue, entry, out).map_err(|error| self.unless_given_up(error))
    }

    /// The unit of an undecided half message with its counter as queue offset, as a check carries it. May read a file.
    pub fn half_unit(&self, row: &HalfRow, out: &mut BytesMut) -> Result<(), ReadError> {
        let stored = self.stored(row.position, row.length)?;
        let start = out.len();
        put_checked(&stored, row.position, out)?;
        let queue = self.topics().queue(row.queue);
        UnitPatch {
            queue_id: queue.map_or(0, |queue| queue.index.cast_signed()),
            queue_offset: row.counter.cast_signed(),
            position: row.half.position().signed(),
            transaction: TransactionType::None,
            store_timestamp: row.prepared_at.signed(),
            prepared_offset: 0,
        }
        .apply(&mut out[start..])
        .map_err(|_| ReadError::Corrupt { position: row.position })
    }

    /// The unit of a message as it was written, wherever it is and whoever may see it. May read a file.
    pub fn raw_unit(&self, position: Position, length: u32) -> Result<bytes::Bytes, ReadError> {
        let stored = self.stored(position, length)?;
        let mut unit = BytesMut::with_capacity(length as usize);
        put_checked(&stored, position, &mut unit).map_err(|error| self.unless_given_up(error))?;
        Ok(unit.freeze())
    }

    fn stored(&self, position: Position, length: u32) -> Result<bytes::Bytes, ReadError> {
        let (at, length) = stored_extent(position, length);
        self.log().read(at, length).map_err(|source| self.unreadable(position, source))
    }

    /// Says what an error of the log at a position means. Only bytes that the state machine has trimmed, or that an operator has
    /// given up, are gone. Any others must be there.
    pub(in crate::shard) fn unreadable(&self, position: Position, source: std::io::Error) -> ReadError {
        if position < self.counters().trimmed() {
            return ReadError::Trimmed { position };
        }
        let is_missing =
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData);
        self.unless_given_up(if is_missing {
            ReadError::Missing { position, source }
        } else {
            ReadError::Log { position, source }
        })
    }

    fn unless_given_up(&self, error: ReadError) -> ReadError {
        match error {
            ReadError::Missing { position, .. } | ReadError::Corrupt { position } if self.lost().holds(position) => {
                ReadError::GivenUp { position }
            }
            other => other,
        }
    }

    /// The message at a log position that a client named, if it is in a queue: a half message before its commit, a
    /// rolled-back one and one that waits for its time are not found. `queue` is the queue that the unit names.
    pub fn locate(&self, position: Position, queue: QueueId) -> Result<Option<Located>, ReadError> {
        let Some(queue) = self.topics().queue(queue) else { return Ok(None) };
        if planted(Bug::HalfById)
            && let Some(row) = index::half::get(self.index(), HalfId::at(position))?
        {
            let entry = QueueEntry {
                offset: QueueOffset::ZERO,
                position,
                length: row.length,
                tag_hash: row.tag_hash,
                store_time: row.prepared_at,
                flags: index::EntryFlags::PLAIN,
                half: HalfId::at(position),
            };
            return Ok(Some(Located { queue, entry }));
        }
        // It may have entered another queue than its unit names, since its topic shrank.
        let elsewhere = |other: QueueId| if other == queue.id { None } else { self.topics().queue(other) };
        let (queue, found) = if let Some(decision) = index::decision::get(self.index(), HalfId::at(position))? {
            let queue = elsewhere(decision.queue).unwrap_or(queue);
            let found = match decision.offset {
                Some(offset) => self.entry(&queue, offset)?,
                None => None,
            };
            (queue, found)
        } else if let Some(fired) = index::timer::fired(self.index(), position)? {
            let queue = fired.queue.and_then(elsewhere).unwrap_or(queue);
            let found = self.entry(&queue, fired.offset)?;
            (queue, found)
        } else {
            let (min, max) = (queue.min_offset(), queue.max_offset());
            let found = index::queue::find_position(self.index(), queue.id, min, max, position)?;
            (queue, found)
        };
        Ok(found
            .filter(|entry| entry.position == position || entry.half == HalfId::at(position))
            .filter(|entry| entry.offset < queue.max_offset())
            .map(|entry| Located { queue, entry }))
    }

    /// The first offset of a queue whose message entered it at or after `time`; the queue's end if there is none.
    pub fn offset_at_time(&self, queue: &Queue, time: Stamp) -> Result<QueueOffset, ReadError> {
        Ok(index::queue::find_time(self.index(), queue.id, queue.min_offset(), queue.max_offset(), time)?)
    }
}

fn stored_extent(position: Position, length: u32) -> (Position, usize) {
    // Only a damaged entry points so near to the log's beginning; it is missing then, as nothing is at the last position.
    let head_at = position.back(MESSAGE_HEAD_BYTES).unwrap_or(Position::MAX);
    (head_at, length as usize + to_usize(MESSAGE_HEAD_BYTES))
}

/// Whether a unit is what its head in the log says.
fn check(head: &[u8], unit: &[u8], position: Position) -> Result<(), ReadError> {
    let length = u32::from_be_bytes(head[8..12].try_into().expect("four bytes"));
    let crc = u32::from_be_bytes(head[12..16].try_into().expect("four bytes"));
    let good = length as usize == unit.len() && (crc32fast::hash(unit) == crc || planted(Bug::ChecksumUnread));
    if good { Ok(()) } else { Err(ReadError::Corrupt { position }) }
}

/// Verifies a stored message and appends its unit as it was written.
fn put_checked(stored: &[u8], position: Position, out: &mut BytesMut) -> Result<(), ReadError> {
    let (head, unit) = stored.split_at_checked(to_usize(MESSAGE_HEAD_BYTES)).ok_or(ReadError::Corrupt { position })?;
    check(head, unit, position)?;
    out.extend_from_slice(unit);
    Ok(())
}

fn put_unit(stored: &[u8], queue: &Queue, entry: &QueueEntry, out: &mut BytesMut) -> Result<(), ReadError> {
    let start = out.len();
    put_checked(stored, entry.position, out)?;
    patch(queue, entry, &mut out[start..])
}

/// Puts the fields that only the index knows into a unit.
fn patch(queue: &Queue, entry: &QueueEntry, unit: &mut [u8]) -> Result<(), ReadError> {
    let committed = entry.flags.is_committed();
    UnitPatch {
        queue_id: queue.index.cast_signed(),
        queue_offset: entry.offset.signed(),
        position: entry.position.signed(),
        transaction: if committed { TransactionType::Commit } else { TransactionType::None },
        store_timestamp: entry.store_time.signed(),
        prepared_offset: if committed { entry.half.get().cast_signed() } else { 0 },
    }
    .apply(unit)
    .map_err(|_| ReadError::Corrupt { position: entry.position })
}
