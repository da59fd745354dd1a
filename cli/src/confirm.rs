//! Asking before something is done that cannot be undone.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::bail;

/// Refuses what nobody can be asked about: `yes` says that the operator is sure. Called before anything is asked of a broker.
pub(crate) fn refuse_if_nobody_can_be_asked(yes: bool) -> anyhow::Result<()> {
    if !yes && !io::stdin().is_terminal() {
        bail!("standard input is no terminal, so nobody can be asked: --yes says that you are sure; nothing was done");
    }
    Ok(())
}

/// Shows what it is about, on stderr, and reads the answer. Only a yes is one.
pub(crate) fn ask(about: &str, question: &str) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    write!(err, "{about}{question}? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

/// Shows what it is about, on stderr, and reads a line. Only this word is a yes: for what nobody does by habit.
pub(crate) fn ask_for_word(about: &str, question: &str, word: &str) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    write!(err, "{about}{question} ({word}): ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(!word.is_empty() && answer.trim() == word)
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for yes in ["y", "Y\n", " yes ", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "yess", "ja", "1", "true"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
