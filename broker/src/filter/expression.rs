//! An expression, and its value for a message.

use std::borrow::Cow;
use std::cmp::Ordering;

/// A value while an expression is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// Unknown: a property that is missing, or a value that depends on one.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text; every property is one.
    Text(Cow<'a, str>),
}

/// Why an expression says nothing of a message: it is not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluationError {
    /// A property is no number where one is needed.
    #[error("{0:?} is no number")]
    NoNumber(String),
    /// Texts are compared by order.
    #[error("{0:?} and {1:?} have no order")]
    NoOrder(String, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the operators' own names")]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the operators' own names")]
pub(crate) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

/// A parsed expression. Made by the parser alone, which bounds its depth: evaluation recurses.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the grammar of the parser")]
pub(crate) enum Expression {
    Literal(Value<'static>),
    Property(String),
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Compare, Box<[Expression; 2]>),
    /// Operand, low end, high end.
    Between {
        parts: Box<[Expression; 3]>,
        negated: bool,
    },
    /// The texts are sorted.
    In {
        property: String,
        texts: Vec<String>,
        negated: bool,
    },
    Text {
        property: String,
        test: TextTest,
        text: String,
        negated: bool,
    },
    IsNull {
        operand: Box<Expression>,
        negated: bool,
    },
}

impl Expression {
    /// The value of the expression for a message with these properties. Parts after the first that decides are not looked
    /// at, so an error in them does not count.
    pub(crate) fn evaluate<'a>(
        &'a self,
        properties: &impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Value<'a>, EvaluationError> {
        Ok(match self {
            Self::Literal(value) => value.borrowed(),
            Self::Property(name) => properties(name).map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text))),
            Self::Or(parts) => some_of(parts, true, properties)?,
            Self::And(parts) => some_of(parts, false, properties)?,
            Self::Not(operand) => logical(operand.evaluate(properties)?.truth().map(|truth| !truth)),
            Self::Compare(compare, sides) => {
                let [left, right] = &**sides;
                let (left, right) = (left.evaluate(properties)?, right.evaluate(properties)?);
                compare.of(&left, &right)?
            }
            Self::Between { parts, negated } => {
                let [operand, low, high] = &**parts;
                let operand = operand.evaluate(properties)?;
                let low = Compare::GreaterOrEqual.of(&operand, &low.evaluate(properties)?)?;
                if low == Value::Bool(false) {
                    return Ok(Value::Bool(*negated));
                }
                let high = Compare::LessOrEqual.of(&operand, &high.evaluate(properties)?)?;
                let inside = match (low.truth(), high.truth()) {
                    (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                logical(inside.map(|inside| inside != *negated))
            }
            Self::In { property, texts, negated } => logical(properties(property).map(|value| {
                let found = texts.binary_search_by(|text| text.as_str().cmp(value)).is_ok();
                found != *negated
            })),
            Self::Text { property, test, text, negated } => {
                logical(properties(property).map(|value| test.holds(value, text) != *negated))
            }
            Self::IsNull { operand, negated } => {
                Value::Bool((operand.evaluate(properties)? == Value::Null) != *negated)
            }
        })
    }

    /// The number, if this is one.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Literal(Value::Integer(value)) => Some(*value as f64),
            Self::Literal(Value::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// How many expressions stand in one another on the left side, where the grammar repeats.
    pub(super) fn depth(&self) -> usize {
        let mut depth = 1;
        let mut expression = self;
        loop {
            expression = match expression {
                Self::Compare(_, sides) => &sides[0],
                Self::Between { parts, .. } => &parts[0],
                Self::IsNull { operand, .. } => operand,
                Self::Literal(_)
                | Self::Property(_)
                | Self::Or(_)
                | Self::And(_)
                | Self::Not(_)
                | Self::In { .. }
                | Self::Text { .. } => return depth,
            };
            depth += 1;
        }
    }
}

/// Whether one part is `wanted`: OR wants true, AND wants false. If none is, unknown parts leave the whole unknown.
fn some_of<'a>(
    parts: &'a [Expression],
    wanted: bool,
    properties: &impl Fn(&str) -> Option<&'a str>,
) -> Result<Value<'a>, EvaluationError> {
    let mut unknown = false;
    for part in parts {
        match part.evaluate(properties)?.truth() {
            Some(truth) if truth == wanted => return Ok(Value::Bool(wanted)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { Value::Null } else { Value::Bool(!wanted) })
}

fn logical<'a>(truth: Option<bool>) -> Value<'a> {
    truth.map_or(Value::Null, Value::Bool)
}

impl Value<'_> {
    fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Integer(value) => Value::Integer(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
        }
    }

    /// As a condition. A text is true if it says so; a number is not.
    pub(super) fn truth(&self) -> Option<bool> {
        match self {
            Self::Null => None,
            Self::Bool(truth) => Some(*truth),
            Self::Text(text) => Some(text.eq_ignore_ascii_case("true")),
            Self::Integer(_) | Self::Float(_) => Some(false),
        }
    }
}

impl TextTest {
    fn holds(self, value: &str, text: &str) -> bool {
        match self {
            Self::Contains => value.contains(text),
            Self::StartsWith => value.starts_with(text),
            Self::EndsWith => value.ends_with(text),
        }
    }
}

impl Compare {
    fn of<'a>(self, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'a>, EvaluationError> {
        if *left == Value::Null || *right == Value::Null {
            return Ok(Value::Null);
        }
        let by_order = !matches!(self, Self::Equal | Self::NotEqual);
        if let (Value::Text(left), Value::Text(right)) = (left, right)
            && by_order
        {
            // Two properties: their order is that of their numbers.
            let (Ok(left), Ok(right)) = (float(left), float(right)) else {
                return Err(EvaluationError::NoOrder(left.to_string(), right.to_string()));
            };
            return Ok(Value::Bool(self.holds(left.partial_cmp(&right))));
        }
        Ok(Value::Bool(self.holds(order(left, right)?)))
    }

    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// The order of two known values; a text is read as what the other side is. `None`: they cannot be equal.
fn order(left: &Value<'_>, right: &Value<'_>) -> Result<Option<Ordering>, EvaluationError> {
    Ok(match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Integer(left), Value::Float(right)) => (*left as f64).partial_cmp(right),
        (Value::Float(left), Value::Integer(right)) => left.partial_cmp(&(*right as f64)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Integer(right)) => Some(integer(left)?.cmp(right)),
        (Value::Integer(left), Value::Text(right)) => Some(left.cmp(&integer(right)?)),
        (Value::Text(left), Value::Float(right)) => float(left)?.partial_cmp(right),
        (Value::Float(left), Value::Text(right)) => left.partial_cmp(&float(right)?),
        (Value::Text(left), Value::Bool(right)) => Some(left.eq_ignore_ascii_case("true").cmp(right)),
        (Value::Bool(left), Value::Text(right)) => Some(left.cmp(&right.eq_ignore_ascii_case("true"))),
        (Value::Bool(_), Value::Integer(_) | Value::Float(_))
        | (Value::Integer(_) | Value::Float(_), Value::Bool(_))
        | (Value::Null, _)
        | (_, Value::Null) => None,
    })
}

fn integer(text: &str) -> Result<i64, EvaluationError> {
    text.parse().map_err(|_| EvaluationError::NoNumber(text.to_owned()))
}

fn float(text: &str) -> Result<f64, EvaluationError> {
    text.trim().parse().map_err(|_| EvaluationError::NoNumber(text.to_owned()))
}
