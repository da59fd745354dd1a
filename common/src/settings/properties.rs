//! Properties texts, as `java.util.Properties` reads and writes them: `key=value`, `key: value` or `key value`, comments
//! after `#` or `!`, lines that go on after a backslash, escapes.
//!
//! Java takes the bytes for Latin-1. A text that is UTF-8 is read as such here, so that paths come out right, with or
//! without the mark that some editors put in front of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

/// One setting of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The line that it begins in, from 1 on.
    pub line: usize,
    /// The text in front of the first separator.
    pub key: String,
    /// The rest. Blanks in front are gone, blanks at the end are not.
    pub value: String,
}

/// Why a text is no properties text. It has to be written differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: four hexadecimal digits are expected behind \\u; a backslash itself is written \\\\")]
pub struct SyntaxError {
    /// Where, from 1 on.
    pub line: usize,
}

/// The mark of UTF-8 in front of a text.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads all settings, in their order. Of several with the same key Java takes the last one.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>, SyntaxError> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let is_utf8 = str::from_utf8(text).is_ok();
    let lines = LogicalLines::new(text).filter(|line| !line.is_remark(text));
    lines.map(|line| entry(&line.joined(text), line.number, is_utf8)).collect()
}

/// Puts `changes` into a text: lines of changed keys are replaced in place, new keys follow at the end, everything else
/// (comments, order, bytes) stays.
pub fn edit(text: &[u8], changes: &BTreeMap<String, String>) -> Result<Vec<u8>, SyntaxError> {
    let body = text.strip_prefix(MARK).unwrap_or(text);
    let mut out = text[..text.len() - body.len()].to_vec();
    let mut left = changes.clone();
    for line in LogicalLines::new(body) {
        let key = if line.is_remark(body) { None } else { Some(entry(&line.joined(body), line.number, true)?.key) };
        if let Some(key) = key.filter(|key| changes.contains_key(key)) {
            // A second line of the same key goes: the first one has the new value, and this one would undo it.
            if let Some(value) = left.remove(&key) {
                out.extend_from_slice(write_entry(&key, &value).as_bytes());
            }
        } else {
            let (kept, ends) = line.without_loose_end(body);
            out.extend_from_slice(&body[kept]);
            out.extend_from_slice(&body[ends]);
        }
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.extend(left.iter().flat_map(|(key, value)| write_entry(key, value).into_bytes()));
    Ok(out)
}

/// A text of these settings.
pub fn write<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    settings.into_iter().map(|(key, value)| write_entry(key, value)).collect()
}

/// One line that reads back as exactly this, whatever is in it.
fn write_entry(key: &str, value: &str) -> String {
    let mut out = String::with_capacity(key.len() + value.len() + 2);
    escape(&mut out, key, true);
    out.push('=');
    escape(&mut out, value, false);
    out.push('\n');
    out
}

fn escape(out: &mut String, text: &str, is_key: bool) {
    for (at, c) in text.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' ' if is_key || at == 0 => out.push_str("\\ "),
            '=' | ':' | '#' | '!' if is_key => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Lines with those that continue them.
struct LogicalLines<'a> {
    text: &'a [u8],
    at: usize,
    number: usize,
}

/// One of them.
struct LogicalLine {
    number: usize,
    /// With the end of the last line.
    range: Range<usize>,
    /// The lines without their ends, and without the backslashes that join them.
    parts: Vec<Range<usize>>,
    /// The text ends where this line wants to go on.
    is_loose: bool,
}

impl<'a> LogicalLines<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, number: 1 }
    }

    /// Takes one line; returns it without its end.
    fn natural(&mut self) -> Range<usize> {
        let start = self.at;
        let length = self.text[start..].iter().position(|byte| is_end(*byte));
        let end = length.map_or(self.text.len(), |length| start + length);
        self.at = match self.text.get(end..) {
            Some([b'\r', b'\n', ..]) => end + 2,
            Some([_, ..]) => end + 1,
            _ => end,
        };
        self.number += 1;
        start..end
    }
}

