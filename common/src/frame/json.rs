//! Reads the JSON header (type 0) in one pass, for the one shape that it has.
//!
//! Tolerant where clients differ: keys in any order, blanks, numbers and booleans where strings belong and numbers as
//! strings, unknown keys. Strict where only garbage differs: anything that is no JSON is an error.

use std::borrow::Cow;

use super::{Fields, Frame, FrameError, Language, scan};

/// How deep unknown values may nest before they count as an attack on our stack.
const MAX_DEPTH: usize = 32;

/// Decodes a JSON header. Bytes that are no UTF-8 are replaced by U+FFFD, as the Java side does.
pub(super) fn decode(header: &[u8]) -> Result<Frame, FrameError> {
    match std::str::from_utf8(header) {
        Ok(text) => Parser { text, at: 0 }.header(),
        Err(_) => Parser { text: &String::from_utf8_lossy(header), at: 0 }.header(),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A string between its quotes, escapes not undone.
#[derive(Clone, Copy)]
struct Raw<'a> {
    text: &'a str,
    escaped: bool,
}

/// One scalar of the header.
enum Scalar<'a> {
    Text(Raw<'a>),
    /// Number, boolean, or a whole nested value, as it stands in the header.
    Bare(&'a str),
    Null,
}

impl<'a> Parser<'a> {
    fn header(mut self) -> Result<Frame, FrameError> {
        let mut frame = Frame::request(0);
        frame.version = 0;
        self.members(|parser, key| match key {
            "code" => parser.number().map(|n| frame.code = n),
            "extFields" => parser.fields().map(|fields| frame.fields = fields),
            "flag" => parser.number().map(|n| frame.flag = n),
            "language" => parser.scalar().and_then(|value| {
                frame.language = match &value {
                    Scalar::Null => Language::JAVA,
                    Scalar::Bare(name) => Language::from_name(name),
                    Scalar::Text(raw) => Language::from_name(&parser.unescape(*raw)?),
                };
                Ok(())
            }),
            "opaque" => parser.number().map(|n| frame.opaque = n),
            "remark" => parser.scalar().and_then(|value| {
                frame.remark = match value {
                    Scalar::Null => None,
                    Scalar::Bare(text) => Some(text.to_owned()),
                    Scalar::Text(raw) => Some(parser.unescape(raw)?.into_owned()),
                };
                Ok(())
            }),
            "version" => parser.number().map(|n| frame.version = n),
            _ => parser.skip_value(0),
        })?;
        self.blanks();
        if self.at < self.text.len() {
            return Err(self.error("something behind the end"));
        }
        Ok(frame)
    }

    /// The ext fields. A null value counts as absent.
    fn fields(&mut self) -> Result<Fields, FrameError> {
        self.blanks();
        if self.peek() == Some(b'n') {
            self.literal("null")?;
            return Ok(Fields::new());
        }
        // Undoing escapes never makes text longer, so this is enough for all of it.
        let mut fields = Fields::with_text_capacity(self.text.len() - self.at);
        self.expect(b'{', "no object")?;
        self.blanks();
        if self.take_if(b'}') {
            return Ok(fields);
        }
        loop {
            let key = self.string()?;
            push_unescaped(fields.text_mut(), key, self.at)?;
            let key_end = fields.text_mut().len();
            self.colon()?;
            match self.scalar()? {
                Scalar::Null => fields.drop_open_key(),
                Scalar::Bare(text) => {
                    fields.text_mut().push_str(text);
                    fields.close_pair(key_end)?;
                }
                Scalar::Text(raw) => {
                    push_unescaped(fields.text_mut(), raw, self.at)?;
                    fields.close_pair(key_end)?;
                }
            }
            if !self.more(b'}')? {
                return Ok(fields);
            }
        }
    }

    /// Walks over the members of an object; `member` must consume the value.
    fn members(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), FrameError>) -> Result<(), FrameError> {
        self.blanks();
        self.expect(b'{', "no object")?;
        self.blanks();
        if self.take_if(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            let key = self.unescape(key)?;
            self.colon()?;
            member(self, &key)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// A string, number, boolean or null; a nested value is taken as the text it is.
    fn scalar(&mut self) -> Result<Scalar<'a>, FrameError> {
        self.blanks();
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string().map(Scalar::Text),
            Some(b'n') => self.literal("null").map(|()| Scalar::Null),
            _ => {
                self.skip_value(0)?;
                Ok(Scalar::Bare(&self.text[start..self.at]))
            }
        }
    }

    /// An i32, as a number or as a string that holds one.
    fn number(&mut self) -> Result<i32, FrameError> {
        let parsed = match self.scalar()? {
            Scalar::Null => Ok(0),
            Scalar::Bare(text) => text.parse(),
            Scalar::Text(raw) => raw.text.parse(),
        };
        parsed.map_err(|_| self.error("no 32-bit number"))
    }

    fn skip_value(&mut self, depth: usize) -> Result<(), FrameError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        self.blanks();
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.at += 1;
                self.blanks();
                if self.take_if(b'}') {
                    return Ok(());
                }
                loop {
                    self.string()?;
                    self.colon()?;
                    self.skip_value(depth + 1)?;
                    if !self.more(b'}')? {
                        return Ok(());
                    }
                }
            }
            Some(b'[') => {
                self.at += 1;
                self.blanks();
                if self.take_if(b']') {
                    return Ok(());
                }
                loop {
                    self.skip_value(depth + 1)?;
                    if !self.more(b']')? {
                        return Ok(());
                    }
                }
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => {
                let digits =
                    self.rest().iter().take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                self.at += digits.count();
                Ok(())
            }
            _ => Err(self.error("no value")),
        }
    }

    /// A string token. Stands after its closing quote afterwards.
    fn string(&mut self) -> Result<Raw<'a>, FrameError> {
        self.blanks();
        self.expect(b'"', "no string")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += scan::special(self.rest());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                // Raw control characters are no JSON, but clients that do not escape them exist.
                Some(_) => self.at += 1,
                None => return Err(self.error("string without end")),
            }
        }
        let text = self.text.get(start..self.at).ok_or(FrameError::Json { what: "bad escape", at: start })?;
        self.at += 1;
        Ok(Raw { text, escaped })
    }

    fn unescape<'t>(&self, raw: Raw<'t>) -> Result<Cow<'t, str>, FrameError> {
        if !raw.escaped {
            return Ok(Cow::Borrowed(raw.text));
        }
        let mut text = String::with_capacity(raw.text.len());
        push_unescaped(&mut text, raw, self.at)?;
        Ok(Cow::Owned(text))
    }

    fn colon(&mut self) -> Result<(), FrameError> {
        self.blanks();
        self.expect(b':', "no colon")
    }

    /// After a member: true if a comma announces another one, false at the closing bracket.
    fn more(&mut self, close: u8) -> Result<bool, FrameError> {
        self.blanks();
        if self.take_if(b',') {
            return Ok(true);
        }
        self.expect(close, "neither comma nor end").map(|()| false)
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), FrameError> {
        if !self.rest().starts_with(literal.as_bytes()) {
            return Err(self.error("no value"));
        }
        self.at += literal.len();
        Ok(())
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), FrameError> {
        if self.take_if(byte) { Ok(()) } else { Err(self.error(what)) }
    }

    fn take_if(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn error(&self, what: &'static str) -> FrameError {
        FrameError::Json { what, at: self.at }
    }
}

