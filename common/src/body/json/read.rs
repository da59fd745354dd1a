//! From the dialect to strict JSON.

use super::{BodyError, DEPTH_MAX};
use crate::body::Body;
use crate::limits::MEMBERS_PER_PART_MAX;

/// Reads `T` from a body. An empty body is an error, as are bytes after the value, and a value that is more than `T` may
/// hold.
pub fn from_slice<T: Body>(body: &[u8]) -> Result<T, BodyError> {
    let strict = normalize(body, T::PARTS_MAX)?;
    let value: T = serde_json::from_slice(&strict)?;
    value.check()?;
    Ok(value)
}

/// Rewrites the dialect as strict JSON. Only what has to do with structure is looked at; numbers, escapes and UTF-8 are
/// judged by the strict parser afterwards. The result is at most about twice as long as the input: escaping an object
/// key doubles its quotes, and such keys do not nest.
fn normalize(input: &[u8], parts_max: usize) -> Result<Vec<u8>, BodyError> {
    let out = Vec::with_capacity(input.len() + 16);
    let mut rewrite = Rewrite { input, at: 0, out, levels: Vec::new(), parts: 0, parts_max, members: 0 };
    rewrite.run()?;
    Ok(rewrite.out)
}

/// One open object or array.
struct Level {
    closes_with: u8,
    /// Whether a member has been written, so that the next one needs a comma.
    has_member: bool,
    /// Length of the output before the current member, to cut it off again if its value is null.
    member_start: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Expect {
    /// The value of a member, or the whole text.
    Value,
    /// A member of the innermost object or array, or its end.
    MemberOrEnd,
    Colon,
    CommaOrEnd,
}

struct Rewrite<'a> {
    input: &'a [u8],
    at: usize,
    out: Vec<u8>,
    levels: Vec<Level>,
    /// Objects and lists so far, keys that are objects included.
    parts: usize,
    parts_max: usize,
    /// Fields of objects and entries of lists so far.
    members: usize,
}

impl Rewrite<'_> {
    fn run(&mut self) -> Result<(), BodyError> {
        let mut expect = Expect::Value;
        while let Some(byte) = self.skip_blanks() {
            expect = match (expect, byte) {
                (Expect::Value, _) => self.value(byte)?,
                (Expect::MemberOrEnd | Expect::CommaOrEnd, b'}' | b']') => self.close(byte)?,
                (Expect::MemberOrEnd, _) => self.member(byte)?,
                (Expect::Colon, b':') => {
                    self.advance(b':');
                    Expect::Value
                }
                (Expect::CommaOrEnd, b',') if !self.levels.is_empty() => {
                    // Written with the next member: a dropped one needs none.
                    self.at += 1;
                    Expect::MemberOrEnd
                }
                (Expect::Colon | Expect::CommaOrEnd, _) => return Err(self.syntax()),
            };
        }
        if expect == Expect::CommaOrEnd && self.levels.is_empty() { Ok(()) } else { Err(self.syntax()) }
    }

    fn value(&mut self, byte: u8) -> Result<Expect, BodyError> {
        match byte {
            b'{' => self.open(b'{', b'}'),
            b'[' => self.open(b'[', b']'),
            b'"' => {
                self.string()?;
                Ok(self.member_done())
            }
            _ => self.literal(),
        }
    }

    fn open(&mut self, byte: u8, closes_with: u8) -> Result<Expect, BodyError> {
        if self.levels.len() == DEPTH_MAX {
            return Err(BodyError::TooDeep);
        }
        self.count_part()?;
        self.advance(byte);
        self.levels.push(Level { closes_with, has_member: false, member_start: 0 });
        Ok(Expect::MemberOrEnd)
    }

    fn count_part(&mut self) -> Result<(), BodyError> {
        if self.parts >= self.parts_max {
            return Err(BodyError::TooManyParts { limit: self.parts_max });
        }
        self.parts += 1;
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<Expect, BodyError> {
        match self.levels.pop() {
            Some(level) if level.closes_with == byte => {
                self.advance(byte);
                Ok(self.member_done())
            }
            _ => Err(self.syntax()),
        }
    }

    /// Begins a member: the key of an object, or an element of an array.
    fn member(&mut self, byte: u8) -> Result<Expect, BodyError> {
        let limit = self.parts_max.saturating_mul(MEMBERS_PER_PART_MAX);
        if self.members >= limit {
            return Err(BodyError::TooManyMembers { limit });
        }
        self.members += 1;
        let malformed = self.syntax();
        let level = self.levels.last_mut().ok_or(malformed)?;
        level.member_start = self.out.len();
        if level.has_member {
            self.out.push(b',');
        }
        if level.closes_with == b']' {
            return self.value(byte);
        }
        match byte {
            b'"' => self.string()?,
            b'{' => self.object_key()?,
            b'-' | b'0'..=b'9' => self.number_key(),
            _ => return Err(self.syntax()),
        }
        Ok(Expect::Colon)
    }

    fn member_done(&mut self) -> Expect {
        if let Some(level) = self.levels.last_mut() {
            level.has_member = true;
        }
        Expect::CommaOrEnd
    }

    /// A number, `true`, `false` or `null`. A null in an object is dropped together with its key.
    fn literal(&mut self) -> Result<Expect, BodyError> {
        let rest = &self.input[self.at..];
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",:{}[]\"".contains(byte);
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.syntax());
        }
        let text = &rest[..length];
        self.at += length;
        match self.levels.last() {
            Some(level) if text == b"null" && level.closes_with == b'}' => {
                self.out.truncate(level.member_start);
                Ok(Expect::CommaOrEnd)
            }
            _ => {
                self.out.extend_from_slice(text);
                Ok(self.member_done())
            }
        }
    }

    fn string(&mut self) -> Result<(), BodyError> {
        let end = string_end(self.input, self.at).ok_or_else(|| self.syntax())?;
        self.out.extend_from_slice(&self.input[self.at..end]);
        self.at = end;
        Ok(())
    }

    fn number_key(&mut self) {
        let rest = &self.input[self.at..];
        let is_end = |byte: &u8| !matches!(byte, b'-' | b'0'..=b'9');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        self.out.push(b'"');
        self.out.extend_from_slice(&rest[..length]);
        self.out.push(b'"');
        self.at += length;
    }

    /// A flat object as a key becomes a string that holds its text. The reader of the key parses it again.
    fn object_key(&mut self) -> Result<(), BodyError> {
        self.count_part()?;
        let start = self.at;
        let mut at = start + 1;
        loop {
            match self.input.get(at) {
                Some(b'}') => break,
                Some(b'"') => at = string_end(self.input, at).ok_or_else(|| self.syntax())?,
                // Keys within keys would double their backslashes level by level.
                None | Some(b'{' | b'[') => return Err(self.syntax()),
                Some(_) => at += 1,
            }
        }
        self.out.push(b'"');
        for &byte in &self.input[start..=at] {
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                // Blanks between the tokens; inside strings raw control characters are no JSON anyway.
                0..=0x1f => self.out.push(b' '),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
        self.at = at + 1;
        Ok(())
    }

    fn skip_blanks(&mut self) -> Option<u8> {
        while self.input.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.input.get(self.at).copied()
    }

    fn advance(&mut self, byte: u8) {
        self.out.push(byte);
        self.at += 1;
    }

    fn syntax(&self) -> BodyError {
        BodyError::Syntax { at: self.at }
    }
}

