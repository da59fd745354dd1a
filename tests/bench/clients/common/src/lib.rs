//! What the Rust programs share: the command line, bodies, what is counted while messages are sent and consumed, and the line of JSON.
//!
//! The Java program does the same in the same way. Time and processor time are read when the warm-up ends and when the measurement
//! ends; what a process does before and after that does not count.

mod arguments;
mod bodies;
mod sample;
mod sending;
mod tally;

pub use arguments::Arguments;
pub use bodies::Bodies;
pub use sending::sending;
pub use tally::Tally;
