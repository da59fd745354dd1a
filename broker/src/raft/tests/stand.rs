//! A log on a simulated disk, an executor and a state machine in memory, driven by one thread.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_common::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::state::StateMachine;
use super::super::{CommittedEntry, Content};
use crate::executor::Executor;
use crate::latch::FailureLatch;
use crate::log::sim_disk::SimDisk;
use crate::log::{Drive, Log, LogSettings};
use crate::terms::LogIndex;

/// See the module.
pub(super) struct Stand {
    pub(super) clock: Clock,
    pub(super) log: Log,
    pub(super) executor: Executor,
    pub(super) latch: FailureLatch,
}

impl Stand {
    pub(super) fn new() -> Self {
        let (clock, disk, latch) = (Clock::manual(1_700_000_000_000), SimDisk::new(), FailureLatch::default());
        let settings = LogSettings {
            segment_bytes: 8 << 10,
            drive: Drive::Step { seed: 1 },
            clock: clock.clone(),
            latch: latch.clone(),
            ..LogSettings::default()
        };
        let log = Log::open(Arc::new(disk), Path::new("/log"), settings).expect("an empty disk");
        let executor = Executor::new(clock.clone(), latch.clone(), Some(1));
        Self { clock, log, executor, latch }
    }

    /// Lets all work that is at hand be done, and time go on when there is none, until `done` answers or nothing is left.
    pub(super) fn run_until<T>(&self, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = done() {
                return Some(found);
            }
            if self.executor.step() || self.log.step() {
                continue;
            }
            let next = self.executor.next_timer()?;
            self.clock.advance(next.saturating_sub(self.clock.monotonic()).max(Duration::from_millis(1)));
        }
    }

    /// Runs a future as a task of the executor. `None`: nobody has anything to do, and it is not ready; or it panicked.
    pub(super) fn drive<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        let task = self.executor.spawn(async move { *place.lock() = Some(future.await) });
        let ready = self.run_until(|| result.lock().take());
        drop(task);
        ready
    }
}

/// A state that notes how far it is, and its members.
#[derive(Default)]
pub(super) struct Machine {
    held: AtomicBool,
    released: Notify,
    state: Mutex<Seen>,
}

/// The entry that was applied last, and the newest members.
type Seen = (Option<(u64, LogIndex)>, Option<Vec<u8>>);

impl Machine {
    /// Applies nothing from now on, or goes on.
    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
        self.released.notify_one();
    }
}

impl StateMachine for Machine {
    async fn room(&self) {
        while self.held.load(Ordering::Relaxed) {
            self.released.notified().await;
        }
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> io::Result<()> {
        let mut state = self.state.lock();
        for entry in entries {
            state.0 = Some((entry.term, entry.index));
            if let Content::Membership(bytes) = entry.content {
                state.1 = Some(bytes.to_vec());
            }
        }
        Ok(())
    }

    fn applied(&self) -> Option<(u64, LogIndex)> {
        self.state.lock().0
    }

    fn membership(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.state.lock().1.clone())
    }

    fn is_vital(_payload: &[u8]) -> bool {
        true
    }

    fn truncated(&self, _last: Option<LogIndex>) {}
}
