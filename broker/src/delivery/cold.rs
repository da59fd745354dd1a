//! Reads messages that are no longer in memory: a few at a time, away from the runtime's workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use escrowmq_common::task::Tasks;
use tokio::sync::Semaphore;

/// Reads at a time. A disk serves a few streams well and many badly.
const READERS: usize = 4;
/// Reads that wait for their turn; further ones are refused.
const WAITING_MAX: usize = 10_000;

/// Readers of files for pulls.
pub(crate) struct ColdReaders {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Default for ColdReaders {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(READERS)), waiting: Arc::default() }
    }
}

impl ColdReaders {
    /// How many reads wait or are under way.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Lets `read` run where blocking is allowed, when it is its turn; gives it back if too many wait.
    pub(crate) fn read<R>(&self, tasks: &Tasks, read: R) -> Result<(), R>
    where
        R: FnOnce() + Send + 'static,
    {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(read);
        }
        let (turns, waiting, blocking) = (Arc::clone(&self.turns), Arc::clone(&self.waiting), tasks.clone());
        tasks.spawn("cold pull", async move {
            let _turn = turns.acquire_owned().await.expect("never closed");
            // Its panic is logged, and costs its own pull an answer and nothing else.
            let _ = blocking.spawn_blocking("cold pull", read).await;
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }
}
