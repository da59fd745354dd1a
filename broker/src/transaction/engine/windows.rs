//! Unanswered checks per connection. A Java client queues 2,000 checks and drops the rest, so no more than
//! [`WINDOW`] are on their way to one connection.

use std::collections::{BTreeSet, HashMap};

use crate::terms::{HalfId, Stamp};

/// Most unanswered checks of one connection.
pub(crate) const WINDOW: usize = 1000;

/// The checks of each connection that were not answered.
#[derive(Debug, Default)]
pub(super) struct Windows {
    connections: HashMap<u64, Window>,
}

/// Both hold the same checks.
#[derive(Debug, Default)]
struct Window {
    /// When each half was asked about.
    halves: HashMap<HalfId, Stamp>,
    /// The same by time.
    oldest: BTreeSet<(Stamp, HalfId)>,
}

impl Window {
    fn remove(&mut self, half: HalfId) -> Option<Stamp> {
        let asked = self.halves.remove(&half);
        if let Some(at) = asked {
            self.oldest.remove(&(at, half));
        }
        asked
    }
}

impl Windows {
    /// How many answers the connection owes.
    pub(super) fn owed(&self, connection: u64) -> usize {
        self.connections.get(&connection).map_or(0, |window| window.halves.len())
    }

    /// Whether another check may go to this connection at `now`. In a full window a check that was not answered within
    /// `lost_after` milliseconds counts as lost, so that a client that never answers is still asked, slowly.
    pub(super) fn has_room(&mut self, connection: u64, now: Stamp, lost_after: u64) -> bool {
        let Some(window) = self.connections.get_mut(&connection) else { return true };
        if window.halves.len() < WINDOW {
            return true;
        }
        while let Some((at, half)) = window.oldest.first().copied()
            && at.saturating_add(lost_after) <= now
        {
            window.remove(half);
        }
        window.halves.len() < WINDOW
    }

    /// A check is on its way. One half takes one place, however often it is asked about.
    pub(super) fn asked(&mut self, connection: u64, half: HalfId, now: Stamp) {
        let window = self.connections.entry(connection).or_default();
        window.remove(half);
        window.halves.insert(half, now);
        window.oldest.insert((now, half));
    }

    /// A check was answered, or not sent after all; says when it was made, if the connection owed the answer.
    pub(super) fn answered(&mut self, connection: u64, half: HalfId) -> Option<Stamp> {
        let window = self.connections.get_mut(&connection)?;
        let owed = window.remove(half);
        if window.halves.is_empty() {
            self.connections.remove(&connection);
        }
        owed
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_takes_no_more_until_an_answer() {
        let mut windows = Windows::default();
        for half in 0..WINDOW as u64 {
            assert!(windows.has_room(1, Stamp::ZERO, 1_000));
            windows.asked(1, HalfId(half), Stamp::ZERO);
        }
        assert!(!windows.has_room(1, Stamp(999), 1_000));
        assert!(windows.has_room(2, Stamp::ZERO, 1_000), "another connection is not affected");
        assert_eq!(windows.answered(1, HalfId(5)), Some(Stamp::ZERO));
        assert!(windows.has_room(1, Stamp(999), 1_000));
        assert_eq!(windows.answered(1, HalfId(5)), None, "an answer counts once");
        windows.forget(1);
        assert_eq!(windows.owed(1), 0);
    }

    #[test]
    fn checks_that_are_never_answered_do_not_block_for_ever() {
        let mut windows = Windows::default();
        for half in 0..WINDOW as u64 {
            windows.asked(1, HalfId(half), Stamp(10 + half));
        }
        assert!(!windows.has_room(1, Stamp(1_009), 1_000));
        assert!(windows.has_room(1, Stamp(1_012), 1_000));
        assert_eq!(windows.owed(1), WINDOW - 3, "only what is lost is forgotten");
    }

    #[test]
    fn one_half_takes_one_place() {
        let mut windows = Windows::default();
        windows.asked(1, HalfId(7), Stamp::ZERO);
        windows.asked(1, HalfId(7), Stamp(5));
        assert_eq!(windows.owed(1), 1);
        assert_eq!(windows.answered(1, HalfId(7)), Some(Stamp(5)));
        assert_eq!(windows.owed(1), 0);
    }
}
