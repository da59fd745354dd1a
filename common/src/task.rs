//! Tasks and their end. The only place that spawns.
//!
//! Promises: a task has a name; a panic is logged under that name instead of vanishing; whoever spawned can wait until
//! nothing of it is left. A loop takes a [`Shutdown`], looks at it first, and finishes or hands back what it has in hand.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request to stop, seen by everybody who holds a clone or a child.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Not cancelled yet.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Asks all holders, and all children, to stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Whether stopping was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until stopping is asked for. In a hot loop pin one such future rather than making one per turn.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// A part that can be stopped alone, and stops with its parent.
    #[must_use]
    pub fn child(&self) -> Shutdown {
        Shutdown { token: self.token.child_token() }
    }
}

/// A set of running tasks and threads that can be waited for. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Runs a future as a task of its own. Dropping the handle does not stop it.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(named(name, future).map(drop)))
    }

    /// Runs a future whose panic leaves the process unfit to go on: then `shutdown` is cancelled.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_vital<F>(&self, name: &'static str, shutdown: Shutdown, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(named(name, future).map(move |ended_well| {
            if !ended_well {
                shutdown.cancel();
            }
        })))
    }

    /// Runs blocking code, such as a slow file operation, on the runtime's pool for that.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let token = self.tracker.token();
        tokio::task::spawn_blocking(move || {
            let result = named_call(name, work);
            drop(token);
            result
        })
    }

    /// Runs a long-lived loop on a thread of its own, away from the runtime's workers.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn_thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let token = self.tracker.token();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            named_call(name, work);
            drop(token);
        })
    }

    /// How many are running.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until none is running.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Answers whether the future ended without a panic; logs one.
///
/// Built from combinators: an `async fn` would hold the future twice, as its argument and as what it awaits.
fn named<F: Future<Output = ()>>(name: &'static str, future: F) -> impl Future<Output = bool> {
    AssertUnwindSafe(future).catch_unwind().map(move |result| match result {
        Ok(()) => true,
        Err(panic) => {
            log_panic(name, &*panic);
            false
        }
    })
}

fn named_call<T>(name: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| log_panic(name, &*panic)).ok()
}

fn log_panic(name: &'static str, panic: &(dyn Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    tracing::error!(event = "task_panicked", task = name, panic = text, "task panicked");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn join_waits_for_tasks_and_threads() {
        let tasks = Tasks::new();
        let shutdown = Shutdown::new();
        let ended = Arc::new(AtomicBool::new(false));
        let (child, flag) = (shutdown.child(), ended.clone());
        tasks.spawn("waiter", async move {
            child.cancelled().await;
            flag.store(true, Ordering::SeqCst);
        });
        tasks.spawn_thread("thread", || {}).unwrap();
        assert!(!tasks.is_empty());
        shutdown.cancel();
        tasks.join().await;
        assert!(ended.load(Ordering::SeqCst));
        assert_eq!(tasks.len(), 0);
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_alone() {
        let tasks = Tasks::new();
        let shutdown = Shutdown::new();
        tasks.spawn("harmless", async { panic!("on purpose") });
        tasks.join().await;
        assert!(!shutdown.is_cancelled());
        tasks.spawn_vital("vital", shutdown.clone(), async { panic!("on purpose") });
        tasks.join().await;
        assert!(shutdown.is_cancelled());
        assert_eq!(tasks.spawn_blocking("blocking", || 7).await.unwrap(), Some(7));
    }
}
