//! The only place that reads time.
//!
//! Decisions take time as an argument; the runners beside them hold a [`Clock`]. A test gives its runner a manual one
//! and moves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock, as the protocol's timestamps count them. May jump.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Time since this process first asked for it. Never goes back, knows nothing of the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Where a runner gets its time from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// `None` is the machine's clock.
    manual: Option<Arc<ManualTime>>,
}

#[derive(Debug, Default)]
struct ManualTime {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock::default()
    }

    /// A clock that stands still at `wall_ms` until [`advance`](Clock::advance) moves it.
    pub fn manual(wall_ms: i64) -> Clock {
        let time = ManualTime::default();
        time.wall_ms.store(wall_ms as u64, Ordering::Relaxed);
        Clock { manual: Some(Arc::new(time)) }
    }

    /// Milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.manual.as_ref().map_or_else(wall_ms, |time| time.wall_ms.load(Ordering::Acquire) as i64)
    }

    /// Time that never goes back, from an arbitrary start.
    pub fn monotonic(&self) -> Duration {
        let manual = |time: &Arc<ManualTime>| Duration::from_millis(time.monotonic_ms.load(Ordering::Acquire));
        self.manual.as_ref().map_or_else(monotonic, manual)
    }

    /// Moves a manual clock on; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.manual {
            let ms = by.as_millis() as u64;
            time.wall_ms.fetch_add(ms, Ordering::AcqRel);
            time.monotonic_ms.fetch_add(ms, Ordering::AcqRel);
        }
    }

    /// Lets the wall of a manual clock jump, forwards or back, without any time passing.
    pub fn jump_wall(&self, to_ms: i64) {
        if let Some(time) = &self.manual {
            time.wall_ms.store(to_ms as u64, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(1_000);
        let other = clock.clone();
        clock.advance(Duration::from_millis(250));
        assert_eq!(other.wall_ms(), 1_250);
        assert_eq!(other.monotonic(), Duration::from_millis(250));
        clock.jump_wall(10);
        assert_eq!(other.wall_ms(), 10);
        assert_eq!(other.monotonic(), Duration::from_millis(250));
    }

    #[test]
    fn the_system_clock_runs() {
        let clock = Clock::system();
        assert!(clock.wall_ms() > 1_600_000_000_000);
        assert!(clock.monotonic() <= clock.monotonic());
    }
}
