//! The messages of a topic that a consumer group wants: all, those with some tags, or those for which an SQL92 expression is true.
//!
//! ```text
//!  text --lexer--> tokens --parser--> Expression --evaluate(properties)--> true | false | NULL | error
//! ```
//!
//! Promises: no text makes the parser panic, nest deeper than `parser::DEPTH_MAX` or take more memory than a small
//! multiple of the text; a tag filter decides by the index alone, without reading a message; only `true` is delivered.
//!
//! Left to others: the exact comparison of tags, which is the consumer's (different tags may share a hash).
//!
//! Where this differs from RocketMQ: `NOT a = 1` means `NOT (a = 1)` as in SQL, a sign is allowed in front of numbers
//! only, `0.0` is a number, and an integer property is compared as a 64-bit number, also with a small literal.

mod expression;
mod lexer;
mod parser;

use escrowmq_common::body::{EXPRESSION_SQL92, EXPRESSION_TAG, SubscriptionData};
use escrowmq_common::message::{MessageUnit, TagFilter};

pub(crate) use expression::Expression;
pub(crate) use parser::ParseError;

/// Why an expression is no filter. The client's fault; sending the same again ends the same way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// The SQL92 text does not parse.
    #[error(transparent)]
    Sql(#[from] ParseError),
    /// The tag expression names no tag.
    #[error("{0}")]
    Tags(String),
    /// Neither TAG nor SQL92.
    #[error("unknown expression type {0:?}: use TAG or SQL92")]
    Type(String),
}

/// The messages that pass.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    /// Everything.
    All,
    /// Messages whose tag has one of these hashes, sorted.
    Tags(Box<[i32]>),
    /// Messages whose properties make this true.
    Sql(Expression),
}

impl Filter {
    /// Reads an expression of this type; no type means tags, no expression means everything.
    pub(crate) fn compile(expression_type: Option<&str>, text: &str) -> Result<Self, FilterError> {
        match expression_type {
            None | Some("" | EXPRESSION_TAG) => Self::tags(text),
            Some(EXPRESSION_SQL92) => Ok(Self::Sql(parser::parse(text)?)),
            Some(other) => Err(FilterError::Type(other.chars().take(64).collect())),
        }
    }

    /// Reads a heartbeat's subscription. Some clients send the hashes of their tags and no text.
    pub(crate) fn of_subscription(data: &SubscriptionData) -> Result<Self, FilterError> {
        if data.is_tag_type() && data.sub_string.is_empty() && !data.code_set.is_empty() {
            return Ok(Self::Tags(sorted(data.code_set.clone())));
        }
        Self::compile(data.expression_type.as_deref(), &data.sub_string)
    }

    fn tags(text: &str) -> Result<Self, FilterError> {
        match TagFilter::parse(text.trim()).map_err(|error| FilterError::Tags(error.to_string()))? {
            TagFilter::All => Ok(Self::All),
            TagFilter::Tags(tags) => Ok(Self::Tags(sorted(tags.into_iter().map(|(_, hash)| hash).collect()))),
        }
    }

    /// Whether a message with this tag hash may pass. An expression looks at more than that.
    pub(crate) fn may_match(&self, tag_hash: i32) -> bool {
        match self {
            Self::All | Self::Sql(_) => true,
            Self::Tags(hashes) => hashes.binary_search(&tag_hash).is_ok(),
        }
    }

    /// The expression, if messages must be read to decide.
    pub(crate) fn expression(&self) -> Option<&Expression> {
        match self {
            Self::All | Self::Tags(_) => None,
            Self::Sql(expression) => Some(expression),
        }
    }
}

impl Expression {
    /// Whether a message passes. One for which the expression cannot be evaluated does not.
    pub(crate) fn passes(&self, unit: &MessageUnit<'_>) -> bool {
        self.evaluate(&|name| unit.property(name)).is_ok_and(|value| value.truth() == Some(true))
    }
}

fn sorted(mut hashes: Vec<i32>) -> Box<[i32]> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes.into_boxed_slice()
}

#[cfg(test)]
mod tests;
