//! What a member counts of its group, for operators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::{Count, Histogram, Rate};

/// What went to another member while this one led.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From an append with entries to its answer, which follows the flush there.
    pub(crate) appends: Histogram,
    /// Bytes of appends.
    pub(crate) sent: Rate,
}

/// See the module. Shared by the parts of a member.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Terms in which this member has seen a leader.
    pub(super) leaders: Count,
    /// Bytes of requests that leaders have sent to this member.
    pub(super) received: Rate,
    traffic: Mutex<BTreeMap<u64, Arc<Traffic>>>,
    /// When a majority had last heard from this member before it ceased to lead, in milliseconds of the executor's clock.
    led_until: AtomicU64,
}

impl Counts {
    /// What goes to this member.
    pub(super) fn traffic_to(&self, member: u64) -> Arc<Traffic> {
        Arc::clone(self.traffic.lock().entry(member).or_default())
    }

    /// What went to this member, if anything was to be sent.
    pub(super) fn traffic_of(&self, member: u64) -> Option<Arc<Traffic>> {
        self.traffic.lock().get(&member).map(Arc::clone)
    }

    /// Forgets all but these members.
    pub(super) fn retain(&self, is_kept: impl Fn(u64) -> bool) {
        self.traffic.lock().retain(|member, _| is_kept(*member));
    }

    /// This member has ceased to lead; a majority had last heard from it then.
    pub(super) fn ceased(&self, majority_heard: Duration) {
        let heard = u64::try_from(majority_heard.as_millis()).unwrap_or(u64::MAX);
        self.led_until.fetch_max(heard, Ordering::Relaxed);
    }

    /// See [`ceased`](Self::ceased). Zero if it never led.
    pub(super) fn led_until(&self) -> Duration {
        Duration::from_millis(self.led_until.load(Ordering::Relaxed))
    }
}
