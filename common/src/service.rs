//! What a service manager such as systemd hears of a process: that it is ready, that it lives, that it stops. Where no manager
//! asks, because `NOTIFY_SOCKET` and `WATCHDOG_USEC` are not set, nothing happens.
//!
//! Left to others: what "ready" and "lives" mean. A manager that hears no sign of life for its time kills the process and starts it
//! again, so a process must not say that it lives because a timer still runs.

use std::convert::Infallible;

use sd_notify::NotifyState;
use tokio::time::sleep;

/// Says that requests are served from now on, with a line for people.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the process ends in good order.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the process lives, each time after `alive` has returned, twice in the time after which the manager gives it up. Never
/// returns; dropping it ends it.
pub async fn keep_alive(alive: impl AsyncFn()) -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        alive().await;
        tell(&[NotifyState::Watchdog]);
        sleep(patience / 2).await;
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        // The manager's socket is there as long as the manager is; the process serves without it.
        tracing::warn!(%error, "the service manager cannot be told: {what:?}");
    }
}
