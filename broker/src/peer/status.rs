//! How a link does, for operators.

use std::sync::Arc;
use std::time::Duration;

use super::hello::{Hello, Lane, Target};
use super::refusal::Refusal;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody has used it.
    Unused,
    /// Its member is being dialed.
    Connecting,
    /// Calls go through.
    Connected,
    /// The last attempt failed or the connection ended; the next attempt follows by itself.
    Waiting,
    /// For good.
    Closed,
}

/// How a link does at a moment.
#[derive(Clone, Debug)]
pub(crate) struct LinkStatus {
    /// The member that is meant.
    pub(crate) target: Target,
    /// What for.
    pub(crate) lane: Lane,
    /// The address that is dialed.
    pub(crate) address: String,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// How long it has been in that phase.
    pub(crate) phase_age: Duration,
    /// Who answered there last, and proved it.
    pub(crate) member: Option<Arc<Hello>>,
    /// Why the last attempt failed or the last connection ended; `None` while connected.
    pub(crate) last_error: Option<String>,
    /// The refusal that the last attempt ended with.
    pub(crate) refusal: Option<Refusal>,
    /// Connections opened since the start.
    pub(crate) connects: u64,
    /// Attempts that failed since the start.
    pub(crate) failures: u64,
    /// Calls in flight.
    pub(crate) calls: usize,
    /// Their bytes.
    pub(crate) call_bytes: usize,
}
