//! The broker's own time: what is due is measured with it, and what is stored is stamped with it.
//!
//! It starts as the wall clock and then runs with the monotonic one. When the wall clock is elsewhere, because somebody
//! set it, steady time runs a tenth faster or slower until they meet again: it never goes back and never jumps, so a wall
//! clock that is set an hour ahead makes nothing due early, and one that is set back stops nothing.

use std::time::Duration;

use escrowmq_common::clock::Clock;
use parking_lot::Mutex;

use crate::planted::{Bug, planted};
use crate::terms::Stamp;

/// The tenth by which steady time may run faster or slower.
const SLEW: u64 = 10;
/// A wall clock that is further away than this is worth a warning, in milliseconds. A new leader's counts no further
/// than this.
const ALARM_MS: u64 = 60_000;

/// Time leapt when a member began to lead: no more than the rest of [`ALARM_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leap {
    /// The group's newest stamp before it.
    pub last: Stamp,
    /// The earliest stamp that this member gives.
    pub start: Stamp,
    /// The part of the time between them that is not known to have passed, in milliseconds.
    pub by: u64,
}

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
    /// The newest stamp that was applied here, and the monotonic time when it was first heard of.
    heard: (Stamp, Duration),
    /// The stamp after which this member began to lead a group, and the monotonic time then.
    led: Option<(Stamp, Duration)>,
    /// How time leapt then.
    leapt: Option<Leap>,
    /// Whether the wall clock is away further than [`ALARM_MS`].
    alarmed: bool,
    /// Whether a new leader's wall clock was ahead of what counts, and steady time has not met it since.
    held_back: bool,
}

impl SteadyClock {
    /// Starts at the wall clock's time, or at `not_before` if that is later: stored times never go back, whatever the clock did
    /// while the broker was down.
    pub(crate) fn start(clock: Clock, not_before: Stamp) -> Self {
        let Reading { wall_ms, monotonic: seen } = Reading::of(&clock);
        let start = wall_ms.max(not_before.get());
        let state = State {
            seen,
            now_us: start.saturating_mul(1000),
            heard: (not_before, seen),
            led: None,
            leapt: None,
            alarmed: false,
            held_back: false,
        };
        Self { clock, state: Mutex::new(state) }
    }

    /// A stamp of the group was applied here. While nothing new comes, the time that passes counts for a later
    /// [`lead`](Self::lead): a group that is idle for an hour is an hour older, whatever wall clocks say.
    pub(crate) fn hear(&self, stamp: Stamp) {
        let mut state = self.state.lock();
        if stamp > state.heard.0 {
            state.heard = (stamp, Reading::of(&self.clock).monotonic);
        }
    }

    /// This member becomes the leader of a group of several, and has applied everything up to this stamp. From now on
    /// time is the wall clock's, but not before that stamp, and at most a minute later than it plus the time that has
    /// passed since it was [heard](Self::hear). [`is_alarmed`](Self::is_alarmed) says whether the wall clock is
    /// elsewhere.
    ///
    /// It comes before the leader stamps anything. No stored stamp goes back by it, as all of them are up to
    /// `last_applied`; what this clock answered before, while another member led, was this member's own opinion and may
    /// have been later. A group that has applied nothing has no time yet, and takes the wall clock's.
    pub(crate) fn lead(&self, last_applied: Stamp) {
        let mut state = self.state.lock();
        let Reading { wall_ms: wall, monotonic } = Reading::of(&self.clock);
        let (heard, at) = state.heard;
        let idle = if heard == last_applied { monotonic.saturating_sub(at) } else { Duration::ZERO };
        let most = match last_applied {
            _ if planted(Bug::ClockTaken) => wall,
            Stamp::ZERO => wall,
            last => last.saturating_add(idle.as_millis() as u64).saturating_add(ALARM_MS).get(),
        };
        let start = wall.min(most).max(last_applied.get());
        state.seen = monotonic;
        state.now_us = start.saturating_mul(1000);
        state.led = Some((last_applied, monotonic));
        let by = start.saturating_sub(last_applied.get()).saturating_sub(idle.as_millis() as u64);
        let is_leap = by > 0 && last_applied != Stamp::ZERO && !planted(Bug::LeasesLeap);
        state.leapt = is_leap.then_some(Leap { last: last_applied, start: Stamp(start), by });
        state.held_back = wall > most;
        state.alarmed = start.abs_diff(wall) > ALARM_MS;
        if state.is_alarmed() {
            tracing::warn!(
                event = "clock_off",
                away_ms = start.abs_diff(wall),
                is_ahead = wall > start,
                "this member leads now, and its wall clock is not the group's: set it right (NTP). The group's time goes on, and \
                 approaches this clock by a tenth of the time that passes"
            );
        }
    }

