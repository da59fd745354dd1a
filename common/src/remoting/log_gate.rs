//! Keeps what peers do from flooding the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets one line of a kind through in a time, and counts those that it holds back.
#[derive(Debug)]
pub struct LogGate {
    gap: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl LogGate {
    /// One line in `gap`.
    pub const fn new(gap: Duration) -> LogGate {
        LogGate { gap, state: Mutex::new(State { last: None, held_back: 0 }) }
    }

    /// Whether a line may be written now; if so, how many were held back since the last one.
    pub fn open(&self) -> Option<u64> {
        self.open_at(Instant::now())
    }

    fn open_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now - last < self.gap) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_second_with_the_number_of_those_before() {
        let (gate, start) = (LogGate::new(Duration::from_secs(1)), Instant::now());
        assert_eq!(gate.open_at(start), Some(0));
        for ms in 0..999 {
            assert_eq!(gate.open_at(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(gate.open_at(start + Duration::from_secs(1)), Some(999));
        assert_eq!(gate.open_at(start + Duration::from_secs(1)), None);
    }
}
