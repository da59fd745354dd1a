//! A batch: what one log entry holds.
//!
//! Bytes: `version u8 | 0 u8 | 0 u16 | count u32 | stamp u64 | commands`. The leader puts the stamp in when it seals the
//! batch: the wall-clock time, in milliseconds since 1970, that apply takes for "now" on every replica.

use bytes::{Bytes, BytesMut};

use super::command::Command;
use crate::terms::{Cursor, Malformed, Stamp, TooLong};

/// The version of batches: their bytes, and the rules by which their commands are applied. A log leads to the same state on
/// every replica and after every upgrade, so later versions keep what this one decided. 1 and 2 were used before the first
/// release.
const VERSION: u8 = 3;

/// Bytes in front of the first command.
pub(crate) const HEAD_BYTES: usize = 16;

/// Least bytes of a command: its tag and its length.
const COMMAND_BYTES_MIN: usize = 5;

/// Reads the commands of a batch: `count` of them, no bytes after them, and one that must be alone is.
fn read<'a>(mut bytes: Cursor<'a>, count: u32, mut each: impl FnMut(Command<'a>)) -> Result<(), Malformed> {
    for _ in 0..count {
        let command = Command::decode(&mut bytes)?;
        if count > 1 && command.is_alone() {
            return Err(bytes.malformed("a command that must be alone"));
        }
        each(command);
    }
    if bytes.remaining() == 0 { Ok(()) } else { Err(bytes.malformed("end of batch")) }
}

/// A batch while commands are added to it.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    bytes: BytesMut,
    count: u32,
    /// Commands that bring new messages.
    new_messages: u32,
}

impl OpenBatch {
    /// An empty batch with room for `capacity` bytes of commands.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + capacity);
        bytes.resize(HEAD_BYTES, 0);
        Self { bytes, count: 0, new_messages: 0 }
    }

    /// Adds a whole command, or leaves the batch as it was.
    pub(crate) fn push(&mut self, command: &Command<'_>) -> Result<(), TooLong> {
        let mut added = Added { whole: self.bytes.len(), bytes: &mut self.bytes };
        command.encode(added.bytes)?;
        added.whole = added.bytes.len();
        drop(added);
        self.count += 1;
        self.new_messages += u32::from(command.brings_messages());
        Ok(())
    }

    /// Adds the bytes of a command as another version may have written them.
    #[cfg(test)]
    pub(crate) fn push_bytes(&mut self, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.count += 1;
    }

    /// Whether there are commands that bring new messages: those that a full disk refuses.
    pub(crate) fn brings_messages(&self) -> bool {
        self.new_messages > 0
    }

    /// Reads the batch back as [`Batch`] will, the structure and not the bodies of messages.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        read(self.commands(), self.count, |_| {})
    }

    /// The same without the commands that bring new messages, and for each command, in order, whether it stayed.
    pub(crate) fn without_messages(&self) -> (Self, Vec<bool>) {
        let mut rest = Self::with_capacity(4096);
        let mut cursor = self.commands();
        let stayed = (0..self.count)
            .map(|_| {
                let start = cursor.position();
                let command = Command::decode(&mut cursor).expect("the batch was read back before");
                let stays = !command.brings_messages();
                if stays {
                    rest.bytes.extend_from_slice(&self.bytes[start..cursor.position()]);
                    rest.count += 1;
                }
                stays
            })
            .collect();
        (rest, stayed)
    }

    fn commands(&self) -> Cursor<'_> {
        Cursor::based(&self.bytes[HEAD_BYTES..], HEAD_BYTES)
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the commands alone.
    pub(crate) fn command_bytes(&self) -> u64 {
        (self.bytes.len() - HEAD_BYTES) as u64
    }

    /// Whether no command was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Closes the batch with its time.
    pub(crate) fn seal(mut self, stamp: Stamp) -> Bytes {
        self.bytes[0] = VERSION;
        self.bytes[4..8].copy_from_slice(&self.count.to_be_bytes());
        self.bytes[8..16].copy_from_slice(&stamp.get().to_be_bytes());
        // The log's tail cache counts what is written and would hold all that was set aside.
        let is_roomy = self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8;
        if is_roomy { Bytes::copy_from_slice(&self.bytes) } else { self.bytes.freeze() }
    }
}

/// The bytes of a batch while a command is added. A part of a command goes again, whatever way the adding ends.
struct Added<'a> {
    bytes: &'a mut BytesMut,
    whole: usize,
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        self.bytes.truncate(self.whole);
    }
}

/// A batch read back.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    /// The leader's time.
    pub stamp: Stamp,
    count: u32,
    commands: Cursor<'a>,
}

impl<'a> Batch<'a> {
    /// Reads the head of a batch.
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        match cursor.u8("batch version")? {
            VERSION => {}
            ..VERSION => return Err(cursor.malformed("batch version: written before the first release")),
            _ => return Err(cursor.malformed("batch version: written by a newer version")),
        }
        cursor.take(3, "batch head")?;
        let count = cursor.u32("command count")?;
        let stamp = Stamp(cursor.u64("stamp")?);
        Ok(Self { stamp, count, commands: cursor })
    }

    /// How many commands it holds.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether a command in it stores a message that nobody waits for: such a batch may not use the reserve of a full disk.
    pub(crate) fn brings_messages(&self) -> bool {
        self.readable().any(|command| command.brings_messages())
    }

    /// The commands in front of the first one that does not decode.
    pub(crate) fn readable(&self) -> impl Iterator<Item = Command<'a>> {
        let mut cursor = self.commands.clone();
        (0..self.count).map_while(move |_| Command::decode(&mut cursor).ok())
    }

    /// The commands in order: all of them, or what is wrong with the first one that cannot be applied.
    pub(crate) fn commands(&self) -> Result<Vec<Command<'a>>, Malformed> {
        let most = self.commands.remaining() / COMMAND_BYTES_MIN;
        let mut commands = Vec::with_capacity((self.count as usize).min(most));
        read(self.commands.clone(), self.count, |command| commands.push(command))?;
        Ok(commands)
    }
}
