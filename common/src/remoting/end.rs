//! Why a connection ended, and who has to know.

use std::fmt;
use std::io;

use super::budget::{BudgetCounts, count};
use super::connection::{NO_ROOM, NOT_READING};
use crate::frame::FrameError;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The peer closed it.
    Peer,
    /// The system says that it is gone.
    Io(io::Error),
    /// It was closed from our side.
    Us(&'static str),
    /// The bytes that arrived are no frame.
    Undecodable(FrameError),
    /// The bytes in front are no valid PROXY header.
    Header(&'static str),
    /// A PROXY header was not finished.
    SlowHeader,
    /// A frame was not finished.
    SlowFrame,
    /// The client that a trusted load balancer named has too many connections.
    TooMany,
    /// Answers were not taken.
    SlowReader,
    /// It held bytes that others need, and made no progress.
    InTheWay,
    /// There is no room for a frame, nor for an answer that says so.
    NoRoom,
    /// Nothing happened on it for long.
    Idle,
    /// The handling of a request panicked.
    Panic,
}

impl End {
    /// Whether this happens in a healthy system every day.
    pub(super) fn is_ordinary(&self) -> bool {
        match self {
            End::Peer | End::Io(_) | End::Idle => true,
            End::Us(why) => *why != NOT_READING && *why != NO_ROOM,
            End::Undecodable(_)
            | End::Header(_)
            | End::SlowHeader
            | End::SlowFrame
            | End::TooMany
            | End::SlowReader
            | End::InTheWay
            | End::NoRoom
            | End::Panic => false,
        }
    }

    /// Whether the peer held bytes by not taking them: what the system still has for it is not worth keeping either.
    pub(super) fn is_abrupt(&self) -> bool {
        match self {
            End::SlowReader | End::InTheWay | End::NoRoom => true,
            End::Us(why) => *why == NOT_READING || *why == NO_ROOM,
            _ => false,
        }
    }

    /// Counts it where it shows an attack, or a limit that is too low.
    pub(super) fn count(&self, counts: &BudgetCounts) {
        match self {
            End::Undecodable(_) | End::Header(_) | End::SlowHeader | End::SlowFrame => count(&counts.bad_input),
            End::SlowReader => count(&counts.slow_readers),
            End::InTheWay | End::NoRoom => count(&counts.evicted),
            End::Us(why) if *why == NOT_READING => count(&counts.slow_readers),
            End::Us(why) if *why == NO_ROOM => count(&counts.evicted),
            // Counted when it was refused.
            End::TooMany | End::Peer | End::Io(_) | End::Us(_) | End::Idle | End::Panic => {}
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Peer => f.write_str("closed by peer"),
            End::Io(error) => write!(f, "{error}"),
            End::Us(why) | End::Header(why) => f.write_str(why),
            End::Undecodable(error) => write!(f, "{error}"),
            End::SlowHeader => f.write_str("a PROXY header was begun and not finished in time"),
            End::SlowFrame => f.write_str("a frame was begun and not finished in time"),
            End::TooMany => f.write_str("too many connections from the address that the load balancer names"),
            End::SlowReader => f.write_str("peer reads too slowly, or not at all"),
            End::InTheWay => {
                f.write_str("all connections together hold nearly as much as they may, and this one made no progress")
            }
            End::NoRoom => f.write_str("no room for a frame: all connections together hold as much as they may"),
            End::Idle => f.write_str("idle"),
            End::Panic => f.write_str("handling a request panicked"),
        }
    }
}
