//! Typed headers: one struct per request and response, the only place that spells the wire names of fields.
//!
//! Promises: decoding walks over the fields of a frame once and allocates nothing, texts are borrowed from the frame; a
//! field that is missing or no number is an error that names it, never a silent zero, except for the few fields that
//! clients are known to leave out (`or` in the tables of the files below).
//!
//! Left to others: whether a value makes sense. Unknown fields are ignored; a later duplicate wins. `bname`, which 5.x
//! clients add to every request about a queue, is read only where something is done with it.
//!
//! A request is `...Header`, the fields of its answer are `...Response`; requests without fields have neither.

#[macro_use]
mod table;

mod admin;
mod callback;
mod lookup;
mod membership;
mod nameserver;
mod offset;
mod ours;
mod pop;
mod pull;
mod send;
mod transaction;

pub use admin::*;
pub use callback::*;
pub use lookup::*;
pub use membership::*;
pub use nameserver::*;
pub use offset::*;
pub use ours::*;
pub use pop::*;
pub use pull::*;
pub use send::*;
pub use table::{Header, HeaderError, HeaderProblem};
pub use transaction::*;

#[cfg(test)]
mod tests;
