//! Where the table is shown: at one place of a terminal, above the line in which commands are typed, or one after the other.

use std::io::{IsTerminal as _, Write as _};

/// Lines that were told last and stay on the screen.
const WORDS_MAX: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
    /// The cursor is under the table.
    is_placed: bool,
    words: Vec<String>,
}

impl Screen {
    /// Clears a terminal.
    pub(super) fn open() -> Screen {
        let is_terminal = std::io::stdout().is_terminal();
        if is_terminal {
            print("\x1b[2J\x1b[H");
        }
        Screen { is_terminal, is_placed: false, words: vec![String::new(); WORDS_MAX] }
    }

    /// Something to tell, which is shown with the next table.
    pub(super) fn say(&mut self, words: String) {
        self.words.remove(0);
        self.words.push(words);
        if self.is_terminal {
            // The line that was typed.
            print("\x1b[1A\x1b[J");
        }
    }

    /// What was told last.
    pub(super) fn last_words(&self) -> &[String] {
        &self.words
    }

    /// Shows a table.
    pub(super) fn show(&mut self, table: &str) {
        if !self.is_terminal {
            return print(&format!("{table}\n"));
        }
        // The cursor goes back to the line in which the reader types.
        let mut text = "\x1b7\x1b[H".to_owned();
        for line in table.lines() {
            text.push_str(line);
            text.push_str("\x1b[K\n");
        }
        if self.is_placed {
            text.push_str("\x1b8");
        }
        self.is_placed = true;
        print(&text);
    }
}

/// Whoever watches may have gone; the cluster goes on.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
