//! Unanswered checks per connection. A Java client queues 2,000 checks and drops the rest, so no more than
//! [`WINDOW`] are on their way to one connection.

use std::collections::{HashMap, HashSet};

/// Most unanswered checks of one connection.
pub const WINDOW: usize = 1000;

/// What was asked on each connection and not answered.
#[derive(Debug, Default)]
pub struct Windows {
    connections: HashMap<u64, Window>,
}

#[derive(Debug)]
struct Window {
    halves: HashSet<u64>,
    /// When the window was opened anew, in milliseconds since 1970: what is older counts as lost.
    since: u64,
}

impl Windows {
    /// Whether another check may be sent on this connection at `now`. Checks that were not answered within `lost_after`
    /// milliseconds count as lost, so that a client that never answers is still asked, slowly.
    pub fn has_room(&mut self, connection: u64, now: u64, lost_after: u64) -> bool {
        let Some(window) = self.connections.get_mut(&connection) else { return true };
        if window.halves.len() >= WINDOW && now.saturating_sub(window.since) >= lost_after {
            window.halves.clear();
        }
        window.halves.len() < WINDOW
    }

    /// A check was sent.
    pub fn sent(&mut self, connection: u64, half: u64, now: u64) {
        let window =
            self.connections.entry(connection).or_insert_with(|| Window { halves: HashSet::new(), since: now });
        if window.halves.is_empty() {
            window.since = now;
        }
        window.halves.insert(half);
    }

    /// A check was answered; says whether that made room in a full window, or nothing if it had not been asked.
    pub fn answered(&mut self, connection: u64, half: u64) -> Option<bool> {
        let window = self.connections.get_mut(&connection)?;
        let was_full = window.halves.len() >= WINDOW;
        let removed = window.halves.remove(&half);
        if window.halves.is_empty() {
            self.connections.remove(&connection);
        }
        removed.then_some(was_full)
    }

    /// The connection is gone.
    pub fn forget(&mut self, connection: u64) {
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
            assert!(windows.has_room(1, 0, 1_000));
            windows.sent(1, half, 0);
        }
        assert!(!windows.has_room(1, 999, 1_000));
        assert!(windows.has_room(2, 0, 1_000), "another connection is not affected");
        assert_eq!(windows.answered(1, 5), Some(true));
        assert!(windows.has_room(1, 999, 1_000));
        assert_eq!(windows.answered(1, 5), None, "an answer counts once");
    }

    #[test]
    fn checks_that_are_never_answered_do_not_block_for_ever() {
        let mut windows = Windows::default();
        for half in 0..WINDOW as u64 {
            windows.sent(1, half, 10);
        }
        assert!(windows.has_room(1, 1_010, 1_000));
    }
}
