//! Limits of what may be asked of a server, checked before it is asked. An error names the field, its length and the limit.
//!
//! Servers check the same table ([`escrowmq_common::limits`]); here a mistake costs no request, and is told where it was made.

use std::fmt::Write as _;

use escrowmq_common::limits::{GROUP_BYTES_MAX, NAMED_TOPIC_BYTES_MAX, TOPIC_BYTES_MAX};
use escrowmq_common::name::{NameError, is_dead_letter_topic, is_retry_topic, validate_group, validate_topic};

/// As much of a text as an error shows.
const SHOWN_CHARS: usize = 64;

/// The beginning of a text, quoted.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars().take(SHOWN_CHARS) {
        let _ = write!(out, "{}", character.escape_debug());
    }
    let is_whole = text.chars().nth(SHOWN_CHARS).is_none();
    out.push_str(if is_whole { "\"" } else { "\"..." });
    out
}

/// Whether a text of this length may be sent. The error begins with the text: its caller names the field.
pub(crate) fn bytes(text: &str, max: usize) -> Result<(), String> {
    if text.len() <= max {
        return Ok(());
    }
    Err(format!("{} has {} bytes, the limit is {max}", shown(text), text.len()))
}

/// Whether a topic may have this name.
pub(crate) fn topic(name: &str) -> Result<(), String> {
    let special = is_retry_topic(name) || is_dead_letter_topic(name);
    named(name, if special { NAMED_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX }, validate_topic(name))
}

/// Whether a group may have this name.
pub(crate) fn group(name: &str) -> Result<(), String> {
    named(name, GROUP_BYTES_MAX, validate_group(name))
}

fn named(name: &str, max: usize, judged: Result<(), NameError>) -> Result<(), String> {
    bytes(name, max)?;
    judged.map_err(|error| match error {
        NameError::Blank(_) => format!("{} is blank", shown(name)),
        NameError::IllegalCharacter { .. } => {
            format!("{} holds a character other than letters, digits, %, |, _ and -", shown(name))
        }
        // Not reached while both look at one table; true if they ever do not.
        NameError::TooLong { limit, .. } => format!("{} has more than {limit} bytes", shown(name)),
    })
}

/// Bytes of a table's name; leaves room for those of its indexes, within the 63 of PostgreSQL and the 64 of MySQL.
#[cfg(feature = "sql")]
pub(crate) const TABLE_BYTES_MAX: usize = 50;

/// Whether it needs no quotes and hides nothing else: it is put into statements as it is.
#[cfg(feature = "sql")]
pub(crate) fn is_table_name(name: &str) -> bool {
    let is_word = |word: &str| {
        word.len() <= TABLE_BYTES_MAX
            && word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    let (schema, table) = name.split_once('.').unwrap_or(("unqualified", name));
    is_word(schema) && is_word(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_length_and_limit() {
        assert_eq!(topic(&"t".repeat(127)), Ok(()));
        let error = topic(&"t".repeat(128)).unwrap_err();
        assert!(error.starts_with("\"ttt") && error.contains("128 bytes") && error.contains("127"), "{error}");
        assert_eq!(topic(&format!("%RETRY%{}", "g".repeat(248))), Ok(()));
        assert!(topic(&format!("%DLQ%{}", "g".repeat(251))).unwrap_err().contains("limit is 255"));
        assert!(group(&"g".repeat(121)).unwrap_err().contains("121 bytes, the limit is 120"));
        assert_eq!(group(" "), Err("\" \" is blank".to_owned()));
        assert!(group("a b").unwrap_err().contains("\"a b\" holds a character"));
    }

    #[test]
    fn a_long_text_is_shown_in_part_and_controls_are_not_shown_raw() {
        assert_eq!(shown("a\u{1b}[31m"), "\"a\\u{1b}[31m\"");
        assert_eq!(shown(&"x".repeat(65)), format!("\"{}\"...", "x".repeat(64)));
        assert_eq!(shown(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
    }

    #[cfg(feature = "sql")]
    #[test]
    fn table_names_are_plain_words() {
        for name in ["escrowmq_barrier", "shop.barrier_2", "_t"] {
            assert!(is_table_name(name), "{name}");
        }
        for name in ["", "a b", "a.b.c", ".a", "a.", "2a", "a;drop", "\"a\"", &"a".repeat(51)] {
            assert!(!is_table_name(name), "{name}");
        }
    }
}