/// The end of the string that begins with the quote at `at`: the place after its closing quote.
fn string_end(input: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match input.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn strict(loose: &str) -> String {
        String::from_utf8(normalize(loose.as_bytes(), usize::MAX).unwrap()).unwrap()
    }

    #[test]
    fn strict_text_stays_as_it_is() {
        for text in [r#"{"a":[1,2,{"b":"x\"}{,"}],"c":{}}"#, "[]", "5", r#""x""#, "[null,[]]"] {
            assert_eq!(strict(text), text);
        }
        assert_eq!(strict(" { \"a\" : [ 1 ,\n2 ] } "), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn odd_keys_become_strings() {
        assert_eq!(strict(r#"{0:"a",-1:"b"}"#), r#"{"0":"a","-1":"b"}"#);
        assert_eq!(
            strict(r#"{{"t":"a}\"","q":0}:5,{"t":"b"}:{1:2}}"#),
            r#"{"{\"t\":\"a}\\\"\",\"q\":0}":5,"{\"t\":\"b\"}":{"1":2}}"#
        );
    }

    #[test]
    fn nulls_in_objects_disappear_and_commas_with_them() {
        assert_eq!(strict(r#"{"a":null}"#), "{}");
        assert_eq!(strict(r#"{"a":null,"b":1}"#), r#"{"b":1}"#);
        assert_eq!(strict(r#"{"a":1,"b":null,"c":{"d":null},5:null}"#), r#"{"a":1,"c":{}}"#);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "{]",
            "[}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{a:1}",
            "{,",
            "1 2",
            "{\"a\":1}}",
            "{{",
            "{{\"a\":{}}:1}",
            "{{\"a\":1}",
            "\"",
            "\"\\",
            ":",
            ",",
            "{\"a\"::1}",
        ] {
            assert!(from_slice::<serde_json::Value>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_are_counted_before_they_cost_anything() {
        for part in ["[]", "{}", "{{}:1}"] {
            let list = |count| format!("[{}{part}]", format!("{part},").repeat(count - 1));
            let per_part = part.matches('{').count().max(1);
            let most = (limits::PARTS_MAX - 1) / per_part;
            assert!(from_slice::<serde_json::Value>(list(most).as_bytes()).is_ok(), "{part}");
            let outcome = from_slice::<serde_json::Value>(list(most + 1).as_bytes());
            assert!(
                matches!(outcome, Err(BodyError::TooManyParts { limit: limits::PARTS_MAX })),
                "{part}: {outcome:?}"
            );
        }
    }

    #[test]
    fn fields_and_entries_are_counted_too() {
        let limit = limits::PARTS_MAX * MEMBERS_PER_PART_MAX;
        let list = |count| format!("[{}0]", "0,".repeat(count - 1));
        assert_eq!(
            normalize(list(limit).as_bytes(), limits::PARTS_MAX).map(|text| text.len()).ok(),
            Some(2 * limit + 1)
        );
        for body in [list(limit + 1), format!("{{{}\"a\":0}}", "\"a\":0,".repeat(limit))] {
            let outcome = normalize(body.as_bytes(), limits::PARTS_MAX);
            assert!(matches!(outcome, Err(BodyError::TooManyMembers { limit: most }) if most == limit));
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(from_slice::<serde_json::Value>(nested(DEPTH_MAX).as_bytes()).is_ok());
        let outcome = from_slice::<serde_json::Value>(nested(DEPTH_MAX + 1).as_bytes());
        assert!(matches!(outcome, Err(BodyError::TooDeep)));
        assert!(from_slice::<serde_json::Value>("[".repeat(1 << 20).as_bytes()).is_err());
    }
}
