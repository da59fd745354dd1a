//! Settings of a process: the texts that hold them, and what a mistyped key may have meant. Each program has its own keys.

pub mod nearest;
pub mod properties;
