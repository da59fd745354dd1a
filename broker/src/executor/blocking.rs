//! Work that waits for a disk, away from the executor's thread.

use std::io;
use std::pin::Pin;

use escrowmq_common::task::Tasks;
use tokio::runtime::Handle;

/// The result of some work, when it is done.
pub(crate) type Done<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Does what must not be done on an executor: reads of old files, deletions. Clones share the tasks.
#[derive(Clone, Default)]
pub(crate) struct Blocking {
    pool: Option<(Tasks, Handle)>,
}

impl Blocking {
    /// On the pool of this runtime, as tasks of this set.
    pub(crate) fn new(tasks: Tasks, runtime: Handle) -> Self {
        Self { pool: Some((tasks, runtime)) }
    }

    /// At once, on the thread that asks: for those who drive an executor step by step.
    pub(crate) fn inline() -> Self {
        Self::default()
    }

    /// Does some work. It goes on if the future is dropped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Done<T> {
        match &self.pool {
            Some((tasks, runtime)) => {
                let _entered = runtime.enter();
                let task = tasks.spawn_blocking(name, work);
                let panicked = move || Err(io::Error::other(format!("{name} panicked")));
                Box::pin(async move { task.await.ok().flatten().unwrap_or_else(panicked) })
            }
            None => Box::pin(std::future::ready(work())),
        }
    }
}
