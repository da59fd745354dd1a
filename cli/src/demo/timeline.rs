//! The demo's output: one line per fact, with the time since its start.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use escrowmq_common::clock;

/// The kind of fact that a line tells; its first column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A process came or went.
    Process,
    /// A half message is stored.
    Half,
    /// Nobody sees a half message.
    Hidden,
    /// The producer decided.
    Decided,
    /// The broker asked the producer group.
    Checked,
    /// A consumer got a message.
    Delivered,
    /// Something ended by force.
    Killed,
    /// Something that was claimed was verified.
    Proved,
}

impl Fact {
    fn word(self) -> &'static str {
        match self {
            Fact::Process => "process",
            Fact::Half => "half stored",
            Fact::Hidden => "hidden",
            Fact::Decided => "decided",
            Fact::Checked => "checked back",
            Fact::Delivered => "delivered",
            Fact::Killed => "kill -9",
            Fact::Proved => "proved",
        }
    }

    /// The number of an ANSI colour.
    fn colour(self) -> u8 {
        match self {
            Fact::Process => 90,
            Fact::Half => 33,
            Fact::Hidden => 35,
            Fact::Decided => 34,
            Fact::Checked => 36,
            Fact::Delivered | Fact::Proved => 32,
            Fact::Killed => 31,
        }
    }
}

/// Prints facts in the order in which they happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    start: Duration,
    in_colour: bool,
}

impl Timeline {
    /// Time counts from now.
    pub(super) fn start() -> Timeline {
        let in_colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Timeline { start: clock::monotonic(), in_colour }
    }

    /// A new chapter.
    pub(super) fn chapter(self, title: &str) {
        let (on, off) = self.paint(1);
        self.write(&format!("\n{on}{title}{off}"));
    }

    /// Something happened.
    pub(super) fn tell(self, fact: Fact, what: &str) {
        let (on, off) = self.paint(fact.colour());
        self.write(&format!("{:8.3} s  {on}{:<12}{off}  {what}", self.elapsed().as_secs_f64(), fact.word()));
    }

    /// Plain text.
    pub(super) fn note(self, text: &str) {
        self.write(text);
    }

    /// Why the demo did not succeed.
    pub(super) fn failure(self, reason: &str) {
        let (on, off) = self.paint(31);
        self.write(&format!("\n{on}FAILED{off} after {:.1} s: {reason}", self.elapsed().as_secs_f64()));
    }

    /// Time since the start.
    pub(super) fn elapsed(self) -> Duration {
        clock::monotonic().saturating_sub(self.start)
    }

    fn paint(self, colour: u8) -> (String, &'static str) {
        if self.in_colour { (format!("\x1b[{colour}m"), "\x1b[0m") } else { (String::new(), "") }
    }

    #[expect(clippy::unused_self, reason = "so that nothing else prints")]
    fn write(self, line: &str) {
        // A reader that went away (`| head`) is no reason to stop: the exit code still tells.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}
