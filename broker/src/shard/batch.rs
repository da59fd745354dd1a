//! A batch: what one log entry holds.
//!
//! Bytes: `version u8 | 0 u8 | 0 u16 | count u32 | stamp u64 | commands`. The leader puts the stamp in when it seals the
//! batch: the wall-clock time, in milliseconds since 1970, that apply takes for "now" on every replica.

use bytes::{Bytes, BytesMut};

use super::bytes::{Cursor, Malformed};
use super::command::Command;

/// The format that this version writes.
const VERSION: u8 = 1;
/// Bytes in front of the first command.
pub const HEAD_BYTES: usize = 16;

/// A batch while commands are added to it.
#[derive(Debug)]
pub struct OpenBatch {
    bytes: BytesMut,
    count: u32,
    /// Commands that bring new messages.
    new_messages: u32,
}

impl OpenBatch {
    /// An empty batch with room for `capacity` bytes of commands.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + capacity);
        bytes.resize(HEAD_BYTES, 0);
        Self { bytes, count: 0, new_messages: 0 }
    }

    /// Adds a command.
    pub fn push(&mut self, command: &Command<'_>) {
        command.encode(&mut self.bytes);
        self.count += 1;
        self.new_messages += u32::from(command.brings_messages());
    }

    /// Whether there are commands that bring new messages: those that a full disk refuses.
    pub fn brings_messages(&self) -> bool {
        self.new_messages > 0
    }

    /// The same without the commands that bring new messages, and for each command, in order, whether it stayed.
    pub fn without_messages(&self) -> (Self, Vec<bool>) {
        let mut rest = Self::with_capacity(4096);
        let mut cursor = Cursor::based(&self.bytes[HEAD_BYTES..], HEAD_BYTES);
        let stayed = (0..self.count)
            .map(|_| {
                let command = Command::decode(&mut cursor).expect("encoded by us a moment ago");
                let stays = !command.brings_messages();
                if stays {
                    rest.push(&command);
                }
                stays
            })
            .collect();
        (rest, stayed)
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the commands alone.
    pub fn command_bytes(&self) -> u64 {
        (self.bytes.len() - HEAD_BYTES) as u64
    }

    /// Whether no command was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Closes the batch with its time.
    pub fn seal(mut self, stamp: u64) -> Bytes {
        self.bytes[0] = VERSION;
        self.bytes[4..8].copy_from_slice(&self.count.to_be_bytes());
        self.bytes[8..16].copy_from_slice(&stamp.to_be_bytes());
        // The log's tail cache counts what is written and would hold all that was set aside.
        let is_roomy = self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8;
        if is_roomy { Bytes::copy_from_slice(&self.bytes) } else { self.bytes.freeze() }
    }
}

/// A batch read back.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The leader's time, in milliseconds since 1970.
    pub stamp: u64,
    count: u32,
    commands: Cursor<'a>,
}

impl<'a> Batch<'a> {
    /// Reads the head of a batch.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u8("batch version")? != VERSION {
            return Err(cursor.malformed("batch version: written by a newer version"));
        }
        cursor.take(3, "batch head")?;
        let count = cursor.u32("command count")?;
        let stamp = cursor.u64("stamp")?;
        Ok(Self { stamp, count, commands: cursor })
    }

    /// The commands in order.
    pub fn commands(&self) -> impl Iterator<Item = Result<Command<'a>, Malformed>> {
        let mut cursor = self.commands.clone();
        (0..self.count).map(move |_| Command::decode(&mut cursor))
    }
}
