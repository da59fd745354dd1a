//! Properties texts: `key=value` lines with Java's escapes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ConfigError;

/// Reads a text. Java takes such texts for Latin-1; one that is UTF-8 is read as such, so that paths come
/// out right.
pub fn parse(text: &[u8]) -> Result<BTreeMap<String, String>, ConfigError> {
    let read = match str::from_utf8(text) {
        Ok(text) => java_properties::read(escaped(text).as_bytes()),
        Err(_) => java_properties::read(text),
    };
    let entries = read.map_err(|error| ConfigError::Syntax { why: error.to_string() })?;
    Ok(entries.into_iter().collect())
}

/// Puts `changes` into a text: lines of changed keys are replaced in place, new keys follow at the end,
/// everything else (comments, order) stays.
pub fn edit(text: &str, changes: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let mut left = changes.clone();
    let mut out = String::with_capacity(text.len() + 64);
    for line in logical_lines(text) {
        let keys = parse(line.as_bytes())?;
        match keys.keys().find(|key| changes.contains_key(*key)) {
            Some(key) => {
                if let Some(value) = left.remove(key) {
                    push_entry(&mut out, key, &value);
                } // else a second line of the same key: the first one has the new value, this one would undo it
            }
            None => out.push_str(line),
        }
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    for (key, value) in &left {
        push_entry(&mut out, key, value);
    }
    Ok(out)
}

fn push_entry(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key}={}", escaped(&value.replace('\\', "\\\\")));
}

/// Lines with their ends, continued ones (an odd number of backslashes before the end) kept together.
fn logical_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            let line_end = rest[end..].find('\n').map_or(rest.len(), |at| end + at + 1);
            let line = &rest[end..line_end];
            let body = line.trim_end_matches(['\r', '\n']);
            let comment = end == 0 && line.trim_start().starts_with(['#', '!']);
            let slashes = body.len() - body.trim_end_matches('\\').len();
            end = line_end;
            if comment || slashes.is_multiple_of(2) || end == rest.len() {
                break;
            }
        }
        let (line, others) = rest.split_at(end);
        rest = others;
        Some(line)
    })
}

/// Non-ASCII text in Java's escapes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn an_edit_keeps_what_it_does_not_concern() {
        let text = "# kept: a=1\na = 1\nb=two \\\n  lines\n\nc=3\na=again";
        let edited = edit(text, &map(&[("a", "9"), ("b", "C:\\x"), ("new", "ö")])).unwrap();
        assert_eq!(edited, "# kept: a=1\na=9\nb=C:\\\\x\n\nc=3\nnew=\\u00f6\n");
        assert_eq!(parse(edited.as_bytes()).unwrap(), map(&[("a", "9"), ("b", "C:\\x"), ("c", "3"), ("new", "ö")]));
    }

    #[test]
    fn an_edit_of_nothing_makes_a_file() {
        assert_eq!(edit("", &map(&[("k", "v")])).unwrap(), "k=v\n");
    }

    #[test]
    fn utf8_and_latin1_are_both_read() {
        assert_eq!(parse("k=ä€".as_bytes()).unwrap(), map(&[("k", "ä€")]));
        assert_eq!(parse(b"k=\xe4").unwrap(), map(&[("k", "ä")]));
    }

    #[test]
    fn broken_escapes_are_an_error() {
        assert!(matches!(parse(b"k=\\u12"), Err(ConfigError::Syntax { .. })));
    }
}