impl Iterator for LogicalLines<'_> {
    type Item = LogicalLine;

    fn next(&mut self) -> Option<LogicalLine> {
        let (start, number) = (self.at, self.number);
        if start == self.text.len() {
            return None;
        }
        let mut line = LogicalLine { number, range: start..start, parts: Vec::new(), is_loose: false };
        loop {
            let mut part = self.natural();
            let slashes = self.text[part.clone()].iter().rev().take_while(|byte| **byte == b'\\').count();
            let is_remark = line.parts.is_empty() && is_remark(&self.text[part.clone()]);
            let goes_on = !slashes.is_multiple_of(2) && !is_remark;
            part.end -= usize::from(goes_on);
            line.parts.push(part);
            if !goes_on || self.at == self.text.len() {
                line.range.end = self.at;
                line.is_loose = goes_on;
                return Some(line);
            }
        }
    }
}

/// Whether a line is empty or a comment.
fn is_remark(line: &[u8]) -> bool {
    line.iter().find(|byte| !is_blank(**byte)).is_none_or(|first| matches!(first, b'#' | b'!'))
}

impl LogicalLine {
    fn is_remark(&self, text: &[u8]) -> bool {
        is_remark(&self.joined(text)) && is_remark(&text[self.parts[0].clone()])
    }

    /// The bytes in front of and after a backslash that would join this line with a text put after it.
    fn without_loose_end(&self, text: &[u8]) -> (Range<usize>, Range<usize>) {
        match self.parts.last() {
            Some(last) if self.is_loose => {
                // Without an empty last part the backslash in front of it would be the loose one.
                let is_kept = |part: &&Range<usize>| !text[(*part).clone()].trim_ascii_start().is_empty();
                let kept = self.parts.iter().rfind(is_kept).map_or(self.range.start, |part| part.end);
                (self.range.start..kept, last.end + 1..self.range.end)
            }
            _ => (self.range.clone(), self.range.end..self.range.end),
        }
    }

    /// The content as one line. Blanks in front of each part count for nothing.
    fn joined(&self, text: &[u8]) -> Vec<u8> {
        let parts = self.parts.iter().map(|part| text[part.clone()].trim_ascii_start());
        parts.flatten().copied().collect()
    }
}

fn entry(line: &[u8], number: usize, is_utf8: bool) -> Result<Entry, SyntaxError> {
    let mut key_end = 0;
    while let Some(&byte) = line.get(key_end) {
        match byte {
            b'\\' => key_end += 2,
            b'=' | b':' => break,
            byte if is_blank(byte) => break,
            _ => key_end += 1,
        }
    }
    let key_end = key_end.min(line.len());
    let blanks = |from: usize| line[from..].iter().take_while(|byte| is_blank(**byte)).count();
    let mut value = key_end + blanks(key_end);
    if matches!(line.get(value), Some(b'=' | b':')) {
        value += 1;
        value += blanks(value);
    }
    let read = |bytes| unescape(&decode(bytes, is_utf8)).ok_or(SyntaxError { line: number });
    Ok(Entry { line: number, key: read(&line[..key_end])?, value: read(&line[value..])? })
}

fn decode(bytes: &[u8], is_utf8: bool) -> String {
    if is_utf8 { String::from_utf8_lossy(bytes).into_owned() } else { bytes.iter().copied().map(char::from).collect() }
}

