//! Counts of requests that are passed on.

use std::sync::Arc;

use crate::metrics::Count;

/// Counts since start, and what waits now. Shared by the tunnels of a forwarder.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests that were written to the leader.
    pub(crate) passed: Count,
    /// Requests that other members have passed on to this one.
    pub(crate) arrived: Count,
    /// Requests that wait for a leader, or to be written to it.
    pub(crate) waiting: Count,
    /// Requests that were refused because no leader could be reached in time. Nothing was done.
    pub(crate) refused: Count,
    /// Connections to leaders that were opened.
    pub(crate) opened: Count,
    /// Connections to leaders that ended before all that had been written to them was answered.
    pub(crate) broken: Count,
    /// Requests whose outcome nobody knows, because such a connection ended.
    pub(crate) unknown: Count,
}

/// A request that waits, until this is dropped.
pub(super) struct Waits(Arc<Counts>);

impl Waits {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        counts.waiting.add_one();
        Self(Arc::clone(counts))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.take_one();
    }
}
