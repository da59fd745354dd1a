//! What happened on the port for members, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, and what is open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections of other members that are open now, and served.
    pub(crate) served: u64,
    /// Connections that are open now and have not yet proven who they are.
    pub(crate) half_open: u64,
    /// Handshakes of other members that went well.
    pub(crate) welcomed: u64,
    /// Handshakes that were refused with a reason.
    pub(crate) refused: u64,
    /// Connections that sent something else than a handshake, or ended during it.
    pub(crate) strange: u64,
    /// Connections that did not finish their handshake in time.
    pub(crate) silent: u64,
    /// Connections that lost their place to a newer one before they had proven who they are.
    pub(crate) displaced: u64,
}

/// The same, as they are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) welcomed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) strange: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) displaced: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self, served: usize, half_open: usize) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            served: served as u64,
            half_open: half_open as u64,
            welcomed: read(&self.welcomed),
            refused: read(&self.refused),
            strange: read(&self.strange),
            silent: read(&self.silent),
            displaced: read(&self.displaced),
        }
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
