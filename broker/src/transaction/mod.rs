//! Check-backs: producers are asked about half messages that nobody decides.
//!
//! ```text
//!  half table, due table --> runner: a round --> engine: asks, waits or parks
//!        ^                                            |
//!        +------ apply <------ Checked, Park, Resume -+
//!                                                     +--> check to a producer's connection, once Checked is on its way
//! ```
//!
//! [`engine`] decides about one half and knows no clock, socket, file or lock; [`round`] reads which halves are due and asks the
//! engine about each; [`runner`] carries a round out: it submits and sends;
//! [`Transactions`] tells the engine of answers, decisions and connections, which handlers learn of.
//!
//! Promises: a round costs as much as is due, not as much as is stored; a half whose group has no instance waits without using up
//! an attempt; each half ends decided or parked; one half that cannot be read or sent stops no other. Leaves to others: the effect
//! of a decision (`shard::apply`), the connected instances (`client_registry`).

pub(crate) mod answers;
pub(crate) mod check;
pub(crate) mod engine;
mod round;
pub(crate) mod runner;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use answers::{Answer, Answers};
use engine::Scheduler;

use crate::metrics::Histogram;
use crate::terms::{HalfId, QueueId, Stamp};

/// The state of check-backs that handlers and the runner share.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Locked for a moment each time: handlers wait for it.
    scheduler: Mutex<Scheduler>,
    /// Told when there is something to look at that has no due time.
    attention: Notify,
    /// When the last round began.
    looked_at: AtomicU64,
    /// The time up to which rounds have done all that was due.
    done_at: AtomicU64,
    checks_sent: AtomicU64,
    check_answers: Histogram,
    /// Locked for a moment each time.
    answers: Mutex<Answers>,
}

impl Transactions {
    /// A producer answered a check in one way or another; `connection` is the id of the connection that it came on. Says whether
    /// that connection owed the answer.
    pub(crate) fn answered(&self, connection: u64, half: HalfId, now: Stamp) -> bool {
        let (asked, makes_room) = {
            let mut scheduler = self.scheduler.lock();
            (scheduler.answered(connection, half), scheduler.held() > 0)
        };
        let Some(asked) = asked else { return false };
        self.check_answers.record(Duration::from_millis(now.since(asked)));
        if makes_room {
            self.attention.notify_one();
        }
        true
    }

    /// From checks until their answers.
    pub(crate) fn check_answers(&self) -> &Histogram {
        &self.check_answers
    }

    /// The time up to which everything that was due is done: checks sent, halves parked.
    pub(crate) fn done_at(&self) -> Stamp {
        Stamp(self.done_at.load(Ordering::Relaxed))
    }

    /// A check about a half was answered at `at`, and not by a decision.
    pub(crate) fn note_answer(&self, half: HalfId, at: Stamp, answer: Answer) {
        self.answers.lock().note(half, at, answer);
    }

    /// The answers to the checks about a half that went out at these times, as far as this process remembers.
    pub(crate) fn answers_to(&self, half: HalfId, asked: &[Stamp]) -> Vec<Option<Answer>> {
        self.answers.lock().to(half, asked)
    }

    /// A connection is gone; so are its unanswered checks.
    pub(crate) fn connection_closed(&self, connection: u64) {
        let has_held = {
            let mut scheduler = self.scheduler.lock();
            scheduler.closed(connection);
            scheduler.held() > 0
        };
        if has_held {
            self.attention.notify_one();
        }
    }

    /// A transaction was decided or parked: it does not wait any more. `which` looks up its group and its first half.
    pub(crate) fn decided(&self, which: impl FnOnce() -> Option<(String, HalfId)>) {
        // Mostly nothing waits, and then nothing is looked up.
        if self.scheduler.lock().has_any()
            && let Some((group, half)) = which()
        {
            self.scheduler.lock().waits_no_more(&group, half);
        }
    }

    /// Whether any transaction waits: only then there is something to say about decided ones.
    pub(crate) fn has_any(&self) -> bool {
        self.scheduler.lock().has_any()
    }

    /// A topic was deleted, named by its first queue: its open halves are parked.
    pub(crate) fn topic_deleted(&self, topic: QueueId) {
        self.scheduler.lock().topic_deleted(topic);
        self.attention.notify_one();
    }

    /// A half is due now, even if the runner has passed it.
    pub(crate) fn look_again(&self, half: HalfId) {
        self.scheduler.lock().look_again(half);
        self.attention.notify_one();
    }

    /// A transaction got a lease until a time: it does not wait any more, and is due then. `which` looks up its group and its
    /// first half.
    pub(crate) fn leased(&self, until: Stamp, which: impl FnOnce() -> Option<(String, HalfId)>) {
        self.decided(which);
        // A short lease may be over already, and the runner may have passed its time.
        self.scheduler.lock().recheck_from(until);
        self.attention.notify_one();
    }

    /// Checks written to connections since start.
    pub(crate) fn checks_sent(&self) -> u64 {
        self.checks_sent.load(Ordering::Relaxed)
    }

    /// Halves that wait because no instance of their group is connected, for an alarm: none in the first minute after a
    /// start, while clients come back.
    pub(crate) fn halves_without_checker(&self) -> u64 {
        self.scheduler.lock().without_checker(Stamp(self.looked_at.load(Ordering::Relaxed))) as u64
    }

    /// Halves of a producer group that wait because no instance of it is connected.
    pub(crate) fn waiting_for_checker(&self, group: &str) -> u64 {
        self.scheduler.lock().waiting_of(group) as u64
    }
}
