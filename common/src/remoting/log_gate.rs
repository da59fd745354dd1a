//! Keeps what peers do from flooding the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Writes a line of the log that peers may cause as often as they like: of its place in the code at most 20 come through in 10
/// seconds. The field `others` of the next one has the number of those before it that did not. The level comes first, then what
/// `tracing` takes.
#[macro_export]
macro_rules! some_lines {
    ($level:ident, $($line:tt)+) => {{
        static GATE: $crate::remoting::LogGate =
            $crate::remoting::LogGate::several(20, ::std::time::Duration::from_secs(10));
        if let Some(others) = GATE.open() {
            let others = (others > 0).then_some(others);
            ::tracing::$level!(others, $($line)+);
        }
    }};
}

/// Lets some lines of a kind through in a time, and counts those that it holds back.
#[derive(Debug)]
pub struct LogGate {
    lines: u32,
    gap: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the first line of this time came.
    since: Option<Instant>,
    /// Lines that came through since then.
    lines: u32,
    held_back: u64,
}

impl LogGate {
    /// One line in `gap`.
    pub const fn new(gap: Duration) -> LogGate {
        LogGate::several(1, gap)
    }

    /// So many lines in `gap`.
    pub const fn several(lines: u32, gap: Duration) -> LogGate {
        LogGate { lines, gap, state: Mutex::new(State { since: None, lines: 0, held_back: 0 }) }
    }

    /// Whether a line may be written now; if so, how many were held back since the last one.
    pub fn open(&self) -> Option<u64> {
        self.open_at(Instant::now())
    }

    fn open_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.since.is_none_or(|since| now - since >= self.gap) {
            (state.since, state.lines) = (Some(now), 0);
        }
        if state.lines >= self.lines {
            state.held_back += 1;
            return None;
        }
        state.lines += 1;
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

    #[test]
    fn several_lines_come_at_once_and_then_none() {
        let (gate, start) = (LogGate::several(3, Duration::from_secs(10)), Instant::now());
        let opened: Vec<_> = (0..6).map(|second| gate.open_at(start + Duration::from_secs(second))).collect();
        assert_eq!(opened, [Some(0), Some(0), Some(0), None, None, None]);
        assert_eq!(gate.open_at(start + Duration::from_secs(10)), Some(3));
        assert_eq!(gate.open_at(start + Duration::from_secs(10)), Some(0));
    }
}
