//! Where openraft's tasks run: on the shard's executor, with its timers and random numbers. Channels are tokio's.

use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::executor::{Elapsed, Executor, JoinHandle, Sleep, TaskPanicked, Timeout};

/// The runtime of our Raft groups. Its tasks are spawned from within tasks of a shard's executor, and join them there.
#[derive(Debug)]
pub(crate) struct ShardRuntime(TokioRuntime);

/// A moment by the clock of the executor that polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// The time since the arbitrary start of that clock.
    pub(crate) fn get(self) -> Duration {
        self.0
    }
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        Self(Executor::time())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0.saturating_add(more))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, more: Duration) {
        *self = *self + more;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, less: Duration) -> Self {
        Self(self.0.saturating_sub(less))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, less: Duration) {
        *self = *self - less;
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Shorter times are over at once.
const WORTH_A_TIMER: Duration = Duration::from_micros(10);

fn executor() -> Executor {
    Executor::current().expect("raft is used from tasks of a shard's executor")
}

impl AsyncRuntime for ShardRuntime {
    type JoinError = TaskPanicked;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<Pin<Box<T>>>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    // Tokio's wakes those who wait in a random order.
    #[cfg(test)]
    type Watch = openraft_rt_sim::SimWatch;
    #[cfg(not(test))]
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        executor().spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        let executor = executor();
        executor.sleep_until(executor.now().saturating_add(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let executor = executor();
        // Openraft takes a microsecond to gather flushes that end together. Setting a timer costs more.
        let due = if deadline.get() <= executor.now() + WORTH_A_TIMER { Duration::ZERO } else { deadline.get() };
        executor.sleep_until(due)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Timeout::new(Box::pin(future), Self::sleep(duration))
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Timeout::new(Box::pin(future), Self::sleep_until(deadline))
    }

    fn is_panic(_error: &Self::JoinError) -> bool {
        true
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SmallRng::seed_from_u64(executor().draw())
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}
