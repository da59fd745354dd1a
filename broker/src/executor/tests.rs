//! Lenders, timers, panics and the end of tasks.

use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

fn start() -> (Executor, tokio::runtime::Runtime, thread::JoinHandle<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let executor = Executor::default();
    let (own, handle) = (executor.clone(), runtime.handle().clone());
    #[expect(clippy::disallowed_methods, reason = "the test is its own supervisor")]
    let own = thread::spawn(move || own.run(handle));
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
    let sleep = executor.sleep_until(executor.now() + Duration::from_millis(5));
    let slept = executor.spawn(async {
        sleep.await;
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

/// Timers fire in the order of their times, none before its time, and those that were dropped not at all.
#[test]
fn timers_fire_in_order_by_the_executors_clock() {
    let clock = Clock::manual(0);
    let executor = Executor::new(clock.clone(), FailureLatch::default(), Some(1));
    let fired = Arc::new(Mutex::new(Vec::new()));
    for ms in [30, 10, 20, 10] {
        let (sleep, fired) = (executor.sleep_until(Duration::from_millis(ms)), Arc::clone(&fired));
        executor.spawn(async move {
            sleep.await;
            fired.lock().push(ms);
        });
    }
    let forgotten = executor.spawn(Timeout::new(std::future::ready(7), executor.sleep_until(Duration::from_millis(5))));
    let over = Timeout::new(std::future::pending::<()>(), executor.sleep_until(Duration::from_millis(15)));
    let over = executor.spawn(over);
    while executor.step() {}
    assert_eq!(executor.next_timer(), Some(Duration::from_millis(10)), "the answered time-out is gone");
    clock.advance(Duration::from_millis(9));
    assert!(!executor.step());
    clock.advance(Duration::from_millis(11));
    while executor.step() {}
    assert_eq!(*fired.lock(), [10, 10, 20]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(forgotten).unwrap().unwrap(), 7);
    assert!(runtime.block_on(over).unwrap().is_err());
    assert_eq!(executor.next_timer(), Some(Duration::from_millis(30)));
}

#[test]
fn nothing_of_a_dropped_task_is_left() {
    let executor = Executor::new(Clock::manual(0), FailureLatch::default(), Some(1));
    let held = Arc::new(());
    let (in_timer, in_channel) = (Arc::clone(&held), Arc::clone(&held));
    let (keep, never) = tokio::sync::oneshot::channel::<()>();
    let sleep = executor.sleep_until(Duration::from_secs(1));
    executor.spawn(async move {
        sleep.await;
        drop(in_timer);
    });
    let waits = executor.spawn(async move {
        let _ = never.await;
        drop(in_channel);
    });
    while executor.step() {}
    executor.drop_tasks();
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(executor.next_timer(), None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(waits).is_err());
    drop(keep);
}

#[test]
fn a_seed_draws_the_same_numbers() {
    let numbers = |seed| {
        let executor = Executor::new(Clock::manual(0), FailureLatch::default(), seed);
        [executor.draw(), executor.draw()]
    };
    assert_eq!(numbers(Some(1)), numbers(Some(1)));
    assert_ne!(numbers(Some(1)), numbers(Some(2)));
    assert_ne!(numbers(Some(1))[0], numbers(Some(1))[1]);
    assert_ne!(numbers(None), numbers(None));
}

#[test]
fn a_task_of_an_executor_that_has_ended_is_dropped_with_all_that_it_holds() {
    let (executor, runtime, own) = start();
    executor.stop();
    own.join().unwrap();
    let held = Arc::new(());
    let kept = Arc::clone(&held);
    let task = executor.spawn(async move { drop(kept) });
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(runtime.block_on(task).is_err());
}
