//! From tokens to an expression.
//!
//! ```text
//!  or         = and { OR and }
//!  and        = not { AND not }
//!  not        = NOT not | equality
//!  equality   = comparison { ( "=" | "<>" ) comparison | IS [NOT] NULL }
//!  comparison = primary { ( ">" | ">=" | "<" | "<=" ) primary | [NOT] BETWEEN primary AND primary
//!                       | [NOT] IN "(" text { "," text } ")" | [NOT] ( CONTAINS | STARTSWITH | ENDSWITH ) text }
//!  primary    = literal | property | ( "+" | "-" ) number | "(" or ")"
//! ```

use super::expression::{Compare, Expression, TextTest, Value};
use super::lexer::{Keyword, Spanned, Token, tokens};

/// Deepest nesting of parentheses and negations.
pub(super) const DEPTH_MAX: usize = 64;
/// Longest expression, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Where and why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct ParseError {
    what: String,
    at: usize,
}

impl ParseError {
    pub(super) fn new(what: impl Into<String>, at: usize) -> Self {
        Self { what: what.into(), at }
    }
}

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Expression, ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ParseError::new(format!("expression longer than {TEXT_BYTES_MAX} bytes"), TEXT_BYTES_MAX));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expression = parser.or()?;
    match parser.peek() {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected("AND, OR or the end")),
    }
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn or(&mut self) -> Result<Expression, ParseError> {
        let mut parts = vec![self.and()?];
        while self.take_keyword(Keyword::Or) {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, ParseError> {
        let mut parts = vec![self.not()?];
        while self.take_keyword(Keyword::And) {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expression::And))
    }

    fn not(&mut self) -> Result<Expression, ParseError> {
        if !self.take_keyword(Keyword::Not) {
            return self.equality();
        }
        self.deeper(|parser| Ok(Expression::Not(Box::new(parser.not()?))))
    }

    fn equality(&mut self) -> Result<Expression, ParseError> {
        let mut left = self.comparison()?;
        loop {
            let compare = match self.peek() {
                Token::Equal => Compare::Equal,
                Token::NotEqual => Compare::NotEqual,
                Token::Keyword(Keyword::Is) => {
                    self.next += 1;
                    let negated = self.take_keyword(Keyword::Not);
                    self.expect_keyword(Keyword::Null)?;
                    left = self.nested(|| Expression::IsNull { operand: Box::new(left), negated })?;
                    continue;
                }
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.comparison()?;
            left = self.nested(|| Expression::Compare(compare, Box::new([left, right])))?;
        }
    }

    fn comparison(&mut self) -> Result<Expression, ParseError> {
        let mut left = self.primary()?;
        loop {
            let compare = match self.peek() {
                Token::Less => Compare::Less,
                Token::LessOrEqual => Compare::LessOrEqual,
                Token::Greater => Compare::Greater,
                Token::GreaterOrEqual => Compare::GreaterOrEqual,
                Token::Keyword(Keyword::Not) => {
                    self.next += 1;
                    left = self.test(left, true)?;
                    continue;
                }
                Token::Keyword(
                    Keyword::Between | Keyword::In | Keyword::Contains | Keyword::StartsWith | Keyword::EndsWith,
                ) => {
                    left = self.test(left, false)?;
                    continue;
                }
                _ => return Ok(left),
            };
            let at = self.at();
            self.next += 1;
            let right = self.primary()?;
            ordered(&left, at)?;
            ordered(&right, at)?;
            left = self.nested(|| Expression::Compare(compare, Box::new([left, right])))?;
        }
    }

    /// `BETWEEN`, `IN` or a test of a text, after an optional `NOT` that was taken already.
    fn test(&mut self, left: Expression, negated: bool) -> Result<Expression, ParseError> {
        let at = self.at();
        let test = match self.peek() {
            Token::Keyword(Keyword::Between) => return self.between(left, negated),
            Token::Keyword(Keyword::In) => return self.one_of(left, negated),
            Token::Keyword(Keyword::Contains) => TextTest::Contains,
            Token::Keyword(Keyword::StartsWith) => TextTest::StartsWith,
            Token::Keyword(Keyword::EndsWith) => TextTest::EndsWith,
            _ => return Err(self.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")),
        };
        self.next += 1;
        let property = property(left, at)?;
        let text = self.text()?;
        self.nested(|| Expression::Text { property, test, text, negated })
    }

    fn between(&mut self, operand: Expression, negated: bool) -> Result<Expression, ParseError> {
        let at = self.at();
        self.next += 1;
        let low = self.primary()?;
        self.expect_keyword(Keyword::And)?;
        let high = self.primary()?;
        for side in [&operand, &low, &high] {
            ordered(side, at)?;
        }
        if let (Some(low), Some(high)) = (low.number(), high.number())
            && low > high
        {
            return Err(ParseError::new(format!("BETWEEN {low} AND {high} is empty"), at));
        }
        self.nested(|| Expression::Between { parts: Box::new([operand, low, high]), negated })
    }

    fn one_of(&mut self, left: Expression, negated: bool) -> Result<Expression, ParseError> {
        let property = property(left, self.at())?;
        self.next += 1;
        self.expect(&Token::Open, "(")?;
        let mut texts = vec![self.text()?];
        while *self.peek() == Token::Comma {
            self.next += 1;
            texts.push(self.text()?);
        }
        self.expect(&Token::Close, ")")?;
        texts.sort_unstable();
        texts.dedup();
        self.nested(|| Expression::In { property, texts, negated })
    }

    fn primary(&mut self) -> Result<Expression, ParseError> {
        let at = self.at();
        let expression = match self.peek().clone() {
            Token::Word(name) => Expression::Property(name),
            Token::Text(text) => Expression::Literal(Value::Text(text.into())),
            Token::Integer(digits) => integer(&digits, false, at)?,
            Token::Float(value) => Expression::Literal(Value::Float(value)),
            Token::Keyword(Keyword::True) => Expression::Literal(Value::Bool(true)),
            Token::Keyword(Keyword::False) => Expression::Literal(Value::Bool(false)),
            Token::Keyword(Keyword::Null) => Expression::Literal(Value::Null),
            Token::Plus | Token::Minus => return self.signed(),
            Token::Open => {
                self.next += 1;
                let inside = self.deeper(Self::or)?;
                self.expect(&Token::Close, ")")?;
                return Ok(inside);
            }
            _ => return Err(self.unexpected("a property, a literal or (")),
        };
        self.next += 1;
        Ok(expression)
    }

    fn signed(&mut self) -> Result<Expression, ParseError> {
        let mut negative = false;
        while let Token::Plus | Token::Minus = self.peek() {
            negative ^= *self.peek() == Token::Minus;
            self.next += 1;
        }
        let at = self.at();
        let expression = match self.peek().clone() {
            Token::Integer(digits) => integer(&digits, negative, at)?,
            Token::Float(value) => Expression::Literal(Value::Float(if negative { -value } else { value })),
            _ => return Err(self.unexpected("a number")),
        };
        self.next += 1;
        Ok(expression)
    }

    fn text(&mut self) -> Result<String, ParseError> {
        let Token::Text(text) = self.peek() else {
            return Err(self.unexpected("a text in quotes"));
        };
        let text = text.clone();
        self.next += 1;
        Ok(text)
    }

    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ParseError::new(format!("nested deeper than {DEPTH_MAX}"), self.at()));
        }
        let result = inside(self)?;
        self.depth -= 1;
        Ok(result)
    }

    /// Wraps what stands to the left. `a = b = c = ...` nests without parentheses, so it is bounded in the same way:
    /// each wrap of this kind counts against the depth for good.
    fn nested(&mut self, wrap: impl FnOnce() -> Expression) -> Result<Expression, ParseError> {
        let expression = wrap();
        if expression.depth() > 4 * DEPTH_MAX {
            return Err(ParseError::new("too many comparisons in a row", self.at()));
        }
        Ok(expression)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next.min(self.tokens.len() - 1)].at
    }

    fn take_keyword(&mut self, keyword: Keyword) -> bool {
        let found = *self.peek() == Token::Keyword(keyword);
        self.next += usize::from(found);
        found
    }

    fn expect_keyword(&mut self, keyword: Keyword) -> Result<(), ParseError> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.unexpected(keyword.text())) }
    }

    fn expect(&mut self, token: &Token, text: &str) -> Result<(), ParseError> {
        if self.peek() != token {
            return Err(self.unexpected(text));
        }
        self.next += 1;
        Ok(())
    }

    fn unexpected(&self, expected: &str) -> ParseError {
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Word(name) => format!("{:?}", name.chars().take(64).collect::<String>()),
            Token::Keyword(keyword) => keyword.text().to_owned(),
            Token::Text(_) => "a text".to_owned(),
            Token::Integer(_) | Token::Float(_) => "a number".to_owned(),
            other => format!("{other:?}"),
        };
        ParseError::new(format!("expected {expected}, found {found}"), self.at())
    }
}

fn one_or(mut parts: Vec<Expression>, many: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() > 1 { many(parts) } else { parts.remove(0) }
}

fn integer(digits: &str, negative: bool, at: usize) -> Result<Expression, ParseError> {
    let value: i128 = digits.parse().map_err(|_| ParseError::new("integer out of range", at))?;
    let value = i64::try_from(if negative { -value } else { value })
        .map_err(|_| ParseError::new("integer out of range", at))?;
    Ok(Expression::Literal(Value::Integer(value)))
}

fn property(expression: Expression, at: usize) -> Result<String, ParseError> {
    match expression {
        Expression::Property(name) => Ok(name),
        _ => Err(ParseError::new("only a property can be tested so", at)),
    }
}

/// Texts and booleans have no order.
fn ordered(side: &Expression, at: usize) -> Result<(), ParseError> {
    match side {
        Expression::Literal(Value::Text(_) | Value::Bool(_)) => {
            Err(ParseError::new("texts and booleans have no order", at))
        }
        _ => Ok(()),
    }
}
