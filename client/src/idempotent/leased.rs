//! Running a handler under a lease of its message.
//!
//! ```text
//!  lease the key -> handler, while the lease is renewed -> done -> the offset moves on
//!    |      |            |              |
//!    | done | busy       | error        | the lease ends
//!    v      v            v              v
//!  nothing  the message  give up:       stop the handler:
//!           comes again  it comes again it comes again
//! ```

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use escrowmq_common::message::unique_id;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::error::unfinished;
use super::{Begun, MarkStore, OnceError, StoreError};
use crate::consumer::Verdict;

/// Between two tries of a store that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// A lease, as this process may count on it.
struct Lease<'a, S> {
    store: &'a S,
    key: &'a str,
    token: String,
    time: Duration,
    /// Its end. Counted from before the store was asked, so that it ends here before it ends there.
    until: Instant,
}

impl<S: MarkStore> Lease<'_, S> {
    /// Renews the lease until it is lost.
    async fn lost(&mut self) {
        loop {
            // Two tries may fail before the lease ends.
            sleep_until(self.until - self.time * 2 / 3).await;
            loop {
                let asked = Instant::now();
                if asked >= self.until {
                    return;
                }
                match timeout_at(self.until, self.store.begin(self.key, &self.token, self.time)).await {
                    Ok(Ok(Begun::Leased)) => {
                        self.until = asked + self.time;
                        break;
                    }
                    Ok(Ok(_)) | Err(_) => return,
                    Ok(Err(error)) => {
                        tracing::debug!(key = self.key, error, "a lease is not renewed; it is tried again");
                        sleep(PAUSE.min(self.time / 10)).await;
                    }
                }
            }
        }
    }

    /// Marks the effect as done. Goes on trying as long as nobody else may begin: without the mark the effect happens again.
    async fn done(&self, keep: Duration) -> Result<bool, StoreError> {
        loop {
            match self.store.done(self.key, &self.token, keep).await {
                Err(error) if Instant::now() + PAUSE < self.until => {
                    tracing::debug!(key = self.key, error, "a mark is not written; it is tried again");
                    sleep(PAUSE).await;
                }
                ended => return ended,
            }
        }
    }
}

