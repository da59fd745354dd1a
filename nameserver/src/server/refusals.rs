//! Counts refusals by reason, and writes a line into the log now and then.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock::monotonic;

/// At most one line of a reason in this time: a peer must not be able to fill the log. The line has the count.
const LOG_GAP: Duration = Duration::from_secs(10);

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests wait already; a retry may succeed.
    Busy,
    /// A header, a body or a name is longer than it may be, or not of its form.
    Malformed,
    /// The route table has no room left.
    RoutesFull,
    /// Another broker holds the name and id, or the address.
    Taken,
    /// A leader whose group has a newer one.
    Older,
    /// Somebody spoke for a broker that registered from elsewhere.
    Stranger,
    /// The KV configuration has no room left.
    KvFull,
    /// A setting that tools may not change, or a value outside its range.
    Setting,
}

impl Refusal {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Refusal; 8] = [
        Refusal::Busy,
        Refusal::Malformed,
        Refusal::RoutesFull,
        Refusal::Taken,
        Refusal::Older,
        Refusal::Stranger,
        Refusal::KvFull,
        Refusal::Setting,
    ];

    /// The reason as a word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Busy => "busy",
            Refusal::Malformed => "malformed",
            Refusal::RoutesFull => "routes_full",
            Refusal::Taken => "taken",
            Refusal::Older => "older",
            Refusal::Stranger => "stranger",
            Refusal::KvFull => "kv_full",
            Refusal::Setting => "setting",
        }
    }
}

/// How often each reason was met since the start.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    reasons: [Reason; Refusal::ALL.len()],
}

#[derive(Debug, Default)]
struct Reason {
    count: AtomicU64,
    /// When the next line is due, in milliseconds of the monotonic clock.
    next_line: AtomicU64,
}

impl Refusals {
    /// Counts one, and logs it unless there was a line just now.
    pub(crate) fn count(&self, refusal: Refusal, peer: SocketAddr, why: impl Display) {
        let reason = &self.reasons[refusal as usize];
        let total = reason.count.fetch_add(1, Ordering::Relaxed) + 1;
        let now = monotonic().as_millis() as u64;
        let due = reason.next_line.load(Ordering::Relaxed);
        let next = now + LOG_GAP.as_millis() as u64;
        // Of several threads at the same moment one writes.
        let writes =
            now >= due && reason.next_line.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if writes {
            tracing::warn!(event = "request_refused", reason = refusal.name(), total, %peer, %why, "request refused");
        }
    }

    pub(crate) fn of(&self, refusal: Refusal) -> u64 {
        self.reasons[refusal as usize].count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count_and_name() {
        let refusals = Refusals::default();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        for (n, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, n, "the list is in the order of the declaration");
            for _ in 0..n {
                refusals.count(refusal, peer, "why");
            }
        }
        for (n, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusals.of(refusal), n as u64, "{}", refusal.name());
        }
    }
}
