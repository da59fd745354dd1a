//! A message by a position that a client named.
//!
//! Everything about such a position is hostile: it may lie before the log, after its end, between records or inside the
//! body of a message that was made to look like another message. The bytes there are only a hint which queue to ask;
//! the index alone says whether a message of that queue is there.

use std::io::ErrorKind;

use escrowmq_common::frame::MAX_FRAME_LEN;
use escrowmq_common::message::properties::name as property;
use escrowmq_common::message::{MessageUnit, PropertyEditor, UNIT_OVERHEAD_BYTES_MAX};

use super::handle::Shard;
use super::read::{Located, MESSAGE_HEAD_BYTES, ReadError};
use crate::index::{self, TimerRow};
use crate::planted::{Bug, planted};
use crate::terms::{Content, HalfId, Position, QueueOffset, Stamp};
use crate::terms::{to_u32, to_usize};

/// Messages with the same due time that are looked at for one of them.
const SAME_TIME_MAX: usize = 10_000;
/// A longer unit cannot have come in.
const UNIT_BYTES_MAX: usize = MAX_FRAME_LEN + UNIT_OVERHEAD_BYTES_MAX;

/// The messages that wait for their time under one unique key.
#[derive(Debug)]
pub struct Waiting {
    /// The messages; copies that a producer's retries made are several.
    pub rows: Vec<TimerRow>,
    /// They all say the same, so that it does not matter which one is meant.
    pub is_one: bool,
    /// All messages of that time were looked at.
    pub is_all: bool,
}

/// The properties of a stored message that waits without those that tell when it was stored.
fn as_sent(properties: &str) -> String {
    let mut editor = PropertyEditor::new(properties);
    editor.remove(property::TIMER_ENQUEUE_MS).remove(property::REAL_QUEUE_ID);
    editor.finish()
}

impl Shard {
    /// The message whose unit begins at this log position, if it is in a queue: a half message before its commit, a
    /// rolled-back one and one that waits for its time are not found, as is anything that is no message. May read a file.
    pub fn unit_at(&self, position: Position) -> Result<Option<Located>, ReadError> {
        let Some(start) = position.back(MESSAGE_HEAD_BYTES) else { return Ok(None) };
        let Some(head) = self.bytes_at(start, to_usize(MESSAGE_HEAD_BYTES))? else { return Ok(None) };
        let length = u32::from_be_bytes(head[8..12].try_into().expect("four bytes")) as usize;
        let crc = u32::from_be_bytes(head[12..16].try_into().expect("four bytes"));
        if length > UNIT_BYTES_MAX {
            return Ok(None);
        }
        let Some(unit) = self.bytes_at(position, length)? else { return Ok(None) };
        if crc32fast::hash(&unit) != crc {
            return Ok(None);
        }
        let Ok(unit) = MessageUnit::decode(&unit) else { return Ok(None) };
        let Some(topic) = self.topics().get(unit.topic()) else { return Ok(None) };
        let queue = usize::try_from(unit.queue_id()).ok().and_then(|index| topic.queues.get(index));
        if planted(Bug::RolledBackById)
            && let Some(queue) = queue
            && let Some(row) =
                index::decision::get(self.index(), HalfId::at(position))?.filter(|row| row.offset.is_none())
        {
            let entry = index::QueueEntry {
                offset: QueueOffset::ZERO,
                position,
                length: to_u32(length),
                tag_hash: 0,
                store_time: row.at,
                flags: index::EntryFlags::PLAIN,
                half: HalfId::at(position),
            };
            return Ok(Some(Located { queue: std::sync::Arc::clone(queue), entry }));
        }
        match queue {
            Some(queue) => self.locate(position, queue.id),
            None => Ok(None),
        }
    }

    /// The unit whose bytes begin at this log position, if they are in memory. Nothing says that there is a message, or who may see
    /// it: what is found is a hint.
    pub fn hint_at(&self, position: Position) -> Option<bytes::Bytes> {
        let start = position.back(MESSAGE_HEAD_BYTES)?;
        let head = self.log().read_hot(start, to_usize(MESSAGE_HEAD_BYTES))?;
        let length = u32::from_be_bytes(head[8..12].try_into().expect("four bytes")) as usize;
        self.log().read_hot(position, length)
    }

    /// The messages of a topic that wait until `due` under this unique key. May read files.
    pub fn waiting(&self, due: Stamp, topic: &str, unique_key: &str) -> Result<Waiting, ReadError> {
        let rows = index::timer::due(self.index(), due, due, SAME_TIME_MAX)?;
        let mut waiting = Waiting { rows: Vec::new(), is_one: true, is_all: rows.len() < SAME_TIME_MAX };
        let mut first = None;
        for row in rows {
            let Some(bytes) = self.bytes_at(row.position, row.length as usize)? else { continue };
            let Ok(unit) = MessageUnit::decode(&bytes) else { continue };
            if unit.topic() == topic && unit.property(property::UNIQUE_KEY) == Some(unique_key) {
                let content = Content::of(unit.body(), &as_sent(&unit.properties_text()));
                waiting.is_one &= *first.get_or_insert(content) == content;
                waiting.rows.push(row);
            }
        }
        Ok(waiting)
    }

    /// Bytes of the log, if they are there. The length is looked at before anything is allocated.
    fn bytes_at(&self, position: Position, length: usize) -> Result<Option<bytes::Bytes>, ReadError> {
        if self.log().end().since(position) < length as u64 {
            return Ok(None);
        }
        match self.log().read(position, length) {
            Ok(bytes) => Ok(Some(bytes)),
            // Across the end of a file: no message lies so.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => match self.unreadable(position, source) {
                gone if gone.is_gone() => Ok(None),
                error => Err(error),
            },
        }
    }
}
