//! Whether this member does what only the leader does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::raft::Lease;

/// A leader's office: its lease, and whether it has prepared itself. What an earlier leadership left in memory is gone before
/// the office is taken up, and the office is laid down before anything of it is touched again.
#[derive(Debug)]
pub(crate) struct Office {
    lease: Arc<Lease>,
    taken_up: AtomicBool,
}

impl Office {
    /// Nobody holds it yet.
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, taken_up: AtomicBool::new(false) }
    }

    /// Whether this member answers requests now.
    pub(crate) fn is_held(&self) -> bool {
        self.taken_up.load(Ordering::Acquire) && self.lease.holds()
    }

    /// This member leads and is prepared.
    pub(crate) fn take_up(&self) {
        self.taken_up.store(true, Ordering::Release);
    }

    /// This member does not lead any more.
    pub(crate) fn lay_down(&self) {
        self.taken_up.store(false, Ordering::Release);
    }
}
