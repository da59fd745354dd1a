//! How fast old entries, and files of a copy of the state, are read for a member that is behind.
//!
//! Reading, sending and storing them takes disk, network and processors from the clients that are served meanwhile. So the member
//! comes nearer by [`RATE`] at most, whatever is appended meanwhile: it always arrives. While nobody is served there is no bound,
//! least of all when the group waits for this member to have a majority.

use std::time::Duration;

use crate::terms::{LogIndex, Position};

/// Bytes per second by which a member comes nearer while clients are served.
const RATE: u64 = 128 << 20;
/// Clients are served if something was committed within this time.
const SERVED: Duration = Duration::from_secs(1);

/// The pace of one member.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Before this time nothing is read.
    next: Duration,
    /// As they were at the last read.
    end: Position,
    committed: Option<LogIndex>,
    /// When it was seen that more was committed.
    served: Option<Duration>,
}

impl Pace {
    /// When the next read may begin.
    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// So many bytes were read in a read that began at `began`, when the log ended here and had this committed.
    pub(super) fn note(&mut self, bytes: u64, began: Duration, end: Position, committed: Option<LogIndex>) {
        let nearer = bytes.saturating_sub(end.get().saturating_sub(self.end.get()));
        if committed > self.committed {
            // The first read sees what was committed before.
            self.served = self.committed.map(|_| began);
        }
        (self.end, self.committed) = (end, committed);
        let is_served = self.served.is_some_and(|at| began.saturating_sub(at) < SERVED);
        let takes = if is_served { Duration::from_nanos(nearer * 1_000_000_000 / RATE) } else { Duration::ZERO };
        self.next = began + takes;
    }

    /// Plans the next read of so many bytes, of something that does not grow. Says how long the read waits, given the last entry that was
    /// committed.
    pub(crate) fn claim(&mut self, bytes: u64, now: Duration, committed: Option<LogIndex>) -> Duration {
        let begins = self.next.max(now);
        self.note(bytes, begins, Position::ZERO, committed);
        begins.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = 1 << 20;

    /// How long it takes to read this much behind a log that grows by so many bytes from read to read, of which all is committed.
    fn takes(reads: u64, grows: u64) -> Duration {
        let mut pace = Pace::default();
        for nth in 0..reads {
            pace.note(READ, pace.next(), Position(nth * grows), Some(LogIndex(nth)));
        }
        pace.next()
    }

    #[test]
    fn a_member_comes_nearer_by_the_rate_while_clients_are_served() {
        let millis = takes(129, 0).as_millis();
        assert!((1_000..1_020).contains(&millis), "{millis}");
        // Of each read half is nearer: it takes half the time.
        let millis = takes(129, READ / 2).as_millis();
        assert!((500..520).contains(&millis), "{millis}");
        assert!(takes(129, READ) < Duration::from_millis(10), "what is no nearer costs nothing");
    }

    #[test]
    fn what_is_asked_for_at_once_waits_in_turn() {
        let mut pace = Pace::default();
        let now = Duration::from_secs(5);
        let mut claim = |entry| pace.claim(READ, now, Some(LogIndex(entry))).as_micros();
        assert_eq!([claim(1), claim(1), claim(2), claim(2), claim(3)], [0, 0, 0, 7_812, 15_625]);
    }

    #[test]
    fn nobody_is_served_while_nothing_is_committed() {
        let mut pace = Pace::default();
        let at = |millis| Duration::from_millis(millis);
        for millis in [0, 1] {
            pace.note(READ, at(millis), Position(0), Some(LogIndex(7)));
            assert_eq!(pace.next(), at(millis));
        }
        pace.note(READ, at(2), Position(0), Some(LogIndex(8)));
        assert!(pace.next() > at(9));
        pace.note(READ, at(1_001), Position(0), Some(LogIndex(8)));
        assert!(pace.next() > at(1_008), "a moment ago it was");
        pace.note(READ, at(1_002), Position(0), Some(LogIndex(8)));
        assert_eq!(pace.next(), at(1_002));
    }
}
