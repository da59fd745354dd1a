//! What a process of ours tells those who watch it: `/metrics` in the text format of Prometheus, `/live` and `/ready`.
//!
//! * [`Count`] and [`Histogram`]: what the hot path adds to. Each is some atomics that their owner holds: no lock, no allocation,
//!   no name. [`ByCode`]: one of them for each request code.
//! * [`Families`]: a scrape in the making. The owner of the names reads the counts and writes them here; the library of the
//!   Prometheus project makes the text.
//! * [`process`]: figures that every process has. [`connections`]: those of its [`Budget`](crate::remoting::Budget).
//! * [`serve`]: the pages over HTTP. [`Port`]: where.
//!
//! Promises: nothing is collected before somebody asks; one page of figures is made at a time, however many ask; bad input on the
//! port costs its sender a closed connection. Left to others: the names and meanings of a process's own figures.

mod by_code;
mod connections;
mod counts;
mod families;
mod http;
mod port;
mod process;

pub use by_code::ByCode;
pub use connections::connections;
pub use counts::{Count, Histogram};
pub use families::{Families, Samples, text};
pub use http::{Site, serve};
pub use port::{Port, listen};
pub use process::{configuration_hash, process};

/// The label value that stands for all that are not told apart. It is no valid name of a topic or a group.
pub const OTHER: &str = "(other)";
