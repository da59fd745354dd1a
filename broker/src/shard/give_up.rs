//! Bytes of the log that an operator has given up, because their file is damaged or missing.
//!
//! A message whose bytes cannot be read holds up its queue, for all groups alike: a message that is skipped in silence
//! is lost without anybody knowing. An operator who cannot bring the bytes back passes them with a command in the log,
//! and from then on readers on every replica go on after them.

use std::ops::Range;

use super::handle::Shard;
use super::read::{MESSAGE_HEAD_BYTES, ReadError};
use crate::index;
use crate::terms::to_usize;
use crate::terms::{HalfId, Position};

/// Entries of a queue that are looked at in one go.
const LOOK_ENTRIES: usize = 4096;

/// Why a position cannot be given up. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum GiveUpError {
    /// There is no message.
    #[error("log position {0} is none of a message that should be there")]
    NoSuchPlace(Position),
    /// There is nothing wrong.
    #[error("the message at log position {0} can be read: there is nothing to give up")]
    Readable(Position),
    /// It was given up before.
    #[error("the message at log position {0} was given up before")]
    GivenUpBefore(Position),
    /// It cannot be read just now, which may pass.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Shard {
    /// The bytes that an operator gives up with the message at `position`, which cannot be read: all that its file does
    /// not hold, or the message alone if its bytes are not what was written. May read files.
    pub fn to_give_up(&self, position: Position) -> Result<Range<Position>, GiveUpError> {
        let unreadable = |source| GiveUpError::Read(self.unreadable(position, source));
        if self.lost().holds(position) {
            return Err(GiveUpError::GivenUpBefore(position));
        }
        let head_at = position.back(MESSAGE_HEAD_BYTES).ok_or(GiveUpError::NoSuchPlace(position))?;
        if position < self.counters().trimmed() || position >= self.log().end() {
            return Err(GiveUpError::NoSuchPlace(position));
        }
        if let Some(missing) = self.log().missing_around(position).map_err(unreadable)? {
            return Ok(missing);
        }
        let head = self.log().read(head_at, to_usize(MESSAGE_HEAD_BYTES)).map_err(unreadable)?;
        let length = u32::from_be_bytes(head[8..12].try_into().expect("four bytes"));
        match self.raw_unit(position, length) {
            Ok(_) => Err(GiveUpError::Readable(position)),
            // Any bytes that are no message look like a damaged one.
            Err(error) if error.is_damage() && !self.is_of_a_message(position)? => {
                Err(GiveUpError::NoSuchPlace(position))
            }
            Err(error) if error.is_damage() => Ok(position..position.advance(1)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a queue, an undecided half or a message that waits for its time points at this position. Looks at every entry
    /// there is.
    fn is_of_a_message(&self, position: Position) -> Result<bool, ReadError> {
        let is_half =
            index::half::get(self.index(), HalfId::at(position))?.is_some_and(|half| half.position == position);
        let mut is_pinned = false;
        index::pin::scan(self.index(), position, position.advance(1), |_, _| {
            is_pinned = true;
            false
        })?;
        Ok(is_half || is_pinned || self.entries_within(&(position..position.advance(1)))? > 0)
    }

    /// How many entries of queues point at messages in this range. Looks at every entry there is.
    pub fn entries_within(&self, positions: &Range<Position>) -> Result<u64, ReadError> {
        let mut found = 0;
        for queue in self.topics().all().iter().flat_map(|topic| &topic.queues) {
            let mut next = queue.min_offset();
            loop {
                let looked = self.entries(queue, next, usize::MAX, LOOK_ENTRIES, |entry| {
                    found += u64::from(positions.contains(&entry.position));
                    false
                })?;
                if looked.next_offset <= next {
                    break;
                }
                next = looked.next_offset;
            }
        }
        Ok(found)
    }
}
