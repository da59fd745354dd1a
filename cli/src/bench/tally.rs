//! The counts of a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::histogram::Histogram;

/// When a run measures, in nanoseconds of the process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// When it begins to send.
    pub(super) start: u64,
    /// Answers count from here,
    pub(super) from: u64,
    /// to here, and nothing is sent afterwards. The greatest number for a run that ends by itself.
    pub(super) to: u64,
}

/// Seen by the workers and by who waits for them.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    done: AtomicU64,
    is_stopped: AtomicBool,
}

impl Gauge {
    /// Messages acknowledged, or received, so far.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Asks the workers to end.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// Refusals with one code.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    /// How many.
    pub(super) count: u64,
    /// The first one's reason, in the broker's words.
    pub(super) remark: String,
}

/// Counts of one worker, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Messages sent in the whole run.
    pub(super) sent: u64,
    /// Messages of the whole run that were acknowledged.
    pub(super) acknowledged: u64,
    /// Messages acknowledged, or received, within the window.
    pub(super) measured: u64,
    /// Messages received in the whole run.
    pub(super) received: u64,
    /// Bytes of their bodies.
    pub(super) received_bytes: u64,
    /// Pulls that brought messages.
    pub(super) pulls: u64,
    /// Questions of the broker about undecided messages.
    pub(super) checks: u64,
    /// Requests whose connection ended before their answer came.
    pub(super) lost: u64,
    /// Requests without an answer when the run was given up.
    pub(super) unanswered: u64,
    /// Answers to no request, which no broker should send.
    pub(super) strays: u64,
    /// Messages received twice, or out of their queue's order.
    pub(super) disordered: u64,
    /// Refusals by response code.
    pub(super) refusals: BTreeMap<i32, Refusals>,
    /// Why connections ended early.
    pub(super) broken: Option<String>,
    /// From the intended time of a request to its answer.
    pub(super) latency: Histogram,
    /// From the intended time of a message to its receipt.
    pub(super) receipts: Histogram,
    /// How late this process itself sent what it should have sent.
    pub(super) lag: Histogram,
    /// When the last message was acknowledged or received.
    pub(super) last: u64,
}

impl Tally {
    /// Counts a refusal; the reason is asked for once.
    pub(super) fn refuse(&mut self, code: i32, remark: impl FnOnce() -> String) {
        let refusals = self.refusals.entry(code).or_default();
        if refusals.count == 0 {
            refusals.remark = remark();
        }
        refusals.count += 1;
    }

    /// Adds what another worker counted.
    pub(super) fn merge(&mut self, other: Tally) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.measured += other.measured;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.pulls += other.pulls;
        self.checks += other.checks;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.strays += other.strays;
        self.disordered += other.disordered;
        for (code, refusals) in other.refusals {
            let ours = self.refusals.entry(code).or_default();
            ours.count += refusals.count;
            if ours.remark.is_empty() {
                ours.remark = refusals.remark;
            }
        }
        self.broken = self.broken.take().or(other.broken);
        self.latency.merge(&other.latency);
        self.receipts.merge(&other.receipts);
        self.lag.merge(&other.lag);
        self.last = self.last.max(other.last);
    }
}
