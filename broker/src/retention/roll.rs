//! Moving bytes that must be kept: those of half messages and of messages that wait for their time.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::index::pin::{self, PinOwner};
use crate::index::{self, IndexError, meta};
use crate::shard::{Command, Message, Moved, Roll, Shard};

/// Bytes of messages that one command moves; a larger single one goes alone.
const ROLL_BYTES: usize = 256 << 10;
/// Messages that one command moves.
const ROLL_COUNT: usize = 256;

/// Pinned bytes to be moved with one command.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// By position, lowest first: whose, and the message.
    messages: BTreeMap<u64, (PinOwner, i64, Bytes)>,
    /// With it every undecided half with an id below has been moved.
    halves_upto: u64,
    /// Halves whose bytes cannot be read.
    pub(super) unreadable: Vec<u64>,
}

/// What is pinned below `below`, as much as one command takes. Reads files.
pub(crate) fn gather(shard: &Shard, below: u64) -> Result<Load, IndexError> {
    let index = shard.index();
    let kept = meta::kept(index)?;
    let moved = kept.moved_halves.max(shard.counters().halves_from());
    let mut load = Load { halves_upto: moved, ..Load::default() };
    let mut bytes = 0;
    let mut full = false;
    index::half::scan(index, moved, |row| {
        full = bytes >= ROLL_BYTES || load.messages.len() >= ROLL_COUNT;
        if full || row.half >= below {
            return false;
        }
        if row.position == row.half {
            let owner = PinOwner::Half { half: row.half };
            match load.take(shard, owner, row.position, row.length, row.tag_hash) {
                Some(length) => bytes += length,
                None => load.unreadable.push(row.half),
            }
        }
        load.halves_upto = row.half + 1;
        true
    })?;
    if full {
        return Ok(load);
    }
    let mut pins = Vec::new();
    pin::scan(index, kept.trimmed, below, |position, owner| {
        pins.push((position, owner));
        pins.len() < ROLL_COUNT
    })?;
    for (position, owner) in pins {
        if bytes >= ROLL_BYTES || load.messages.len() >= ROLL_COUNT {
            break;
        }
        let extent = match owner {
            PinOwner::Half { half } => index::half::get(index, half)?.map(|row| (row.length, row.tag_hash)),
            PinOwner::Timer { due } => index::timer::get(index, due, position)?.map(|row| (row.length, row.tag_hash)),
        };
        let Some((length, tag_hash)) = extent else { continue };
        bytes += load.take(shard, owner, position, length, tag_hash).unwrap_or_default();
    }
    Ok(load)
}

/// The messages that are due up to `upto` and whose bytes lie below `below`, as much as one command takes. Reads files.
pub(crate) fn gather_due(shard: &Shard, upto: u64, below: u64, limit: usize) -> Result<Load, IndexError> {
    let index = shard.index();
    let mut load = Load { halves_upto: meta::kept(index)?.moved_halves, ..Load::default() };
    let mut bytes = 0;
    let from = shard.counters().timers_from();
    for row in index::timer::due(index, from, upto, limit)? {
        if bytes >= ROLL_BYTES {
            break;
        }
        if row.position < below {
            let owner = PinOwner::Timer { due: row.due };
            bytes += load.take(shard, owner, row.position, row.length, row.tag_hash).unwrap_or_default();
        }
    }
    Ok(load)
}

impl Load {
    /// Reads a message; says its length, or nothing if it cannot be read.
    fn take(&mut self, shard: &Shard, owner: PinOwner, position: u64, length: u32, tag_hash: i32) -> Option<usize> {
        match shard.raw_unit(position, length) {
            Ok(unit) => {
                let length = unit.len();
                self.messages.insert(position, (owner, i64::from(tag_hash), unit));
                Some(length)
            }
            Err(error) => {
                tracing::error!(%error, ?owner, "bytes that must be kept cannot be read");
                None
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn halves_upto(&self) -> u64 {
        self.halves_upto
    }

    /// Whose, where from, hash of the tag, and the message.
    #[cfg(test)]
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (PinOwner, u64, i64, Bytes)> {
        self.messages.iter().map(|(from, (owner, tag_hash, unit))| (*owner, *from, *tag_hash, unit.clone()))
    }

    /// Bytes of the messages.
    pub(super) fn bytes(&self) -> u64 {
        self.messages.values().map(|(_, _, unit)| unit.len() as u64).sum()
    }

    /// Hands the command to `with`.
    pub(crate) fn command<R>(&self, with: impl FnOnce(&Command<'_>) -> R) -> R {
        let moved = self.messages.iter().map(|(from, (owner, tag_hash, unit))| Moved {
            owner: *owner,
            from: *from,
            message: Message::new(*tag_hash, unit),
        });
        with(&Command::Roll(Roll { halves_upto: self.halves_upto, moved: moved.collect() }))
    }
}

/// The messages of a half's transaction whose bytes lie below `below`: too old to stay for long after their commit. With the
/// ids of their halves and the hashes of their tags. Reads files.
pub(crate) fn rewritten(shard: &Shard, half: u64, below: u64) -> Result<Vec<(u64, i64, Bytes)>, IndexError> {
    let Some(named) = shard.half(half)? else { return Ok(Vec::new()) };
    let first = match named.first_half {
        Some(first) => shard.half(first)?.unwrap_or(named),
        None => named,
    };
    let mut messages = Vec::new();
    let ids = std::iter::once(first.half).chain(first.members.iter().copied());
    for id in ids {
        let Some(row) = shard.half(id)?.filter(|row| row.position < below) else { continue };
        match shard.raw_unit(row.position, row.length) {
            Ok(unit) => messages.push((id, i64::from(row.tag_hash), unit)),
            Err(error) => tracing::error!(%error, half = id, "the bytes of a half message cannot be read"),
        }
    }
    Ok(messages)
}
