//! Timers of an executor's tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Executor;

/// When a timer is due, and a number that tells apart those of the same time.
type Key = (Duration, u64);

/// The timers that are set, by time.
#[derive(Default)]
pub(super) struct Timers {
    set: BTreeMap<Key, Waker>,
    numbered: u64,
}

impl Timers {
    /// When the next one is due.
    pub(super) fn earliest(&self) -> Option<Duration> {
        self.set.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes those that are due, in their order.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Waker> {
        if self.earliest().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let later = self.set.split_off(&(now + Duration::from_nanos(1), 0));
        std::mem::replace(&mut self.set, later).into_values().collect()
    }

    fn set(&mut self, due: Duration, waker: Waker) -> Key {
        let key = (due, self.numbered);
        self.numbered += 1;
        self.set.insert(key, waker);
        key
    }
}

/// Completes at a time of its executor's clock.
pub(crate) struct Sleep {
    executor: Executor,
    due: Duration,
    key: Option<Key>,
}

impl Sleep {
    pub(super) fn new(executor: Executor, due: Duration) -> Self {
        Self { executor, due, key: None }
    }

    fn clear(&mut self) {
        if let Some(key) = self.key.take() {
            let waker = self.executor.inner.state.lock().timers.set.remove(&key);
            // Without the lock: it may be the last handle of a task, which may hold timers itself.
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.due {
            self.clear();
            return Poll::Ready(());
        }
        let executor = self.executor.clone();
        let mut state = executor.inner.state.lock();
        if let Some(known) = self.key.and_then(|key| state.timers.set.get_mut(&key)) {
            known.clone_from(context.waker());
            return Poll::Pending;
        }
        let was_earliest = state.timers.earliest();
        self.key = Some(state.timers.set(self.due, context.waker().clone()));
        drop(state);
        // The executor's own thread waits for the timer that was the earliest.
        if was_earliest.is_none_or(|earliest| self.due < earliest) {
            executor.inner.work.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The time was over first.
#[derive(Debug, thiserror::Error)]
#[error("the time is over")]
pub(crate) struct Elapsed;

/// Waits for a future, but not longer than until a time.
pub(crate) struct Timeout<F> {
    future: F,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    /// Gives `future` up when `sleep` completes.
    pub(crate) fn new(future: F, sleep: Sleep) -> Self {
        Self { future, sleep }
    }
}

impl<F: Future + Unpin> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = Pin::new(&mut self.future).poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}
