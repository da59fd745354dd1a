//! Runs the tasks that make up a shard's write path, on whichever thread is best placed to.
//!
//! Waking another thread costs more than a small batch's whole way through Raft, log and apply. So the tasks of the
//! write path (proposing, Raft's core, apply) have an executor of their own, which *any* thread can lend itself to: the
//! connection task that has just submitted commands runs them at once, [`Executor::lend`], and nobody is woken. When
//! nobody lends itself, a thread of the executor's own does the work: timers and flushes that end go that way, so the
//! load of connections cannot delay them, nor can a lender be kept for long.
//!
//! Promises: at most one thread polls at a time; a task that was woken is polled; a lender gets its thread back after
//! half a millisecond, or one poll later; a task that panics closes the failure latch. Leaves to others: what the tasks do. A task must not block.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use escrowmq_common::clock::Clock;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::latch::{Failure, FailureLatch};

/// How long a lender works at most before the executor's own thread takes over.
const LENT: Duration = Duration::from_micros(500);

thread_local! {
    /// The executor, by the address of its state, that this thread will lend itself to when it is done with what it does
    /// now: nobody need be woken for it.
    static LENDING: Cell<usize> = const { Cell::new(0) };
    /// The executor that is polling on this thread.
    static CURRENT: RefCell<Option<Executor>> = const { RefCell::new(None) };
}

/// A task was polled and panicked, or was dropped unfinished.
#[derive(Debug, thiserror::Error)]
#[error("a task of the write path ended by a panic")]
pub struct TaskPanicked;

/// Waits for a task's result.
pub struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, TaskPanicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| TaskPanicked)
    }
}

/// The executor; clones are handles of the same one.
#[derive(Clone, Default)]
pub struct Executor {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Measures how long a lender works.
    clock: Clock,
    /// Closed when a task panics.
    latch: FailureLatch,
    state: Mutex<State>,
    /// The own thread waits here.
    work: Condvar,
    /// For timers that tasks set: the runtime whose clock they use.
    timers: OnceLock<Handle>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Arc<Task>>,
    /// A thread is polling.
    running: bool,
    stopping: bool,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    work: Mutex<Option<Work>>,
    /// In `ready`, so that it is there once.
    queued: AtomicBool,
    executor: Executor,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let executor = self.executor.clone();
            executor.schedule(self);
        }
    }
}

impl Executor {
    /// An executor whose lenders work by this clock, and that closes this latch when a task panics.
    pub fn new(clock: Clock, latch: FailureLatch) -> Self {
        Self { inner: Arc::new(Inner { clock, latch, ..Inner::default() }) }
    }

    /// The executor that is polling on this thread.
    pub fn current() -> Option<Executor> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Adds a task.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let work = async move {
            // Nobody may wait for it.
            let _ = sender.send(future.await);
        };
        // The lender's own cooperation budget is not for tasks that are none of its own.
        let work: Work = Box::pin(tokio::task::unconstrained(work));
        let task = Task { work: Mutex::new(Some(work)), queued: AtomicBool::new(true), executor: self.clone() };
        self.schedule(Arc::new(task));
        JoinHandle(receiver)
    }

    fn schedule(&self, task: Arc<Task>) {
        let mut state = self.inner.state.lock();
        state.ready.push_back(task);
        let wake = !state.running && LENDING.get() != self.address();
        drop(state);
        if wake {
            self.inner.work.notify_one();
        }
    }

    /// Does `work` without waking anybody for the tasks that it makes ready. If this answers true the caller owes a
    /// [`lend`](Self::lend), soon and in any case.
    pub fn hold(&self, work: impl FnOnce()) -> bool {
        let held = Held { executor: self, outer: LENDING.replace(self.address()) };
        work();
        drop(held);
        let state = self.inner.state.lock();
        !state.running && !state.ready.is_empty()
    }

    /// Runs ready tasks on this thread, unless another is at it.
    pub fn lend(&self) {
        let mut state = self.inner.state.lock();
        if state.running || state.ready.is_empty() {
            return;
        }
        state.running = true;
        drop(state);
        let until = self.inner.clock.monotonic() + LENT;
        self.poll_ready(|| self.inner.clock.monotonic() >= until);
    }

    /// Polls one task that is ready, for those who drive the executor step by step instead of giving it a thread. Says
    /// whether there was one.
    pub fn step(&self) -> bool {
        let mut state = self.inner.state.lock();
        if state.running || state.ready.is_empty() {
            return false;
        }
        state.running = true;
        drop(state);
        let mut polled = false;
        self.poll_ready(|| std::mem::replace(&mut polled, true));
        true
    }

    /// Timers of the tasks run in `timers`.
    pub fn set_timers(&self, timers: Handle) {
        let _ = self.inner.timers.set(timers);
    }

    /// Does `work` and runs the tasks that it made ready, on this thread unless another is at it.
    pub fn run_with(&self, work: impl FnOnce()) {
        if self.hold(work) {
            self.lend();
        }
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    /// The executor's own thread: polls what nobody lent itself for, until [`stop`](Self::stop). Timers of the tasks
    /// run in `timers`.
    pub fn run(&self, timers: Handle) {
        self.set_timers(timers);
        let mut state = self.inner.state.lock();
        loop {
            if state.stopping && !state.running {
                break;
            }
            if state.running || state.ready.is_empty() {
                self.inner.work.wait(&mut state);
                continue;
            }
            state.running = true;
            drop(state);
            self.poll_ready(|| false);
            state = self.inner.state.lock();
        }
        drop(state);
        self.drop_tasks();
    }

    /// Drops the tasks that are ready and will not be polled any more.
    pub fn drop_tasks(&self) {
        let left = std::mem::take(&mut self.inner.state.lock().ready);
        drop(left);
    }

    /// Ends the executor's own thread; tasks that are not finished are dropped when nothing can wake them.
    pub fn stop(&self) {
        self.inner.state.lock().stopping = true;
        self.inner.work.notify_one();
    }

    /// Polls until nothing is ready or the time is over, which is asked before each poll. The caller has set `running`.
    fn poll_ready(&self, mut is_over: impl FnMut() -> bool) {
        let timers = self.inner.timers.get().filter(|_| Handle::try_current().is_err()).map(Handle::enter);
        let outer = CURRENT.replace(Some(self.clone()));
        loop {
            let mut state = self.inner.state.lock();
            let next = if is_over() { None } else { state.ready.pop_front() };
            let Some(task) = next else {
                state.running = false;
                let rest = !state.ready.is_empty() || state.stopping;
                drop(state);
                if rest {
                    self.inner.work.notify_one();
                }
                break;
            };
            drop(state);
            poll(&task);
        }
        CURRENT.replace(outer);
        drop(timers);
    }
}

