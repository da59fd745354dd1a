//! Reading and writing RocketMQ's dialect of JSON.
//!
//! Reading goes in two steps: [`read`](self::from_slice) first brings the text into strict JSON (number keys quoted,
//! object keys turned into text, members with null dropped), then hands it to a strict parser. Writing is one pass of a
//! serialiser of its own, because no strict one takes such keys.

mod lenient;
mod read;
mod write;

use thiserror::Error;

pub use lenient::{number, numbers};
pub use read::from_slice;
pub use write::{Form, to_bytes};

use crate::code::response;

/// Deepest nesting that is read. Bodies of the protocol need six.
pub const DEPTH_MAX: usize = 64;

/// Why a body could not be read.
#[derive(Debug, Error)]
pub enum BodyError {
    /// No JSON, not even of the loose kind.
    #[error("malformed JSON at byte {at}")]
    Syntax {
        /// Where.
        at: usize,
    },
    /// More than [`DEPTH_MAX`] levels.
    #[error("JSON is nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// JSON, but not of the expected shape.
    #[error("unexpected JSON: {0}")]
    Shape(#[from] serde_json::Error),
    /// More objects and lists than its kind of body may have.
    #[error("more than {limit} objects and lists")]
    TooManyParts {
        /// Most that are read.
        limit: usize,
    },
    /// More fields, and entries of lists, than its kind of body may have.
    #[error("more than {limit} fields and entries of lists")]
    TooManyMembers {
        /// Most that are read.
        limit: usize,
    },
    /// A text with more bytes than are taken.
    #[error("{field}: {length} bytes, at most {limit} are taken")]
    TooLong {
        /// Its wire name.
        field: String,
        /// Its length in bytes.
        length: usize,
        /// Most bytes it may have.
        limit: usize,
    },
    /// A list or table with more entries than are taken.
    #[error("{field}: {count} entries, at most {limit} are taken")]
    TooMany {
        /// Its wire name.
        field: String,
        /// How many it has.
        count: usize,
        /// Most it may have.
        limit: usize,
    },
}

impl BodyError {
    /// The response code that says so: no client repeats what is too long or too many, and what cannot be read is
    /// answered as RocketMQ answers it.
    pub fn code(&self) -> i32 {
        match self {
            Self::Syntax { .. } | Self::TooDeep | Self::Shape(_) => response::SYSTEM_ERROR,
            Self::TooManyParts { .. } | Self::TooManyMembers { .. } | Self::TooLong { .. } | Self::TooMany { .. } => {
                response::MESSAGE_ILLEGAL
            }
        }
    }
}
