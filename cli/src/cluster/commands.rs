//! What the reader types.

use std::io::BufRead as _;

use escrowmq_common::task::Tasks;
use tokio::sync::mpsc;

/// Lines that wait to be carried out.
const LINES_MAX: usize = 16;

pub(super) const HELP: &str =
    "kill a1 | start a1 | pause a1 | resume a1 (a0 to b2, ns0, ns1; a or b: the leader of the group) | quit";

/// Something that is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// `kill -9`.
    Kill,
    /// Starts one that has ended.
    Start,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
}

/// A line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// To a process, or to the leader of a group, by name.
    Do(Deed, String),
    /// The end.
    Quit,
}

impl Command {
    /// Reads a line; an error is what to tell the reader.
    pub(super) fn read(line: &str) -> Result<Command, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, name) = match words[..] {
            ["quit" | "q" | "exit"] => return Ok(Command::Quit),
            [verb, name] => (verb, name),
            _ => return Err(HELP.to_owned()),
        };
        let deed = match verb {
            "kill" => Deed::Kill,
            "start" => Deed::Start,
            "pause" => Deed::Pause,
            "resume" => Deed::Resume,
            _ => return Err(HELP.to_owned()),
        };
        Ok(Command::Do(deed, name.to_owned()))
    }
}

/// The lines of standard input, until it ends.
pub(super) fn read() -> std::io::Result<mpsc::Receiver<String>> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    // Nobody waits for its end: it hangs in a read until the process ends.
    Tasks::new().spawn_thread("commands", move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_get_help() {
        assert_eq!(Command::read(" kill  a1 "), Ok(Command::Do(Deed::Kill, "a1".to_owned())));
        assert_eq!(Command::read("resume ns0"), Ok(Command::Do(Deed::Resume, "ns0".to_owned())));
        assert_eq!(Command::read("q"), Ok(Command::Quit));
        for line in ["", "kill", "kill a1 a2", "destroy a1"] {
            assert_eq!(Command::read(line), Err(HELP.to_owned()), "{line}");
        }
    }
}