fn poll(task: &Arc<Task>) {
    // Before the poll: whoever wakes it from now on has news that this poll may have missed.
    task.queued.store(false, Ordering::Release);
    let waker = Waker::from(Arc::clone(task));
    let mut work = task.work.lock();
    let Some(future) = work.as_mut() else { return };
    let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
    match polled {
        Ok(Poll::Pending) => {}
        Ok(Poll::Ready(())) => *work = None,
        Err(_) => {
            *work = None;
            drop(work);
            let failure = Failure::storage("a task of the write path", io::Error::other("it panicked"));
            task.executor.inner.latch.close(failure);
        }
    }
}

/// Ends holding. If the work panics nobody will lend: the own thread is woken.
struct Held<'a> {
    executor: &'a Executor,
    outer: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        LENDING.set(self.outer);
        if std::thread::panicking() {
            self.executor.inner.work.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn start() -> (Executor, tokio::runtime::Runtime, thread::JoinHandle<()>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let executor = Executor::default();
        let (own, timers) = (executor.clone(), runtime.handle().clone());
        #[expect(clippy::disallowed_methods, reason = "the test is its own supervisor")]
        let own = thread::spawn(move || own.run(timers));
        (executor, runtime, own)
    }

    #[test]
    fn a_lender_runs_what_it_woke_on_its_own_thread() {
        let (executor, _runtime, own) = start();
        let notify = Arc::new(tokio::sync::Notify::new());
        let ran_on = Arc::new(Mutex::new(None));
        let (wait, note) = (Arc::clone(&notify), Arc::clone(&ran_on));
        let (ready, is_ready) = std::sync::mpsc::channel();
        executor.spawn(async move {
            let notified = wait.notified();
            ready.send(()).unwrap();
            notified.await;
            *note.lock() = Some(thread::current().id());
        });
        is_ready.recv().unwrap();
        // The own thread may still be leaving its poll; until then it takes the work itself.
        while executor.inner.state.lock().running {
            thread::yield_now();
        }
        assert!(executor.hold(|| notify.notify_waiters()));
        assert_eq!(*ran_on.lock(), None);
        executor.lend();
        assert_eq!(*ran_on.lock(), Some(thread::current().id()));
        executor.stop();
        own.join().unwrap();
    }

    #[test]
    fn without_a_lender_the_own_thread_works_and_timers_fire() {
        let (executor, runtime, own) = start();
        let slept = executor.spawn(async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            thread::current().id()
        });
        let id = runtime.block_on(slept).unwrap();
        assert_eq!(id, own.thread().id());
        executor.stop();
        own.join().unwrap();
    }

    #[test]
    fn a_panic_ends_its_task_and_closes_the_latch() {
        let (executor, runtime, own) = start();
        let bad = executor.spawn(async { panic!("on purpose") });
        let good = executor.spawn(async { 7 });
        assert!(runtime.block_on(bad).is_err());
        assert_eq!(runtime.block_on(good).unwrap(), 7);
        assert!(executor.inner.latch.is_closed());
        executor.stop();
        own.join().unwrap();
    }

    /// Many lenders and a chain of tasks: each message is handled, whoever polls.
    #[test]
    fn no_wake_is_lost_among_many_lenders() {
        const LENDERS: usize = 4;
        const MESSAGES: usize = 5_000;
        let (executor, runtime, own) = start();
        let (first, mut second) = tokio::sync::mpsc::unbounded_channel::<usize>();
        let (forward, mut last) = tokio::sync::mpsc::unbounded_channel::<usize>();
        executor.spawn(async move {
            while let Some(each) = second.recv().await {
                forward.send(each).unwrap();
            }
        });
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let done = executor.spawn(async move {
            while last.recv().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        thread::scope(|scope| {
            for _ in 0..LENDERS {
                let (executor, first) = (executor.clone(), first.clone());
                scope.spawn(move || {
                    for each in 0..MESSAGES {
                        if executor.hold(|| first.send(each).unwrap()) {
                            executor.lend();
                        }
                    }
                });
            }
        });
        drop(first);
        runtime.block_on(done).unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), LENDERS * MESSAGES);
        executor.stop();
        own.join().unwrap();
    }
}