    /// The newest stamp before this member began to lead, if that is less than `life` ago. Time may have leapt then: what is given
    /// for a `life`, and had not ended at that stamp, counts as given anew when this member began.
    pub(crate) fn renewed(&self, life: Duration) -> Option<Stamp> {
        let (last, at) = self.state.lock().led?;
        (Reading::of(&self.clock).monotonic < at + life).then_some(last)
    }

    /// How time leapt when this member began to lead; `None` if it did not, or this member leads no group.
    pub(crate) fn leapt(&self) -> Option<Leap> {
        self.state.lock().leapt
    }

    /// Whether the wall clock is more than a minute away, or was ahead of what counts when this member began to lead,
    /// and steady time has not met it since.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.state.lock().is_alarmed()
    }

    /// The time now, never less than an earlier answer; after [`lead`](Self::lead), than an earlier one since then.
    pub(crate) fn now(&self) -> Stamp {
        let mut state = self.state.lock();
        let Reading { wall_ms: wall, monotonic } = Reading::of(&self.clock);
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
            let ahead = wall_us - straight;
            state.held_back &= ahead > most;
            straight + most.min(ahead)
        } else {
            state.held_back = false;
            straight - most.min(straight - wall_us)
        };
        let now = state.now_us / 1000;
        let away = now.abs_diff(wall);
        if away > ALARM_MS && !state.alarmed {
            tracing::warn!(
                event = "clock_set",
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

impl State {
    fn is_alarmed(&self) -> bool {
        self.alarmed || self.held_back
    }
}

/// A look at both clocks, with the time in it that a test has skipped.
struct Reading {
    wall_ms: u64,
    monotonic: Duration,
}

impl Reading {
    fn of(clock: &Clock) -> Self {
        // Read once: a skip between two looks would part the clocks.
        let skipped = clock.skipped();
        let wall = u64::try_from(clock.wall_ms()).unwrap_or_default();
        Self { wall_ms: wall + skipped.as_millis() as u64, monotonic: clock.monotonic() + skipped }
    }
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
    fn a_skip_passes_at_once_and_gives_no_alarm() {
        let clock = Clock::skipping();
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        let before = steady.now();
        clock.advance(Duration::from_secs(3_600));
        let after = steady.now();
        assert!((3_600_000..3_660_000).contains(&after.since(before)), "{before} to {after}");
        assert!(!steady.is_alarmed());
        // A broker that starts again with the same clock goes on from there.
        let again = SteadyClock::start(clock, after);
        assert!(again.now().since(after) < 60_000 && !again.is_alarmed());
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

    const HOUR_MS: u64 = 3_600_000;
    const LAST: Stamp = Stamp(10 * HOUR_MS);

    /// A member whose wall clock says this, and which begins to lead a group whose last stamp is [`LAST`].
    fn leader(wall_ms: u64) -> (Clock, SteadyClock) {
        let clock = Clock::manual(wall_ms.cast_signed());
        // It followed before, with its own opinion.
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        steady.now();
        steady.lead(LAST);
        (clock, steady)
    }

    #[test]
    fn a_leader_whose_clock_is_right_goes_on_with_it() {
        for ahead in [0, 1, 5_000, ALARM_MS] {
            let (clock, steady) = leader(LAST.get() + ahead);
            assert_eq!((steady.now(), steady.is_alarmed()), (LAST.saturating_add(ahead), false));
            clock.advance(Duration::from_secs(5));
            assert_eq!(steady.now(), LAST.saturating_add(ahead + 5_000));
        }
    }

    #[test]
    fn a_leader_an_hour_ahead_takes_a_minute_of_it_and_gives_an_alarm() {
        let (clock, steady) = leader(LAST.get() + HOUR_MS);
        let begin = LAST.saturating_add(ALARM_MS);
        assert_eq!((steady.now(), steady.is_alarmed()), (begin, true));
        clock.advance(Duration::from_secs(10));
        assert_eq!(steady.now(), begin.saturating_add(11_000), "ten seconds and a tenth");
        // Somebody sets the clock right.
        clock.jump_wall(steady.now().signed());
        clock.advance(Duration::from_secs(10));
        assert_eq!((steady.now(), steady.is_alarmed()), (begin.saturating_add(21_000), false));
    }

    #[test]
    fn a_leader_a_little_too_far_ahead_gives_the_alarm_until_they_meet() {
        let (clock, steady) = leader(LAST.get() + ALARM_MS + 1_000);
        assert_eq!((steady.now(), steady.is_alarmed()), (LAST.saturating_add(ALARM_MS), true));
        for _ in 0..9 {
            clock.advance(Duration::from_secs(1));
            steady.now();
            assert!(steady.is_alarmed());
        }
        clock.advance(Duration::from_secs(1));
        steady.now();
        assert!(!steady.is_alarmed(), "ten tenths of a second");
    }

    #[test]
    fn a_leader_an_hour_behind_goes_on_from_the_groups_time() {
        let (clock, steady) = leader(LAST.get() - HOUR_MS);
        assert_eq!((steady.now(), steady.is_alarmed()), (LAST, true));
        clock.advance(Duration::from_secs(10));
        assert_eq!(steady.now(), LAST.saturating_add(9_000), "ten seconds less a tenth");
    }

    #[test]
    fn what_lived_when_a_leader_began_lives_one_life_more() {
        let life = Duration::from_secs(60);
        assert_eq!(
            SteadyClock::start(Clock::manual(LAST.signed()), LAST).renewed(life),
            None,
            "it has not begun to lead"
        );
        let (clock, steady) = leader(LAST.get() + HOUR_MS);
        assert_eq!((steady.now(), steady.renewed(life)), (LAST.saturating_add(ALARM_MS), Some(LAST)));
        clock.advance(life);
        assert_eq!(steady.renewed(life), None);
    }

    #[test]
    fn it_tells_by_how_much_it_leapt() {
        let (_, steady) = leader(LAST.get() + 10_000);
        let leap = Leap { last: LAST, start: LAST.saturating_add(10_000), by: 10_000 };
        assert_eq!(steady.leapt(), Some(leap));
        let (_, steady) = leader(LAST.get() + HOUR_MS);
        assert_eq!(steady.leapt().map(|leap| leap.by), Some(ALARM_MS));
        assert_eq!(leader(LAST.get() - 1).1.leapt(), None, "it has not gone on");
    }

    #[test]
    fn the_time_that_a_group_was_idle_has_passed() {
        let clock = Clock::manual(LAST.signed());
        let steady = SteadyClock::start(clock.clone(), Stamp::ZERO);
        steady.hear(LAST);
        clock.advance(Duration::from_secs(3_600));
        // An older one changes nothing, nor does the same one again.
        steady.hear(Stamp(LAST.get() - 1));
        steady.hear(LAST);
        steady.lead(LAST);
        assert_eq!((steady.now(), steady.is_alarmed()), (LAST.saturating_add(HOUR_MS), false));
        assert_eq!(steady.leapt(), None);
        // Only as much as has passed.
        clock.jump_wall((LAST.get() + 3 * HOUR_MS).cast_signed());
        steady.lead(LAST);
        assert_eq!((steady.now(), steady.is_alarmed()), (LAST.saturating_add(HOUR_MS + ALARM_MS), true));
        // What it has not heard of may be a moment old.
        let later = LAST.saturating_add(1);
        steady.lead(later);
        assert_eq!(steady.now(), later.saturating_add(ALARM_MS));
    }

    #[test]
    fn a_group_that_has_applied_nothing_takes_the_wall_clock() {
        let clock = Clock::manual(LAST.signed());
        let steady = SteadyClock::start(clock, Stamp::ZERO);
        steady.lead(Stamp::ZERO);
        assert_eq!((steady.now(), steady.is_alarmed()), (LAST, false));
    }

    #[test]
    fn each_leader_stamps_after_the_one_before() {
        // Three members whose clocks are an hour apart lead in turn, as long as each begins with what the last one
        // stamped.
        let clocks = [0, HOUR_MS, 2 * HOUR_MS].map(|wall| Clock::manual((LAST.get() + wall).cast_signed()));
        let members = clocks.clone().map(|clock| SteadyClock::start(clock, Stamp::ZERO));
        let mut last = LAST;
        for turn in 0..300 {
            for clock in &clocks {
                clock.advance(Duration::from_secs(1));
            }
            let member = &members[turn % 3];
            member.lead(last);
            let stamp = member.now();
            assert!(stamp >= last, "{turn}");
            assert!(stamp <= last.saturating_add(ALARM_MS), "{turn}");
            last = stamp;
        }
    }
}
