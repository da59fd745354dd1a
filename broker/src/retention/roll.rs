//! Moving bytes that must be kept: those of half messages and of messages that wait for their time.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::index::pin;
use crate::index::{self, HalfRow, meta};
use crate::shard::{Command, Message, Moved, ReadError, Roll, Shard};
use crate::terms::{HalfId, PinOwner, Position, Stamp};

/// Bytes of messages that one command moves; a larger single one goes alone.
const ROLL_BYTES: usize = 256 << 10;
/// Messages that one command moves.
const ROLL_COUNT: usize = 256;
/// Bytes of messages that a commit moves by itself. More are moved before it, command by command.
const COMMIT_BYTES: usize = 16 << 20;

/// Pinned bytes to be moved with one command.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// By position, lowest first: the owner, the hash of the tag, and the message.
    messages: BTreeMap<Position, (PinOwner, i32, Bytes)>,
    /// With it every undecided half with an id below has been moved.
    halves_upto: HalfId,
    /// Halves whose bytes are lost.
    pub(super) lost: Vec<HalfId>,
}

/// The pinned messages below `below`, as many as one command takes. Reads files.
///
/// A message that cannot be read just now, or is missing until an operator brings it back or gives it up, stays pinned where it is:
/// so no trim deletes it. Halves after it stay as well, until the next look.
pub(crate) fn gather(shard: &Shard, below: Position) -> Result<Load, ReadError> {
    let index = shard.index();
    let kept = meta::kept(index)?;
    let moved = kept.moved_halves.max(shard.counters().halves_from());
    let mut load = Load { halves_upto: moved, ..Load::default() };
    let mut bytes = 0;
    let mut full = false;
    index::half::scan(index, moved, |row| {
        full = bytes >= ROLL_BYTES || load.messages.len() >= ROLL_COUNT;
        if full || row.half.position() >= below {
            return false;
        }
        if row.position == row.half.position() {
            let owner = PinOwner::Half { half: row.half };
            match load.take(shard, owner, row.position, row.length, row.tag_hash) {
                Ok(length) => bytes += length,
                Err(error) if is_lost(&error) => load.lost.push(row.half),
                Err(_) => return false,
            }
        }
        load.halves_upto = row.half.next();
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

/// Whether no try and no operator brings the bytes back.
fn is_lost(error: &ReadError) -> bool {
    error.is_gone() || matches!(error, ReadError::Corrupt { .. })
}

/// The messages that are due up to `upto` and whose bytes lie below `below`, as much as one command takes. Reads files.
///
/// A damaged or missing message is left out: it becomes visible where it is, and its queue waits there for an operator. One that
/// cannot be read just now is an error: made visible without being moved, it would be trimmed too early.
pub(crate) fn gather_due(shard: &Shard, upto: Stamp, below: Position, limit: usize) -> Result<Load, ReadError> {
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
            match load.take(shard, owner, row.position, row.length, row.tag_hash) {
                Ok(length) => bytes += length,
                Err(error) if error.is_gone() || error.is_damage() => {}
                // The messages that were read already need not wait.
                Err(_) if !load.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(load)
}

impl Load {
    /// Reads a message and says its length.
    fn take(
        &mut self,
        shard: &Shard,
        owner: PinOwner,
        position: Position,
        length: u32,
        tag_hash: i32,
    ) -> Result<usize, ReadError> {
        let unit = shard.raw_unit(position, length).inspect_err(|error| {
            tracing::error!(%error, ?owner, "bytes that must be kept cannot be read");
        })?;
        let length = unit.len();
        self.messages.insert(position, (owner, tag_hash, unit));
        Ok(length)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn halves_upto(&self) -> HalfId {
        self.halves_upto
    }

    #[cfg(test)]
    pub(crate) fn lost(&self) -> &[HalfId] {
        &self.lost
    }

    /// For each message its owner, its position, the hash of its tag and its bytes.
    #[cfg(test)]
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (PinOwner, Position, i32, Bytes)> {
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

/// How a commit treats the old bytes of its transaction.
#[derive(Debug)]
pub(crate) enum Rewritten {
    /// It brings these messages along: ids of their halves, hashes of their tags.
    Anew(Vec<(HalfId, i32, Bytes)>),
    /// These are more than one command should bring: they are moved first, and then it is looked again.
    Move(Load),
}

/// The messages of a half's transaction whose bytes lie below `below`: too old to stay for long after their commit. Reads
/// files. If one cannot be read, the transaction must not be committed now.
pub(crate) fn rewritten(shard: &Shard, half: HalfId, below: Position) -> Result<Rewritten, ReadError> {
    let Some(named) = shard.half(half)? else { return Ok(Rewritten::Anew(Vec::new())) };
    let first = match named.first_half {
        Some(first) => shard.half(first)?.unwrap_or(named),
        None => named,
    };
    let mut old: Vec<HalfRow> = Vec::new();
    for id in std::iter::once(first.half).chain(first.members.iter().copied()) {
        old.extend(shard.half(id)?.filter(|row| row.position < below));
    }
    if old.iter().map(|row| row.length as usize).sum::<usize>() <= COMMIT_BYTES {
        let read = |row: &HalfRow| Ok((row.half, row.tag_hash, shard.raw_unit(row.position, row.length)?));
        return old.iter().map(read).collect::<Result<_, _>>().map(Rewritten::Anew);
    }
    let mut load = Load::default();
    let mut bytes = 0;
    for row in old {
        bytes += load.take(shard, PinOwner::Half { half: row.half }, row.position, row.length, row.tag_hash)?;
        if bytes >= ROLL_BYTES {
            break;
        }
    }
    Ok(Rewritten::Move(load))
}
