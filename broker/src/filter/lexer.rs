//! From text to tokens.

use super::parser::ParseError;

/// A token and where it begins, counted in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Keyword(Keyword),
    Text(String),
    /// Digits of an integer, without its suffix.
    Integer(String),
    Float(f64),
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    End,
}

macro_rules! keywords {
    ($($variant:ident = $text:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Keyword { $($variant,)+ }

        impl Keyword {
            fn of(word: &str) -> Option<Self> {
                $(if word.eq_ignore_ascii_case($text) { return Some(Self::$variant); })+
                None
            }

            pub(super) fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

keywords! {
    And = "AND",
    Between = "BETWEEN",
    Contains = "CONTAINS",
    EndsWith = "ENDSWITH",
    False = "FALSE",
    In = "IN",
    Is = "IS",
    Not = "NOT",
    Null = "NULL",
    Or = "OR",
    StartsWith = "STARTSWITH",
    True = "TRUE",
}

/// All tokens of a text, with an end after them.
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, ParseError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let at = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        tokens.push(Spanned { token, at });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips blanks, `-- to the end of the line` and `/* comments */`.
    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let blanks = rest.len() - trimmed.len();
            let comment = if trimmed.starts_with("--") {
                trimmed.find('\n').map_or(trimmed.len(), |end| end + 1)
            } else if let Some(inside) = trimmed.strip_prefix("/*") {
                let end = inside.find("*/").ok_or(ParseError::new("comment without an end", self.at + blanks))?;
                end + 4
            } else {
                0
            };
            if blanks + comment == 0 {
                return Ok(());
            }
            self.at += blanks + comment;
        }
    }

    fn token(&mut self) -> Result<Token, ParseError> {
        let Some(first) = self.peek() else {
            return Ok(Token::End);
        };
        let two = self.rest().as_bytes().get(1).copied();
        let (token, width) = match (first, two) {
            (b'<', Some(b'>')) => (Token::NotEqual, 2),
            (b'<', Some(b'=')) => (Token::LessOrEqual, 2),
            (b'>', Some(b'=')) => (Token::GreaterOrEqual, 2),
            (b'<', _) => (Token::Less, 1),
            (b'>', _) => (Token::Greater, 1),
            (b'=', _) => (Token::Equal, 1),
            (b'(', _) => (Token::Open, 1),
            (b')', _) => (Token::Close, 1),
            (b',', _) => (Token::Comma, 1),
            (b'+', _) => (Token::Plus, 1),
            (b'-', _) => (Token::Minus, 1),
            (b'\'', _) => return self.text_literal(),
            (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => return self.number(),
            (b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$', _) => return Ok(self.word()),
            _ => {
                let odd = self.rest().chars().next().unwrap_or_default();
                return Err(ParseError::new(format!("unexpected {odd:?}"), self.at));
            }
        };
        self.at += width;
        Ok(token)
    }

    /// `'...'`, where two quotes stand for one.
    fn text_literal(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = self.rest();
            let Some(quote) = rest.find('\'') else {
                return Err(ParseError::new("text without a closing quote", start));
            };
            text.push_str(&rest[..quote]);
            let doubled = rest[quote + 1..].starts_with('\'');
            self.at += quote + 1;
            if !doubled {
                return Ok(Token::Text(text));
            }
            text.push('\'');
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        let whole = self.digits();
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            is_float = true;
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_float = true;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(ParseError::new("exponent without digits", start));
            }
        }
        let text = &self.text[start..self.at];
        if is_float {
            let value = text.parse().map_err(|_| ParseError::new("malformed number", start))?;
            self.no_word_follows(start)?;
            return Ok(Token::Float(value));
        }
        if whole > 1 && text.starts_with('0') {
            return Err(ParseError::new("integer with leading zeros", start));
        }
        let integer = Token::Integer(text.to_owned());
        if matches!(self.peek(), Some(b'l' | b'L')) {
            self.at += 1;
        }
        self.no_word_follows(start)?;
        Ok(integer)
    }

    /// `5red` is a slip of the pen rather than a number and a name.
    fn no_word_follows(&self, start: usize) -> Result<(), ParseError> {
        match self.peek() {
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.') => {
                Err(ParseError::new("malformed number", start))
            }
            _ => Ok(()),
        }
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        count
    }

    fn word(&mut self) -> Token {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
        let length = self.rest().bytes().take_while(|byte| is_part(byte)).count();
        let word = &self.text[self.at..self.at + length];
        self.at += length;
        Keyword::of(word).map_or_else(|| Token::Word(word.to_owned()), Token::Keyword)
    }
}
