//! Runs the tasks that make up a shard's write path, on whichever thread is best placed to.
//!
//! Waking another thread costs more than a small batch's whole way through Raft, log and apply. So the tasks of the
//! write path (proposing, Raft's core, apply) have an executor of their own, which *any* thread can lend itself to: the
//! connection task that has just submitted commands runs them at once, [`Executor::lend`], and nobody is woken. When
//! nobody lends itself, a thread of the executor's own does the work: timers and flushes that end go that way, so the
//! load of connections cannot delay them, nor can a lender be kept for long.
//!
//! Timers are the executor's own too: they run by its clock, and the load of connections cannot delay them.
//!
//! Promises: at most one thread polls at a time; a task that was woken is polled; a lender gets its thread back after
//! half a millisecond, or one poll later; a timer fires on the executor's own thread when it is due; a task that panics
//! closes the failure latch; after [`Executor::drop_tasks`] nothing of a task is left. Leaves to others: what the tasks do. A
//! task must not block.

mod blocking;
mod timer;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use escrowmq_common::clock::{self, Clock};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) use blocking::Blocking;
pub(crate) use timer::{Elapsed, Sleep, Timeout};

use timer::Timers;

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
    /// Measures how long a lender works, and when timers are due.
    clock: Clock,
    /// Closed when a task panics.
    latch: FailureLatch,
    state: Mutex<State>,
    /// The own thread waits here.
    work: Condvar,
    /// For what is answered here and goes on elsewhere: the runtime that it spawns on.
    runtime: OnceLock<Handle>,
    /// Random numbers of the tasks follow from it; none are foreseeable without it.
    seed: Option<u64>,
    /// Random numbers given away.
    drawn: AtomicU64,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Arc<Task>>,
    /// Tasks that are not finished, and some that are.
    tasks: Vec<Weak<Task>>,
    timers: Timers,
    /// A thread is polling.
    running: bool,
    stopping: bool,
    /// No task is kept any more.
    ended: bool,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    work: Mutex<Option<Work>>,
    /// In `ready`, so that it is there once.
    queued: AtomicBool,
    executor: Executor,
}

impl Task {
    fn drop_work(&self) {
        let work = self.work.lock().take();
        // It may wake this task: the lock is free.
        drop(work);
    }
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
    /// An executor whose lenders and timers go by this clock, and that closes this latch when a task panics. With a seed its
    /// tasks draw the same random numbers each time.
    pub fn new(clock: Clock, latch: FailureLatch, seed: Option<u64>) -> Self {
        Self { inner: Arc::new(Inner { clock, latch, seed, ..Inner::default() }) }
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
        let task = Arc::new(task);
        {
            let tasks = &mut self.inner.state.lock().tasks;
            // Finished ones are forgotten before the list would grow for them.
            if tasks.len() == tasks.capacity() {
                tasks.retain(|task| task.strong_count() > 0);
            }
            tasks.push(Arc::downgrade(&task));
        }
        self.schedule(task);
        JoinHandle(receiver)
    }

    /// The time by this executor's clock: monotonic, from an arbitrary start.
    pub fn now(&self) -> Duration {
        self.inner.clock.monotonic()
    }

    /// The time of the executor that polls on this thread; elsewhere the machine's.
    pub fn time() -> Duration {
        CURRENT.with_borrow(|current| current.as_ref().map_or_else(clock::monotonic, Executor::now))
    }

    /// Completes at `due`.
    pub(crate) fn sleep_until(&self, due: Duration) -> Sleep {
        Sleep::new(self.clone(), due)
    }

    /// Completes after this time.
    pub(crate) fn sleep(&self, time: Duration) -> Sleep {
        self.sleep_until(self.now().saturating_add(time))
    }

    /// A number that nobody can foresee who does not know the seed.
    pub fn draw(&self) -> u64 {
        let nth = self.inner.drawn.fetch_add(1, Ordering::Relaxed);
        match self.inner.seed {
            Some(seed) => BuildHasherDefault::<DefaultHasher>::default().hash_one((seed, nth)),
            None => RandomState::new().hash_one(nth),
        }
    }

    /// When the next timer is due, for those who drive the executor step by step.
    pub fn next_timer(&self) -> Option<Duration> {
        self.inner.state.lock().timers.earliest()
    }

    /// Wakes those whose time has come.
    fn fire(&self) {
        let now = self.now();
        let due = self.inner.state.lock().timers.take_due(now);
        due.into_iter().for_each(Waker::wake);
    }

    fn schedule(&self, task: Arc<Task>) {
        let mut state = self.inner.state.lock();
        if state.ended {
            drop(state);
            // Nobody would poll it, and it would keep what it holds for ever.
            task.drop_work();
            return;
        }
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
        self.poll_ready(|_| self.inner.clock.monotonic() >= until);
    }

    /// Polls one task that is ready or whose time has come, for those who drive the executor step by step instead of giving it
    /// a thread. Says whether there was one.
    pub fn step(&self) -> bool {
        self.fire();
        let mut state = self.inner.state.lock();
        if state.running || state.ready.is_empty() {
            return false;
        }
        state.running = true;
        drop(state);
        let mut polled = false;
        self.poll_ready(|_| std::mem::replace(&mut polled, true));
        true
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

    /// The executor's own thread: fires timers, and polls what nobody lent itself for, until [`stop`](Self::stop). What tasks
    /// answer may spawn on `runtime`.
    pub fn run(&self, runtime: Handle) {
        let _ = self.inner.runtime.set(runtime);
        loop {
            self.fire();
            let mut state = self.inner.state.lock();
            if state.stopping && !state.running {
                break;
            }
            if !state.running && !state.ready.is_empty() {
                state.running = true;
                drop(state);
                self.poll_ready(|state| state.timers.earliest().is_some_and(|due| due <= self.now()));
                continue;
            }
            match state.timers.earliest() {
                Some(due) => {
                    let rest = due.saturating_sub(self.now());
                    self.inner.work.wait_for(&mut state, rest);
                }
                None => self.inner.work.wait(&mut state),
            }
        }
        self.drop_tasks();
    }

    /// Drops all tasks, also those that wait for something, and each one that is spawned later. None of them is polled any more.
    /// Not from within a task.
    pub fn drop_tasks(&self) {
        let (ready, tasks) = {
            let mut state = self.inner.state.lock();
            state.ended = true;
            (std::mem::take(&mut state.ready), std::mem::take(&mut state.tasks))
        };
        drop(ready);
        // A task may wake others when it is dropped, so the lock is free.
        tasks.iter().filter_map(Weak::upgrade).for_each(|task| task.drop_work());
        let woken = std::mem::take(&mut self.inner.state.lock().ready);
        drop(woken);
    }

    /// Ends the executor's own thread, which drops the tasks that are not finished.
    pub fn stop(&self) {
        self.inner.state.lock().stopping = true;
        self.inner.work.notify_one();
    }

    /// Polls until nothing is ready or the time is over, which is asked before each poll. The caller has set `running`.
    fn poll_ready(&self, mut is_over: impl FnMut(&State) -> bool) {
        // A lender may be a thread that knows no runtime.
        let entered = self.inner.runtime.get().filter(|_| Handle::try_current().is_err()).map(Handle::enter);
        let outer = CURRENT.replace(Some(self.clone()));
        loop {
            let mut state = self.inner.state.lock();
            let next = if is_over(&state) { None } else { state.ready.pop_front() };
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
        drop(entered);
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
