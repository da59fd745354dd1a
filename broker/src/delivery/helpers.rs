//! Threads that help the connections' threads with pulls of old messages.
//!
//! A message that is no longer in the broker's memory is mostly in the system's, and a connection's thread reads it from there at
//! once.
//! When several consumers catch up, that is more than such a thread can do beside everything else: then helpers take pulls
//! off it, as long as one has nothing to do. Waking one costs more than a small pull, so a lone consumer never sees them.

use escrowmq_common::some_lines;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Delivery;
use super::pull::Pull;
use crate::terms::QueueOffset;

/// Two connections that one thread serves within this time count as catching up together.
const COMPANY: Duration = Duration::from_millis(1);

thread_local! {
    /// The connection whose pull of old messages this thread served last, and when.
    static LAST: Cell<(u64, Duration)> = const { Cell::new((0, Duration::ZERO)) };
}

/// The helpers of a delivery, and the pulls that wait for one.
#[derive(Default)]
pub(crate) struct Helpers {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    pulls: VecDeque<(Pull, QueueOffset)>,
    /// Helpers that wait for a pull.
    idle: usize,
    stopping: bool,
}

/// How many helpers there are: as many as the machine has cores that no connection's thread is meant for.
pub(crate) fn helper_count(connection_threads: usize) -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(connection_threads).max(1))
}

impl Helpers {
    /// Notes a pull of old messages that this thread is about to serve; says whether it has company.
    pub(crate) fn has_company(connection: u64, now: Duration) -> bool {
        let (last, at) = LAST.replace((connection, now));
        last != connection && now.saturating_sub(at) < COMPANY
    }

    /// Gives a pull, which looks from an offset on, to a helper that has nothing to do; gives it back if there is none.
    #[expect(clippy::result_large_err, reason = "a pull that is not taken comes back to be served")]
    pub(crate) fn give(&self, pull: Pull, from: QueueOffset) -> Result<(), Pull> {
        let mut state = self.state.lock();
        if state.stopping || state.pulls.len() >= state.idle {
            return Err(pull);
        }
        state.pulls.push_back((pull, from));
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// A helper: serves pulls until [`stop`](Self::stop).
    pub(crate) fn run(&self, delivery: &Arc<Delivery>) {
        loop {
            let mut state = self.state.lock();
            state.idle += 1;
            while state.pulls.is_empty() && !state.stopping {
                self.work.wait(&mut state);
            }
            state.idle -= 1;
            let Some((pull, from)) = state.pulls.pop_front() else { return };
            drop(state);
            // A panic is logged, and costs its own pull an answer and nothing else.
            if catch_unwind(AssertUnwindSafe(|| pull.serve_from(delivery, from))).is_err() {
                some_lines!(error, "serving a pull panicked");
            }
        }
    }

    /// Ends the helpers. Pulls that they have are answered.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn company_is_another_connection_a_moment_ago() {
        let at = Duration::from_millis;
        assert!(!Helpers::has_company(1, at(1000)));
        assert!(!Helpers::has_company(1, at(1000)), "itself is none");
        assert!(Helpers::has_company(2, at(1000)));
        assert!(!Helpers::has_company(1, at(1001)), "long ago");
    }
}
