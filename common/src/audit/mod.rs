//! The audit: one line for each act of an administrator.
//!
//! A server's one place that all requests pass asks its own table whether a request is an act, and makes an [`Act`] of it. The act
//! travels with the request until that is answered.
//!
//! Promises: an act leaves a line when it is answered, just before the answer: done or refused; one that is dropped without an answer
//! leaves a line that says so, because nobody knows then what became of it. Several objects of one act have a line each. Texts of peers
//! are quoted and cut, so that nobody forges a line. Only refusals are bounded, and only those of other machines: anybody who reaches the
//! port may ask as often as they like, and the next line has the number of those left out.
//!
//! Each line goes to the log, with the target `audit` and the level `info`, and into a file of its own if one is named ([`Trail`]).
//!
//! Left to others: which requests are acts, and their names.

mod act;
mod line;
mod trail;

pub use act::Act;
pub use trail::{Trail, TrailError};
