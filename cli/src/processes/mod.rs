//! Processes of EscrowMQ on this machine that a command starts, watches and ends: those of `escrowmq demo` and of
//! `escrowmq cluster`.
//!
//! Promises: a process ends with its handle; its log is in a file, and its last lines are at hand when something fails.
//! Leaves to others: which processes there are, and with which settings.

mod listening;
mod process;
mod wait;

pub(crate) use listening::{Running, start};
pub(crate) use process::{Log, Logs, Process, binary};
pub(crate) use wait::{DEADLINE, interrupted, until};
