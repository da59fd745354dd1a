//! The entry of a message's key, and reading entries out of the log.

use escrowmq_common::message::MessageUnit;
use escrowmq_common::message::properties::name;

use super::hash::TopicHash;
use crate::log::Record;
use crate::shard::{Batch, Command, Message, Unit};
use crate::terms::{Malformed, Position, Stamp};

/// The kind byte of records that hold commands; others are the business of `raft` alone.
const COMMANDS: u8 = 1;

/// One key of one message. Ordered by hash, then by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Hash of topic and key.
    pub(super) hash: u64,
    /// Log position of the unit.
    pub(super) position: Position,
    /// When it was stored, in seconds since 1970. A half or a timer becomes visible later.
    pub(super) seconds: u32,
}

/// The keys of the messages that one record holds, appended to `out`. Returns the record's stamp in milliseconds since
/// 1970, `None` if it holds no commands.
pub(super) fn extract(record: &Record, out: &mut Vec<Entry>) -> Result<Option<Stamp>, Malformed> {
    if record.kind != COMMANDS {
        return Ok(None);
    }
    let batch = Batch::decode(&record.payload)?;
    let mut found =
        Found { payload_position: record.payload_position(), seconds: (batch.stamp.get() / 1000) as u32, out };
    for command in batch.commands()? {
        match command {
            Command::Publish(publish) => {
                publish.messages.stored().for_each(|message| found.message(&message));
            }
            Command::Prepare(prepare) => found.message(&prepare.message),
            Command::Settle(settle) => settle.rewritten.iter().for_each(|(_, message)| found.message(message)),
            Command::Roll(roll) => roll.moved.iter().for_each(|moved| found.message(&moved.message)),
            Command::Checked(_)
            | Command::Extend(_)
            | Command::Park(_)
            | Command::Resume(_)
            | Command::CommitOffsets(_)
            | Command::PutTopic(_)
            | Command::DeleteTopic(_)
            | Command::PutGroup(_)
            | Command::DeleteGroup { .. }
            | Command::Fire { .. }
            | Command::Cancel { .. }
            | Command::Lock(_)
            | Command::Unlock(_)
            | Command::Trim { .. }
            | Command::GiveUp(_)
            | Command::Expire { .. }
            | Command::Settings(_)
            | Command::Feature(_) => {}
        }
    }
    Ok(Some(batch.stamp))
}

struct Found<'a> {
    payload_position: Position,
    seconds: u32,
    out: &'a mut Vec<Entry>,
}

impl Found<'_> {
    fn message(&mut self, message: &Message<'_>) {
        let Unit::Stored { at, bytes, .. } = message.unit else {
            return;
        };
        // A unit that does not decode is not served either.
        let Ok(unit) = MessageUnit::decode(bytes) else {
            return;
        };
        let topic = TopicHash::new(unit.topic());
        let position = self.payload_position.advance(at as u64);
        let from = self.out.len();
        let mut add = |key: &str| {
            self.out.push(Entry { hash: topic.of(key), position, seconds: self.seconds });
        };
        if let Some(key) = unit.property(name::UNIQUE_KEY) {
            add(key);
        }
        if let Some(keys) = unit.property(name::KEYS) {
            words(keys).for_each(add);
        }
        self.once_each(from);
    }
}

impl Found<'_> {
    /// Keeps of equal entries of one message only one: a repeated word finds it once, and costs no more.
    fn once_each(&mut self, from: usize) {
        let of_message = &mut self.out[from..];
        if of_message.len() < 2 {
            return;
        }
        of_message.sort_unstable();
        let mut kept = 1;
        for at in 1..of_message.len() {
            if of_message[at] != of_message[kept - 1] {
                of_message[kept] = of_message[at];
                kept += 1;
            }
        }
        self.out.truncate(from + kept);
    }
}

/// The single keys in the value of `KEYS`. All of them are indexed: a message is found by each or was refused. Their cost is
/// bounded by the 32,767 bytes of a message's properties.
pub(crate) fn words(keys: &str) -> impl Iterator<Item = &str> {
    keys.split(' ').filter(|word| !word.is_empty())
}