/// Runs `work` unless it is done, or somebody else does it.
pub(super) async fn once<S, R, V, E>(
    store: &S,
    key: &str,
    time: Duration,
    keep: Duration,
    work: impl FnOnce() -> R,
) -> Result<Verdict, OnceError<E>>
where
    S: MarkStore,
    R: Future<Output = Result<V, E>>,
    V: Into<Verdict>,
    E: Display + 'static,
{
    let mut lease = Lease { store, key, token: unique_id().to_string(), time, until: Instant::now() + time };
    match store.begin(key, &lease.token, time).await {
        Ok(Begun::Leased) => {}
        Ok(Begun::Done) => return Ok(Verdict::Done),
        Ok(Begun::Busy { left }) => return Err(OnceError::Busy { left }),
        Err(error) => return Err(OnceError::Store { error }),
    }
    if Instant::now() >= lease.until {
        return Err(OnceError::LeaseLost);
    }
    let said = {
        let lost = pin!(lease.lost());
        let work = pin!(work());
        tokio::select! {
            biased;
            () = lost => return Err(OnceError::LeaseLost),
            said = work => said,
        }
    };
    if let Some(unfinished) = unfinished(said) {
        if let Err(error) = store.give_up(key, &lease.token).await {
            tracing::debug!(key, error, "a lease is not given up: it ends by itself");
        }
        return unfinished;
    }
    match lease.done(keep).await {
        Ok(true) => Ok(Verdict::Done),
        Ok(false) => {
            tracing::warn!(
                key,
                "the lease of a message ended before its mark was written: its effect may be there twice"
            );
            Ok(Verdict::Done)
        }
        Err(error) => Err(OnceError::NotMarked { error }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::idempotent::MemoryStore;
    use crate::payload::PayloadError;

    const LEASE: Duration = Duration::from_secs(30);
    const KEEP: Duration = Duration::from_secs(600);

    async fn run(
        store: &impl MarkStore,
        ends: Result<(), &'static str>,
        calls: &AtomicU32,
    ) -> Result<Verdict, OnceError<&'static str>> {
        once(store, "k", LEASE, KEEP, async || {
            calls.fetch_add(1, Ordering::Relaxed);
            ends
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn what_succeeds_is_done_once_and_what_fails_is_free_at_once() {
        let (store, calls) = (MemoryStore::new(), AtomicU32::new(0));
        assert!(matches!(run(&store, Err("no"), &calls).await, Err(OnceError::Handler("no"))));
        let verdict = once(&store, "k", LEASE, KEEP, async || Ok::<_, &str>(Verdict::never("no such order"))).await;
        assert_eq!(verdict.expect("its own word"), Verdict::never("no such order"));
        let torn = once(&store, "k", LEASE, KEEP, async || Err::<(), _>(PayloadError::new("torn"))).await;
        assert!(matches!(torn, Ok(Verdict::Unreadable { .. })), "{torn:?}");
        for _ in 0..3 {
            assert_eq!(run(&store, Ok(()), &calls).await.expect("done"), Verdict::Done);
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        tokio::time::advance(KEEP).await;
        run(&store, Ok(()), &calls).await.expect("done");
        assert_eq!(calls.load(Ordering::Relaxed), 3, "a message that comes later than its mark lives is new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_handler_keeps_its_lease_and_one_that_was_dropped_leaves_it_to_its_end() {
        let (store, calls, end) = (MemoryStore::new(), AtomicU32::new(0), Notify::new());
        let long = once(&store, "k", LEASE, KEEP, async || {
            end.notified().await;
            Ok::<(), &str>(())
        });
        let others = async {
            for _ in 0..10 {
                tokio::time::sleep(LEASE / 2).await;
                let said = run(&store, Ok(()), &calls).await;
                assert!(matches!(said, Err(OnceError::Busy { left }) if left >= LEASE / 2), "{said:?}");
            }
            end.notify_one();
        };
        let (done, ()) = tokio::join!(long, others);
        done.expect("done");
        run(&store, Ok(()), &calls).await.expect("done");
        assert_eq!(calls.load(Ordering::Relaxed), 0);

        let dropped = once(&store, "l", LEASE, KEEP, std::future::pending::<Result<(), &str>>);
        tokio::time::timeout(Duration::from_secs(1), dropped).await.expect_err("it never ends");
        assert!(matches!(store.begin("l", "t", LEASE).await, Ok(Begun::Busy { .. })));
        tokio::time::advance(LEASE).await;
        assert!(matches!(store.begin("l", "t", LEASE).await, Ok(Begun::Leased)));
    }

    /// A store that can be away.
    #[derive(Clone)]
    struct Away {
        store: MemoryStore,
        is_away: Arc<AtomicBool>,
    }

    impl Away {
        fn answer(&self) -> Result<(), StoreError> {
            if self.is_away.load(Ordering::Relaxed) { Err("away".into()) } else { Ok(()) }
        }
    }

    impl MarkStore for Away {
        async fn begin(&self, key: &str, token: &str, lease: Duration) -> Result<Begun, StoreError> {
            self.answer()?;
            self.store.begin(key, token, lease).await
        }

        async fn done(&self, key: &str, token: &str, keep: Duration) -> Result<bool, StoreError> {
            self.answer()?;
            self.store.done(key, token, keep).await
        }

        async fn give_up(&self, key: &str, token: &str) -> Result<(), StoreError> {
            self.answer()?;
            self.store.give_up(key, token).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_an_error_and_ends_a_handler_before_somebody_else_begins() {
        let store = Away { store: MemoryStore::new(), is_away: Arc::new(AtomicBool::new(true)) };
        let (calls, away) = (AtomicU32::new(0), Arc::clone(&store.is_away));
        assert!(matches!(run(&store, Ok(()), &calls).await, Err(OnceError::Store { .. })));
        assert_eq!(calls.load(Ordering::Relaxed), 0, "not called");

        // Away while the handler runs: it is stopped no later than somebody else may begin.
        away.store(false, Ordering::Relaxed);
        let began = Instant::now();
        let said = once(&store, "k", LEASE, KEEP, || {
            away.store(true, Ordering::Relaxed);
            std::future::pending::<Result<(), &str>>()
        });
        assert!(matches!(said.await, Err(OnceError::LeaseLost)));
        assert!(began.elapsed() <= LEASE, "{:?}", began.elapsed());
        away.store(false, Ordering::Relaxed);
        tokio::time::advance(LEASE).await;

        // Back before the lease ends: nothing is lost.
        let back = async {
            tokio::time::sleep(LEASE / 2).await;
            away.store(false, Ordering::Relaxed);
        };
        let handler = once(&store, "k", LEASE, KEEP, async || {
            calls.fetch_add(1, Ordering::Relaxed);
            away.store(true, Ordering::Relaxed);
            Ok::<(), &str>(())
        });
        let (done, ()) = tokio::join!(handler, back);
        done.expect("done");
        run(&store, Ok(()), &calls).await.expect("done");
        assert_eq!(calls.load(Ordering::Relaxed), 1);

        // Away for longer: that is said, and the effect happens again.
        let said = once(&store, "l", LEASE, KEEP, async || {
            away.store(true, Ordering::Relaxed);
            Ok::<(), &str>(())
        });
        assert!(matches!(said.await, Err(OnceError::NotMarked { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_whose_lease_somebody_else_has_is_stopped() {
        let store = MemoryStore::new();
        let stolen = once(&store, "k", LEASE, KEEP, async || {
            store.done("k", "other", KEEP).await.expect("marked");
            std::future::pending::<Result<(), &str>>().await
        });
        assert!(matches!(stolen.await, Err(OnceError::LeaseLost)));
        let calls = AtomicU32::new(0);
        run(&store, Ok(()), &calls).await.expect("done");
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }
}
