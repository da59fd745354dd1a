//! The machine's clock: whether somebody sets it, and whether the brokers' agree with it.

use std::time::Duration;

use super::finding::Finding;

/// A broker raises an alarm from here on.
const ALARM: Duration = Duration::from_secs(60);
/// More is no delay of the network, and times of messages of two brokers no longer compare.
const NOTICED: Duration = Duration::from_secs(1);
/// A clock that is merely adjusted drifts by far less in the seconds that a look takes.
const STEP: Duration = Duration::from_millis(100);

/// Who sets the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setter {
    /// The system says that it is synchronised.
    Synchronised,
    /// The system says that it is not.
    NotSynchronised,
    /// A program for it runs; how well it does is not known here.
    Runs(String),
    /// Not to be seen from within a container, whose clock is its machine's.
    Hidden,
    /// Nobody, as far as is to be seen.
    Nobody,
}

const CLOCK: &str = "delays, timers, retention and the times in messages go by the wall clock; a leader whose clock is off stamps them wrong";
const NTP: &str = "run an NTP client: `apt install chrony`, or `timedatectl set-ntp true`";

pub(super) fn setter(setter: &Setter) -> Finding {
    const CHECK: &str = "clock";
    match setter {
        Setter::Synchronised => Finding::ok(CHECK, "the system says that it is synchronised"),
        Setter::Runs(program) => Finding::ok(CHECK, format!("{program} runs, which sets it")),
        Setter::NotSynchronised => Finding::warning(CHECK, "the system says that it is not synchronised", CLOCK, NTP),
        Setter::Nobody => Finding::warning(CHECK, "nothing on this machine sets it", CLOCK, NTP),
        Setter::Hidden => Finding::note(
            CHECK,
            "in a container it is the machine's, and who sets that is not to be seen here",
            CLOCK,
            "look on the machine itself",
        ),
    }
}

/// By how much the wall clock left the steady one while this command ran.
pub(super) fn step(by: Duration) -> Finding {
    const CHECK: &str = "clock-steps";
    if by < STEP {
        return Finding::ok(CHECK, "the clock was not set while this command looked");
    }
    Finding::warning(
        CHECK,
        format!("the clock was set by {} ms while this command looked", by.as_millis()),
        "a clock that is set in steps makes delays longer or shorter; the broker's own time follows slowly, by a tenth",
        "let the NTP client adjust the clock instead of setting it (chrony: no `makestep` after the start), and have one of them alone",
    )
}

/// A broker's clock against this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skew {
    pub(super) broker: String,
    /// How far apart they are at least, after what the network may have taken.
    pub(super) apart: Duration,
    pub(super) is_ahead: bool,
}

impl Skew {
    /// From the broker's clock, and this machine's before and after the call, in milliseconds since 1970.
    pub(super) fn of(broker: &str, theirs: i64, before: i64, after: i64) -> Self {
        let apart = (before - theirs).max(theirs - after).max(0);
        Self { broker: broker.to_owned(), apart: Duration::from_millis(apart.unsigned_abs()), is_ahead: theirs > after }
    }
}

pub(super) fn skew(skew: &Skew) -> Finding {
    const CHECK: &str = "clock-skew";
    let Skew { broker, apart, is_ahead } = skew;
    if *apart < NOTICED {
        return Finding::ok(CHECK, format!("{broker} has the same time as this machine"));
    }
    let what = format!(
        "{broker} is {:.1} s {} this machine",
        apart.as_secs_f64(),
        if *is_ahead { "ahead of" } else { "behind" }
    );
    let remedy = format!("set the clock that is wrong; {NTP}");
    if *apart < ALARM {
        return Finding::warning(CHECK, what, CLOCK, remedy);
    }
    Finding::risk(CHECK, what, "messages come early or late, and are deleted before or after their time", remedy)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_hurts() {
        for (found, verdict) in [
            (Setter::Synchronised, Verdict::Ok),
            (Setter::Runs("chronyd".into()), Verdict::Ok),
            (Setter::NotSynchronised, Verdict::Warning),
            (Setter::Nobody, Verdict::Warning),
            (Setter::Hidden, Verdict::Note),
        ] {
            assert_eq!(setter(&found).verdict, verdict, "{found:?}");
        }
    }

    #[test]
    fn steps_are_more_than_adjustments() {
        assert_eq!(step(Duration::from_millis(3)).verdict, Verdict::Ok);
        assert_eq!(step(Duration::from_secs(2)).verdict, Verdict::Warning);
    }

    #[test]
    fn what_the_network_took_is_no_skew() {
        let of = |theirs, before, after| skew(&Skew::of("b", theirs, before, after));
        assert_eq!(of(5_000, 1_000, 9_000).verdict, Verdict::Ok);
        let ahead = of(12_000, 1_000, 9_000);
        assert!(ahead.verdict == Verdict::Warning && ahead.what.contains("3.0 s ahead"), "{ahead:?}");
        let behind = of(1_000, 100_000, 100_001);
        assert!(behind.verdict == Verdict::Risk && behind.what.contains("99.0 s behind"), "{behind:?}");
    }
}
