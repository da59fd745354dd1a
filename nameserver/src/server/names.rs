//! Names as they may enter a table: bounded, and fit to be shown.

use std::fmt;

/// The fault of a name. Sending it again ends the same way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadName {
    field: &'static str,
    problem: Problem,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Blank,
    TooLong { bytes: usize, limit: usize },
    Unprintable,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match self.problem {
            Problem::Blank => write!(f, "{field}: blank"),
            Problem::TooLong { bytes, limit } => write!(f, "{field}: {bytes} bytes, the limit is {limit}"),
            Problem::Unprintable => write!(f, "{field}: control characters"),
        }
    }
}

/// A name that is kept: there, not too long, and without control characters, because it is logged and shown by tools.
pub(super) fn check(field: &'static str, value: &str, limit: usize) -> Result<(), BadName> {
    if value.trim().is_empty() {
        return Err(BadName { field, problem: Problem::Blank });
    }
    check_optional(field, value, limit)
}

/// As [`check`], but it may be empty.
pub(super) fn check_optional(field: &'static str, value: &str, limit: usize) -> Result<(), BadName> {
    let bytes = value.len();
    let problem = if bytes > limit {
        Problem::TooLong { bytes, limit }
    } else if value.chars().any(char::is_control) {
        Problem::Unprintable
    } else {
        return Ok(());
    };
    Err(BadName { field, problem })
}

/// A text for the log: cut, and with everything that could look like another line escaped.
pub(super) fn shown(value: &str) -> String {
    const SHOWN: usize = 200;
    let mut text: String = value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if value.chars().nth(SHOWN).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_field_length_and_limit() {
        let text = |value: &str| check("brokerName", value, 10).map_err(|error| error.to_string());
        assert_eq!(text("0123456789"), Ok(()));
        assert_eq!(text("0123456789é"), Err("brokerName: 12 bytes, the limit is 10".to_owned()));
        assert_eq!(text(" "), Err("brokerName: blank".to_owned()));
        assert_eq!(text("a\u{0}b"), Err("brokerName: control characters".to_owned()));
        assert_eq!(text("a\u{85}"), Err("brokerName: control characters".to_owned()));
        assert_eq!(check_optional("x", "", 1), Ok(()));
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(201)), format!("{}...", "x".repeat(200)));
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
    }
}
