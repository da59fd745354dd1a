//! Waiting for conditions.

use std::time::Duration;

use escrowmq_common::clock;

/// How long most things may take on a busy machine whose disk stands still for a while. A test that waits so long fails.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until there is something, up to [`DEADLINE`].
///
/// # Panics
///
/// When the deadline has passed; `what` says what was missing.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, look).await
}

/// Looks until there is something, up to `deadline`.
///
/// # Panics
///
/// When the deadline has passed.
pub async fn until_within<T>(deadline: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = clock::monotonic();
    loop {
        // A look that hangs must not hang the test.
        match tokio::time::timeout(deadline.saturating_sub(since(started)), look()).await {
            Ok(Some(found)) => return found,
            Ok(None) => tokio::time::sleep(LOOK_AGAIN).await,
            Err(_) => {}
        }
        assert!(since(started) < deadline, "{what}: not within {deadline:?}");
    }
}

/// Time since a moment of the monotonic clock.
pub fn since(moment: Duration) -> Duration {
    clock::monotonic().saturating_sub(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let found = until("third look", async || {
            looks += 1;
            (looks == 3).then_some("there")
        });
        assert_eq!(found.await, "there");
    }

    #[tokio::test]
    #[should_panic(expected = "never: not within")]
    async fn a_condition_that_never_comes_true_fails() {
        until_within(Duration::from_millis(30), "never", async || None::<()>).await;
    }

    #[tokio::test]
    #[should_panic(expected = "stuck: not within")]
    async fn a_look_that_hangs_fails() {
        until_within(Duration::from_millis(30), "stuck", async || std::future::pending::<Option<()>>().await).await;
    }
}
