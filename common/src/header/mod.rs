//! Typed headers: one struct per request and response, the only place that spells the wire names of fields.
//!
//! Promises: decoding walks over the fields of a frame once and allocates nothing, texts are borrowed from the frame; a
//! field that is missing or no number is an error that names it, never a silent zero, except for the few fields that
//! clients are known to leave out (`or` in the tables below).
//!
//! Left to others: whether a value makes sense. Unknown fields are ignored; a later duplicate wins.

#[macro_use]
mod table;

pub use table::{Header, HeaderError, HeaderProblem};