/// Appends a string token with its escapes undone. `at` is only for the error.
fn push_unescaped(out: &mut String, raw: Raw<'_>, at: usize) -> Result<(), FrameError> {
    if !raw.escaped {
        out.push_str(raw.text);
        return Ok(());
    }
    let mut rest = raw.text;
    loop {
        let at_special = scan::special(rest.as_bytes());
        let Some((plain, special)) = rest.split_at_checked(at_special).filter(|(_, special)| !special.is_empty())
        else {
            break;
        };
        out.push_str(plain);
        let (character, taken) = unescape_one(special.as_bytes()).ok_or(FrameError::Json { what: "bad escape", at })?;
        out.push(character);
        rest = &special[taken..];
    }
    out.push_str(rest);
    Ok(())
}

/// The character that `text` begins with, plain or escaped, and how many bytes it took.
fn unescape_one(text: &[u8]) -> Option<(char, usize)> {
    let (b'\\', escape) = text.split_first()? else {
        return Some((char::from(text[0]), 1)); // a raw control character
    };
    let character = match *escape.first()? {
        simple @ (b'"' | b'\\' | b'/' | b'\'') => char::from(simple),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'v' => '\u{b}',
        b'u' => return unicode(escape).map(|(character, taken)| (character, taken + 1)),
        _ => return None,
    };
    Some((character, 2))
}

/// `uXXXX`, or a surrogate pair `uXXXX\uXXXX`. Half a pair becomes U+FFFD.
fn unicode(rest: &[u8]) -> Option<(char, usize)> {
    let high = hex4(rest.get(1..5)?)?;
    if let Some(character) = char::from_u32(high) {
        return Some((character, 5));
    }
    let low = rest.get(5..7).filter(|mark| *mark == b"\\u").and_then(|_| hex4(rest.get(7..11)?));
    match low {
        Some(low @ 0xDC00..=0xDFFF) if high < 0xDC00 => {
            let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11))
        }
        _ => Some((char::REPLACEMENT_CHARACTER, 5)),
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}