/// `None` where digits are missing.
fn unescape(text: &str) -> Option<String> {
    // In Java's own units: a character beyond the first 65,536 is two escapes.
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '\\' => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits = rest.as_str().get(..4).filter(|four| four.bytes().all(|b| b.is_ascii_hexdigit()))?;
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    rest = rest.as_str()[4..].chars();
                    continue;
                }
                Some(other) => other,
                // A backslash that nothing follows is dropped.
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Vec<(usize, String, String)> {
        parse(text).unwrap().into_iter().map(|entry| (entry.line, entry.key, entry.value)).collect()
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        read(text.as_bytes()).into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn entries_are_separated_as_java_does() {
        for (text, key, value) in [
            ("a=b", "a", "b"),
            ("a: b", "a", "b"),
            ("a b", "a", "b"),
            ("  a \t= \u{c}b = c ", "a", "b = c "),
            ("a", "a", ""),
            ("a=", "a", ""),
            ("=b", "", "b"),
            ("a==b", "a", "=b"),
            (r"a\=\ b\:=c", "a= b:", "c"),
            (r"a=\tb\n\\c\q", "a", "\tb\n\\cq"),
            (r"a=\u00e4\ud83d\ude80", "a", "ä🚀"),
            ("a=🚀", "a", "🚀"),
            ("a=b\\", "a", "b"),
            ("\u{feff}a=b", "a", "b"),
        ] {
            assert_eq!(pairs(text), [(key.to_owned(), value.to_owned())], "{text}");
        }
    }

    #[test]
    fn lines_are_counted_and_joined() {
        let text = b"# a=1\\\n! \\u\r\n\n  \t\na=1 \\\r\n   2\\\n#3\r\rb=\\\\\nc=4\\";
        let expected = [(5, "a", "1 2#3"), (9, "b", "\\"), (10, "c", "4")];
        assert_eq!(read(text), expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned())));
    }

    #[test]
    fn latin1_is_read_where_the_text_is_no_utf8() {
        assert_eq!(read(b"k=\xe4"), [(1, "k".to_owned(), "ä".to_owned())]);
        assert_eq!(pairs("k=ä€"), [("k".to_owned(), "ä€".to_owned())]);
    }

    #[test]
    fn only_missing_digits_are_an_error_and_comments_have_none() {
        assert_eq!(parse(b"a=1\nk=\\u12"), Err(SyntaxError { line: 2 }));
        assert_eq!(parse(b"k=C:\\users"), Err(SyntaxError { line: 1 }));
        assert_eq!(parse("k=\\u12€".as_bytes()), Err(SyntaxError { line: 1 }));
        assert_eq!(parse(b"# C:\\users"), Ok(Vec::new()));
    }

    #[test]
    fn an_edit_keeps_what_it_does_not_concern() {
        let text = b"# kept: a=1 \xe4\na = 1\nb=two \\\n  lines\n\nc=3\na=again";
        let changes = map(&[("a", "9"), ("b", "C:\\x"), ("new", "ö")]);
        let edited = edit(text, &changes).unwrap();
        assert_eq!(edited, b"# kept: a=1 \xe4\na=9\nb=C:\\\\x\n\nc=3\nnew=\\u00f6\n");
        assert_eq!(edit(b"", &map(&[("k", "v")])).unwrap(), b"k=v\n");
        assert_eq!(edit("\u{feff}k=v".as_bytes(), &map(&[("k", "w")])).unwrap(), "\u{feff}k=w\n".as_bytes());
    }

    #[test]
    fn a_line_that_wants_to_go_on_at_the_end_does_not_swallow_what_is_added() {
        for text in ["a#\\\r\\", "b=1\\\n  \\\n\\", "b\\", "\\", "\\\n\\\n"] {
            let before: BTreeMap<_, _> = pairs(text).into_iter().collect();
            let edited = edit(text.as_bytes(), &map(&[("k", "v")])).unwrap();
            let mut after: BTreeMap<_, _> = pairs(str::from_utf8(&edited).unwrap()).into_iter().collect();
            assert_eq!(after.remove("k").as_deref(), Some("v"), "{text:?}");
            assert_eq!(after, before, "{text:?}");
        }
    }

    #[test]
    fn a_value_cannot_bring_a_line_of_its_own() {
        let changes = map(&[("regionId", " r\r\nnamesrvAddr=evil:9876 \t\u{1}")]);
        let edited = edit(b"a=1\n", &changes).unwrap();
        assert_eq!(edited.iter().filter(|byte| is_end(**byte)).count(), 2);
        assert_eq!(read(&edited)[1].2, changes["regionId"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
            let _ = edit(&text, &map(&[("a", "b")]));
        }

        #[test]
        fn what_is_written_reads_back(settings in prop::collection::btree_map("\\PC{0,9}|[ =:#!\\\\\n\t]{1,4}", any::<String>(), 0..5)) {
            let text = write(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            let back: BTreeMap<_, _> = pairs(&text).into_iter().collect();
            prop_assert_eq!(&back, &settings);
            prop_assert_eq!(edit(text.as_bytes(), &settings).unwrap(), text.into_bytes());
        }

        #[test]
        fn an_edit_reads_back_and_keeps_the_rest(text in "([ab]?[=: ]?[ab#\\\\]{0,3}\r?\n?){0,9}", value in any::<String>()) {
            let before: BTreeMap<_, _> = pairs(&text).into_iter().collect();
            let edited = edit(text.as_bytes(), &map(&[("a", &value)])).unwrap();
            let mut after: BTreeMap<_, _> = pairs(str::from_utf8(&edited).unwrap()).into_iter().collect();
            prop_assert_eq!(after.remove("a"), Some(value));
            let mut rest = before;
            rest.remove("a");
            prop_assert_eq!(after, rest);
        }
    }
}
