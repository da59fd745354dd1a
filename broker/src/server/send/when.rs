//! When a sent message becomes visible: at once, after a delay level, or at the time that it names.

use std::time::Duration;

use escrowmq_common::code::response;

use super::illegal;
use super::known::{Known, Timer};
use crate::config::{BrokerConfig, DelayLevels};
use crate::reply::Refused;
use crate::terms::{Stamp, When};

/// The settings that decide, and the time.
pub(super) struct DelayRules<'a> {
    pub(super) levels: &'a DelayLevels,
    pub(super) timer_enable: bool,
    pub(super) timer_max_delay: Duration,
    /// The time.
    pub(super) now: Stamp,
}

impl<'a> DelayRules<'a> {
    pub(super) fn new(config: &'a BrokerConfig, now: Stamp) -> Self {
        Self {
            levels: &config.delay_levels,
            timer_enable: config.timer_enable,
            timer_max_delay: config.timer_max_delay,
            now,
        }
    }
}

/// When the message becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) when: When,
    /// The time that a timer message named; it can be called back until then.
    pub(super) timer: Option<Stamp>,
}

impl Due {
    pub(super) const NOW: Self = Self { when: When::Now, timer: None };
}

/// When a message with these properties becomes visible. A level wins over a time.
///
/// `counted_from_commit`: for a half message, whose relative time begins when it is committed.
pub(super) fn due(known: &Known<'_>, rules: &DelayRules<'_>, counted_from_commit: bool) -> Result<Due, Refused> {
    if let Some(millis) = rules.levels.millis(known.delay_level) {
        return Ok(Due { when: When::After(millis), timer: None });
    }
    let Some(timer) = known.timer else { return Ok(Due::NOW) };
    if !rules.timer_enable {
        return Err(Refused::new(
            response::SYSTEM_ERROR,
            "accurate timer message is not enabled, timerWheelEnable is false",
        ));
    }
    let (delay, at) = match timer {
        Timer::After(delay) => (Some(delay), rules.now.saturating_add(delay)),
        Timer::At(at) => (None, at),
    };
    if at <= rules.now {
        return Ok(Due::NOW);
    }
    let limit = rules.timer_max_delay.as_millis() as u64;
    if at.since(rules.now) > limit {
        let remark = format!("timer message illegal, the delay time should not be bigger than the max delay {limit}ms");
        return Err(illegal(remark));
    }
    Ok(match delay {
        Some(delay) if counted_from_commit => Due { when: When::After(delay), timer: None },
        _ => Due { when: When::At(at), timer: Some(at) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn decide(properties: &str, timer_enable: bool, half: bool) -> Result<Due, i32> {
        let levels = DelayLevels::default();
        let rules =
            DelayRules { levels: &levels, timer_enable, timer_max_delay: Duration::from_secs(100), now: Stamp(NOW) };
        due(&Known::of(properties).unwrap(), &rules, half).map_err(|refused| refused.code)
    }

    #[test]
    fn levels_are_counted_from_one_and_cut_at_the_last() {
        let after = |millis| Ok(Due { when: When::After(millis), timer: None });
        assert_eq!(decide("DELAY\u{1}1\u{2}", true, false), after(1_000));
        assert_eq!(decide("DELAY\u{1}3\u{2}", true, true), after(10_000));
        assert_eq!(decide("DELAY\u{1}99\u{2}", true, false), after(7_200_000));
        for none in ["", "DELAY\u{1}0\u{2}", "DELAY\u{1}-1\u{2}"] {
            assert_eq!(decide(none, true, false), Ok(Due::NOW), "{none}");
        }
        assert_eq!(decide("DELAY\u{1}2\u{2}TIMER_DELAY_MS\u{1}7\u{2}", false, false), after(5_000));
    }

    #[test]
    fn a_time_is_relative_or_absolute_and_may_have_passed() {
        let at = |time| Ok(Due { when: When::At(time), timer: Some(time) });
        assert_eq!(decide("TIMER_DELAY_SEC\u{1}2\u{2}", true, false), at(Stamp(NOW + 2_000)));
        assert_eq!(decide("TIMER_DELAY_MS\u{1}1500\u{2}", true, false), at(Stamp(NOW + 1_500)));
        assert_eq!(decide(&format!("TIMER_DELIVER_MS\u{1}{}\u{2}", NOW + 9), true, false), at(Stamp(NOW + 9)));
        for passed in ["TIMER_DELIVER_MS\u{1}5\u{2}", "TIMER_DELIVER_MS\u{1}-5\u{2}", "TIMER_DELAY_MS\u{1}0\u{2}"] {
            assert_eq!(decide(passed, true, false), Ok(Due::NOW), "{passed}");
        }
    }

    #[test]
    fn a_halfs_delay_begins_with_its_commit() {
        assert_eq!(decide("TIMER_DELAY_SEC\u{1}2\u{2}", true, true), Ok(Due { when: When::After(2_000), timer: None }));
    }

    #[test]
    fn too_far_or_switched_off_is_refused() {
        assert_eq!(decide("TIMER_DELAY_SEC\u{1}101\u{2}", true, false), Err(13));
        assert_eq!(decide("TIMER_DELIVER_MS\u{1}9223372036854775807\u{2}", true, false), Err(13));
        assert_eq!(decide("TIMER_DELAY_MS\u{1}9223372036854775807\u{2}", true, false), Err(13));
        assert_eq!(decide("TIMER_DELAY_MS\u{1}1\u{2}", false, false), Err(1));
    }
}
