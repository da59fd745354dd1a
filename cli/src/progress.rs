//! How far long work has come, on stderr.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use escrowmq_common::clock;

/// Between two lines on a terminal, where one replaces the other.
const ON_TERMINAL: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// A line on stderr that shows how far the work is. Short work shows nothing.
pub(crate) struct Line {
    is_terminal: bool,
    next: Duration,
    is_shown: bool,
}

impl Line {
    pub(crate) fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let pause = if is_terminal { ON_TERMINAL } else { ELSEWHERE };
        Self { is_terminal, next: clock::monotonic() + pause, is_shown: false }
    }

    /// Shows `stage`, and how many of `total` bytes are done, if the total is known.
    pub(crate) fn show(&mut self, stage: &str, done: u64, total: Option<u64>) {
        let now = clock::monotonic();
        if now < self.next {
            return;
        }
        self.next = now + if self.is_terminal { ON_TERMINAL } else { ELSEWHERE };
        let share = match total {
            None | Some(0) => String::new(),
            Some(total) => format!(" {} % of {}", done.min(total) * 100 / total, bytes(total)),
        };
        let mut stderr = std::io::stderr();
        // Nobody is worse off without this line.
        let _ = if self.is_terminal {
            write!(stderr, "\r\x1b[K{stage}:{share}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{stage}:{share}")
        };
        self.is_shown = self.is_terminal;
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprint!("\r\x1b[K");
        }
    }
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_that_they_fill() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
