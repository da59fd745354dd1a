//! The broker's own time: what is due is measured with it, and what is stored is stamped with it.
//!
//! It starts as the wall clock and then runs with the monotonic one. When the wall clock is elsewhere, because somebody
//! set it, steady time runs a tenth faster or slower until they meet again: it never goes back and never jumps, so a wall
//! clock that is set an hour ahead makes nothing due early, and one that is set back stops nothing.

use std::time::Duration;

use escrowmq_common::clock::Clock;
use parking_lot::Mutex;

use crate::terms::Stamp;

/// The tenth by which steady time may run faster or slower.
const SLEW: u64 = 10;
/// A wall clock that is further away than this is worth a warning, in milliseconds.
const ALARM_MS: u64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct SteadyClock {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Monotonic time of the last look.
    seen: Duration,
    /// Steady time then, in microseconds since 1970.
    now_us: u64,
    alarmed: bool,
}

impl SteadyClock {
    /// Starts at the wall clock's time, or at `not_before` if that is later: stored times never go back, whatever the clock did
    /// while the broker was down.
    pub(crate) fn start(clock: Clock, not_before: Stamp) -> Self {
        let start = wall_ms(&clock).max(not_before.get());
        let state = State { seen: clock.monotonic(), now_us: start.saturating_mul(1000), alarmed: false };
        Self { clock, state: Mutex::new(state) }
    }

    /// The time now, never less than an earlier answer.
    pub(crate) fn now(&self) -> Stamp {
        let wall = wall_ms(&self.clock);
        let mut state = self.state.lock();
        let monotonic = self.clock.monotonic();
        let elapsed = u64::try_from(monotonic.saturating_sub(state.seen).as_micros()).unwrap_or_default();
        // Looks that follow each other closely would lose the tenth to rounding; they see the same time.
        if elapsed < SLEW {
            return Stamp(state.now_us / 1000);
        }
        state.seen = monotonic;
        let straight = state.now_us + elapsed;
        let wall_us = wall.saturating_mul(1000);
        let most = elapsed / SLEW;
        state.now_us = if wall_us > straight {
            straight + most.min(wall_us - straight)
        } else {
            straight - most.min(straight - wall_us)
        };
        let now = state.now_us / 1000;
        let away = now.abs_diff(wall);
        if away > ALARM_MS && !state.alarmed {
            tracing::warn!(
                away_ms = away,
                "the wall clock was set; broker time approaches it by a tenth of the time that passes"
            );
        }
        state.alarmed = away > ALARM_MS;
        Stamp(now)
    }

    /// How long until a time comes, at the fastest.
    pub(crate) fn until(&self, due: Stamp) -> Duration {
        let wait = due.since(self.now());
        // Steady time may run a tenth faster than the timer that waits.
        Duration::from_millis(wait - wait / (SLEW + 1))
    }
}

fn wall_ms(clock: &Clock) -> u64 {
    u64::try_from(clock.wall_ms()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_clock_while_nobody_sets_it() {
        let clock = Clock::manual(1_000_000);
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        clock.advance(Duration::from_secs(5));
        assert_eq!(steady.now(), Stamp(1_005_000));
    }

    #[test]
    fn a_jump_ahead_makes_nothing_due_early() {
        let clock = Clock::manual(1_000_000);
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        clock.jump_wall(1_000_000 + 3_600_000);
        clock.advance(Duration::from_secs(10));
        assert_eq!(steady.now(), Stamp(1_011_000), "ten seconds and a tenth");
    }

    #[test]
    fn a_jump_back_stops_nothing() {
        let clock = Clock::manual(10_000_000);
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        clock.jump_wall(1_000_000);
        clock.advance(Duration::from_secs(10));
        assert_eq!(steady.now(), Stamp(10_009_000), "ten seconds less a tenth");
    }

    #[test]
    fn never_starts_before_what_is_stored() {
        let clock = Clock::manual(1_000);
        assert_eq!(SteadyClock::start(clock, Stamp(9_000)).now(), Stamp(9_000));
    }

    #[test]
    fn meets_the_wall_clock_again() {
        let clock = Clock::manual(1_000_000);
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        clock.jump_wall(1_001_000);
        for _ in 0..100 {
            clock.advance(Duration::from_secs(1));
            steady.now();
        }
        assert_eq!(steady.now(), Stamp(u64::try_from(clock.wall_ms()).expect("after 1970")));
    }
}
