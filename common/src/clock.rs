//! The only place that reads time.
//!
//! Decisions take time as an argument; the runners beside them hold a [`Clock`]. A test gives its runner a manual one
//! and moves it. A test of a whole broker, whose connections need the machine's time, gives it one that [skips](Clock::skipping).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock, as the protocol's timestamps count them. May jump.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Nanoseconds since 1970 by the wall clock, for those who are told of a moment more exactly. May jump.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
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
    source: Source,
}

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Machine,
    Manual(Arc<ManualTime>),
    /// The machine's, and the milliseconds that were skipped.
    Skipping(Arc<AtomicU64>),
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
        Clock { source: Source::Manual(Arc::new(time)) }
    }

    /// The machine's clock, and beside it a count of [skipped](Clock::skipped) time that [`advance`](Clock::advance) adds to.
    pub fn skipping() -> Clock {
        Clock { source: Source::Skipping(Arc::default()) }
    }

    /// Milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        match &self.source {
            Source::Manual(time) => time.wall_ms.load(Ordering::Acquire) as i64,
            Source::Machine | Source::Skipping(_) => wall_ms(),
        }
    }

    /// Time that never goes back, from an arbitrary start.
    pub fn monotonic(&self) -> Duration {
        match &self.source {
            Source::Manual(time) => Duration::from_millis(time.monotonic_ms.load(Ordering::Acquire)),
            Source::Machine | Source::Skipping(_) => monotonic(),
        }
    }

    /// Time that a test has skipped: zero but for a clock that is [skipping](Clock::skipping), and not a part of
    /// [`wall_ms`](Clock::wall_ms) and [`monotonic`](Clock::monotonic). Who decides what is due adds it to both; who looks whether
    /// a peer still lives does not.
    pub fn skipped(&self) -> Duration {
        match &self.source {
            Source::Skipping(ms) => Duration::from_millis(ms.load(Ordering::Acquire)),
            Source::Machine | Source::Manual(_) => Duration::ZERO,
        }
    }

    /// Moves a manual clock on, or adds to the time that another one has skipped; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        let ms = by.as_millis() as u64;
        match &self.source {
            Source::Machine => {}
            Source::Manual(time) => {
                time.wall_ms.fetch_add(ms, Ordering::AcqRel);
                time.monotonic_ms.fetch_add(ms, Ordering::AcqRel);
            }
            Source::Skipping(skipped) => {
                skipped.fetch_add(ms, Ordering::AcqRel);
            }
        }
    }

    /// Lets the wall of a manual clock jump, forwards or back, without any time passing.
    pub fn jump_wall(&self, to_ms: i64) {
        if let Source::Manual(time) = &self.source {
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

    #[test]
    fn a_skip_is_told_and_moves_neither_reading() {
        let (clock, before) = (Clock::skipping(), monotonic());
        let other = clock.clone();
        clock.advance(Duration::from_secs(300));
        assert_eq!(other.skipped(), Duration::from_secs(300));
        assert!(other.monotonic().saturating_sub(before) < Duration::from_secs(299));
        assert!(other.wall_ms() - wall_ms() < 299_000);
        assert_eq!((Clock::system().skipped(), Clock::skipping().skipped()), (Duration::ZERO, Duration::ZERO));
    }
}
