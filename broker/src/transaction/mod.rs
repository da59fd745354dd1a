//! Check-backs: what happens to half messages that nobody decides.
//!
//! ```text
//!  half table, due table --> runner: what is due? --> engine: check, wait or park? --> check to a producer's connection
//!        ^                                                                              --> Checked / Park command
//!        +------------------------------- apply <----------------------------------------------+
//! ```
//!
//! [`engine`] decides and knows no clock, socket or file; [`waiting`] and [`window`] are its memory of groups without an
//! instance and of unanswered checks; [`runner`] does the reading, sending and submitting.
//!
//! Promises: a check costs only what is due; a half whose group has no instance waits without using up an attempt; each
//! half ends decided or parked; one half that cannot be read or sent stops no other. Leaves to others: what a decision
//! does (`shard::apply`), who is connected (`client_registry`).

pub mod check;
pub mod engine;
pub mod policy;
pub mod runner;
pub mod waiting;
pub mod window;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use waiting::Waiting;
use window::Windows;

/// What handlers and the runner share about check-backs.
#[derive(Debug, Default)]
pub struct Transactions {
    /// Unanswered checks per connection.
    windows: Mutex<Windows>,
    /// Halves whose group has no instance.
    waiting: Mutex<Waiting>,
    /// Halves that an operator resumed or that a full window held back: looked at again in the next round.
    again: Mutex<Vec<u64>>,
    /// Told when there is something to look at that no due time tells.
    attention: Notify,
    checks_sent: AtomicU64,
}

impl Transactions {
    /// A producer answered a check, whatever the answer; `connection` is the id of the connection it came on. Says whether
    /// that connection had been asked.
    pub fn answered(&self, connection: u64, half: u64) -> bool {
        let answered = self.windows.lock().answered(connection, half);
        if answered == Some(true) {
            self.attention.notify_one();
        }
        answered.is_some()
    }

    /// A connection is gone; so are its unanswered checks.
    pub fn connection_closed(&self, connection: u64) {
        self.windows.lock().forget(connection);
    }

    /// A half is due now, whatever the runner has seen so far.
    pub fn look_again(&self, half: u64) {
        self.again.lock().push(half);
        self.attention.notify_one();
    }

    /// Checks written to connections since start.
    pub fn checks_sent(&self) -> u64 {
        self.checks_sent.load(Ordering::Relaxed)
    }

    /// Halves that wait because no instance of their group is connected.
    pub fn halves_without_checker(&self) -> u64 {
        self.waiting.lock().len() as u64
    }
}
