//! Tags: the hash that brokers filter by, and the expression that consumers subscribe with.

use thiserror::Error;

use super::properties::{Properties, name};

/// The hash of Java strings: over UTF-16 code units, wrapping at 32 bits.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The number that a queue entry stores for a message with this property string: the tag's hash, 0 without a tag.
pub fn tags_code(properties: Properties<'_>) -> i32 {
    properties.get(name::TAGS).map_or(0, java_hash)
}

/// The expression contains separators only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("tag expression {0:?} names no tag")]
pub struct TagFilterError(pub String);

/// A subscription by tag: everything, or a list of tags joined by `||`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFilter {
    /// `*`, or no expression at all.
    All,
    /// Any of these, with their hashes, in the order written.
    Tags(Vec<(String, i32)>),
}

impl TagFilter {
    /// Reads `A`, `A || B`, `*` or nothing. Blanks around a tag do not belong to it; an empty part is skipped.
    pub fn parse(expression: &str) -> Result<Self, TagFilterError> {
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let mut tags: Vec<(String, i32)> = Vec::new();
        for tag in expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()) {
            if !tags.iter().any(|(known, _)| known == tag) {
                tags.push((tag.to_owned(), java_hash(tag)));
            }
        }
        if tags.is_empty() {
            return Err(TagFilterError(expression.to_owned()));
        }
        Ok(Self::Tags(tags))
    }

    /// Whether a message with this tags code may match. Different tags can share a code.
    pub fn may_match(&self, tags_code: i32) -> bool {
        match self {
            Self::All => true,
            Self::Tags(tags) => tags.iter().any(|(_, hash)| *hash == tags_code),
        }
    }

    /// Whether a message with exactly this tag matches.
    pub fn matches(&self, tag: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Tags(tags) => tags.iter().any(|(wanted, _)| Some(wanted.as_str()) == tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        assert_eq!(TagFilter::parse("*"), Ok(TagFilter::All));
        assert_eq!(TagFilter::parse(""), Ok(TagFilter::All));
        let two = TagFilter::parse("TagA || TagB||TagA|| ").unwrap();
        let expected = vec![("TagA".to_owned(), 2_598_919), ("TagB".to_owned(), 2_598_920)];
        assert_eq!(two, TagFilter::Tags(expected));
        assert!(TagFilter::parse(" || ").is_err());
    }

    #[test]
    fn a_shared_hash_passes_the_broker_and_not_the_consumer() {
        // "Aa" and "BB" have the same hash.
        let filter = TagFilter::parse("Aa").unwrap();
        assert!(filter.may_match(java_hash("BB")));
        assert!(!filter.matches(Some("BB")));
        assert!(filter.matches(Some("Aa")));
        assert!(!filter.matches(None));
        assert!(!filter.may_match(0));
    }
}
