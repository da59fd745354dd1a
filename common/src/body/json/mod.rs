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
}
