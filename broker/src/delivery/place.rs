//! The place of an offset in its queue, and its meaning for a pull.

use escrowmq_common::code::response;

use crate::terms::QueueOffset;

/// The result of a pull, under the protocol's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullStatus {
    /// Messages.
    Found,
    /// Messages, and the filter wants none of them.
    NoMatchedMessage,
    /// The queue never had a message.
    NoMessageInQueue,
    /// The offset is that of the next message to come.
    OffsetOverflowOne,
    /// The offset lies beyond that.
    OffsetOverflowBadly,
    /// The offset lies before the first message that is kept.
    OffsetTooSmall,
    /// The message was deleted while it was looked for.
    MessageWasRemoving,
    /// An operator moved the group to another offset.
    OffsetReset,
}

impl PullStatus {
    /// The remark of the answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Self::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            Self::OffsetReset => "OFFSET_RESET",
        }
    }

    /// The code of the answer to a pull from `offset`.
    pub(crate) fn code(self, offset: i64) -> i32 {
        match self {
            Self::Found => response::SUCCESS,
            Self::NoMatchedMessage | Self::MessageWasRemoving => response::PULL_RETRY_IMMEDIATELY,
            Self::OffsetOverflowOne => response::PULL_NOT_FOUND,
            Self::NoMessageInQueue if offset == 0 => response::PULL_NOT_FOUND,
            Self::NoMessageInQueue | Self::OffsetOverflowBadly | Self::OffsetTooSmall | Self::OffsetReset => {
                response::PULL_OFFSET_MOVED
            }
        }
    }
}

/// Where an offset lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a message: read from here.
    At(QueueOffset),
    /// At the next message to come: the pull may wait for it.
    Next(PullStatus, QueueOffset),
    /// Outside: answer this, with this offset to go on at.
    Outside(PullStatus, QueueOffset),
}

/// Places `offset` in a queue that keeps the messages from `min` up to, not including, `max`.
pub(crate) fn place(offset: i64, min: QueueOffset, max: QueueOffset) -> Place {
    if max == QueueOffset::ZERO {
        return match offset {
            0 => Place::Next(PullStatus::NoMessageInQueue, QueueOffset::ZERO),
            _ => Place::Outside(PullStatus::NoMessageInQueue, QueueOffset::ZERO),
        };
    }
    let Ok(offset) = u64::try_from(offset).map(QueueOffset) else {
        return Place::Outside(PullStatus::OffsetTooSmall, min);
    };
    if offset < min {
        Place::Outside(PullStatus::OffsetTooSmall, min)
    } else if offset < max {
        Place::At(offset)
    } else if offset == max {
        Place::Next(PullStatus::OffsetOverflowOne, offset)
    } else {
        Place::Outside(PullStatus::OffsetOverflowBadly, max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_answer() {
        use PullStatus::*;
        let table = [
            // offset, min, max: place, code
            (0, 0, 0, Place::Next(NoMessageInQueue, QueueOffset::ZERO), 19),
            (7, 0, 0, Place::Outside(NoMessageInQueue, QueueOffset::ZERO), 21),
            (-1, 0, 0, Place::Outside(NoMessageInQueue, QueueOffset::ZERO), 21),
            (-1, 0, 5, Place::Outside(OffsetTooSmall, QueueOffset::ZERO), 21),
            (2, 3, 5, Place::Outside(OffsetTooSmall, QueueOffset(3)), 21),
            (3, 3, 5, Place::At(QueueOffset(3)), 0),
            (4, 3, 5, Place::At(QueueOffset(4)), 0),
            (5, 3, 5, Place::Next(OffsetOverflowOne, QueueOffset(5)), 19),
            (6, 3, 5, Place::Outside(OffsetOverflowBadly, QueueOffset(5)), 21),
            (i64::MAX, 3, 5, Place::Outside(OffsetOverflowBadly, QueueOffset(5)), 21),
            // Everything expired.
            (5, 5, 5, Place::Next(OffsetOverflowOne, QueueOffset(5)), 19),
            (0, 5, 5, Place::Outside(OffsetTooSmall, QueueOffset(5)), 21),
        ];
        for (offset, min, max, expected, code) in table {
            let found = place(offset, QueueOffset(min), QueueOffset(max));
            assert_eq!(found, expected, "{offset} in {min}..{max}");
            let status = match found {
                Place::At(_) => Found,
                Place::Next(status, _) | Place::Outside(status, _) => status,
            };
            assert_eq!(status.code(offset), code, "{offset} in {min}..{max}");
        }
    }
}
