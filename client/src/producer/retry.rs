//! Whether, where and when a failed send is tried again. Pure: failures and time go in, a verdict comes out.

use std::time::Duration;

use escrowmq_common::code::response;
use tokio::time::Instant;

use crate::error::{PASSING, RequestError, SendError};

/// The bounds of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// Attempts that may leave something stored. Failures that certainly stored nothing and pass by themselves (a broker
    /// that restarts, flow control) do not count: they are bounded by the deadline alone.
    pub(crate) attempts_max: u32,
    /// The longest wait for one answer.
    pub(crate) attempt_timeout: Duration,
    /// The end of it all, from the call on.
    pub(crate) deadline: Duration,
}

/// The first pause before a retry that cannot go elsewhere, and its bound; it doubles in between.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The next step after a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again.
    Again {
        /// Wait this long first; zero is not awaited.
        pause: Duration,
        /// The route may be out of date: ask the name servers first.
        refresh_route: bool,
    },
    /// Tell the caller.
    GiveUp,
}

/// The attempts of one send so far.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: RetryPolicy,
    ends: Instant,
    made: u32,
    /// Those of `made` that count against `attempts_max`.
    counted: u32,
    pause: Duration,
    /// Some attempt may have stored the message: no later failure can take that back.
    maybe_stored: bool,
    /// And its broker would not recognise a repeat: the next attempt may store it again.
    maybe_twice: bool,
}

/// Circumstances of a failed attempt that count besides the failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chances {
    /// Another broker could take the message.
    pub(crate) elsewhere: bool,
    /// A member of the same broker group that did not fail could.
    pub(crate) other_member: bool,
    /// The broker recognises the message, should it have stored it, and answers a repeat with the first one's place.
    pub(crate) recognised: bool,
}

impl Attempts {
    pub(crate) fn new(policy: RetryPolicy, now: Instant) -> Attempts {
        Attempts {
            policy,
            ends: now + policy.deadline,
            made: 0,
            counted: 0,
            pause: PAUSE_FIRST,
            maybe_stored: false,
            maybe_twice: false,
        }
    }

    /// Begins an attempt.
    pub(crate) fn begin(&mut self) {
        self.made += 1;
    }

    /// How long an answer may be awaited from now on; nothing once the deadline has passed.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        self.policy.attempt_timeout.min(self.ends.saturating_duration_since(now))
    }

    /// The end of it all.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    /// Attempts begun so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Whether an earlier attempt may have stored the message too.
    pub(crate) fn maybe_stored(&self) -> bool {
        self.maybe_stored
    }

    /// Whether the broker group stays the same: it may have stored the message, and recognises it. Another one would not.
    pub(crate) fn stays(&self) -> bool {
        self.maybe_stored && !self.maybe_twice
    }

    /// Whether the message may be stored twice once an attempt succeeds.
    pub(crate) fn maybe_twice(&self) -> bool {
        self.maybe_twice
    }

    /// Judges a failed attempt.
    pub(crate) fn judge(&mut self, failure: &RequestError, chances: Chances, now: Instant) -> Verdict {
        let is_unknown = failure.outcome_unknown();
        self.maybe_stored |= is_unknown;
        self.maybe_twice |= is_unknown && !chances.recognised;
        let passes_by_itself = match failure {
            _ if is_unknown && chances.recognised => true,
            RequestError::Unreachable { .. } | RequestError::NoRoute { .. } | RequestError::NotSent { .. } => true,
            RequestError::Refused { code, .. } => PASSING.contains(code),
            _ => false,
        };
        if !passes_by_itself {
            self.counted += 1;
        }
        if !failure.is_retryable() || self.counted >= self.policy.attempts_max {
            return Verdict::GiveUp;
        }
        // The first failure of a kind that hits one broker goes elsewhere at once; from then on, and when there is no
        // elsewhere, pauses grow so that a broker that comes back is not met by a storm.
        let goes_elsewhere = chances.elsewhere && !self.stays();
        let pause = if goes_elsewhere && self.made == 1 { Duration::ZERO } else { self.pause };
        if !pause.is_zero() {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        if now + pause >= self.ends {
            return Verdict::GiveUp;
        }
        // A member that passes on knows the leader before the name servers do. The routes are refreshed beside.
        let refresh_route = !(chances.other_member && failure.misses_leader())
            && match failure {
                RequestError::Unreachable { .. }
                | RequestError::ConnectionLost { .. }
                | RequestError::NoRoute { .. }
                | RequestError::NotSent { .. } => true,
                RequestError::Refused { code, .. } => {
                    matches!(
                        *code,
                        response::NO_PERMISSION | response::TOPIC_NOT_EXIST | response::SERVICE_NOT_AVAILABLE
                    )
                }
                _ => false,
            };
        Verdict::Again { pause, refresh_route }
    }

    /// The error to hand to the caller after the last failure.
    pub(crate) fn into_error(self, message_id: &str, last: RequestError) -> SendError {
        if self.maybe_stored {
            SendError::OutcomeUnknown { message_id: message_id.to_owned(), attempts: self.made, last }
        } else if matches!(last, RequestError::ShutDown) && self.made == 0 {
            SendError::ShutDown
        } else {
            SendError::NotStored { attempts: self.made, last }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LOOK_UP;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts_max: 3, attempt_timeout: Duration::from_secs(3), deadline: Duration::from_secs(10) };

    const ELSEWHERE: Chances = Chances { elsewhere: true, other_member: false, recognised: false };

    fn refused(code: i32) -> RequestError {
        RequestError::Refused { addr: "a".into(), code, remark: String::new() }
    }

    fn timed_out() -> RequestError {
        RequestError::TimedOut { addr: "a".into(), after: Duration::from_secs(3) }
    }

    fn unreachable() -> RequestError {
        RequestError::Unreachable { addr: "a".into(), reason: "refused".into() }
    }

    fn begun(now: Instant) -> Attempts {
        let mut attempts = Attempts::new(POLICY, now);
        attempts.begin();
        attempts
    }

    #[test]
    fn a_message_at_fault_is_not_tried_again() {
        let now = Instant::now();
        for code in [response::MESSAGE_ILLEGAL, response::INVALID_PARAMETER, response::REQUEST_CODE_NOT_SUPPORTED] {
            let mut attempts = begun(now);
            assert_eq!(attempts.judge(&refused(code), ELSEWHERE, now), Verdict::GiveUp);
            let error = attempts.into_error("id", refused(code));
            assert!(!error.outcome_unknown() && !error.is_retryable(), "{error}");
        }
    }

    #[test]
    fn the_first_failure_goes_elsewhere_at_once() {
        let now = Instant::now();
        for failure in [refused(response::SYSTEM_ERROR), refused(response::NO_PERMISSION), timed_out(), unreachable()] {
            let verdict = begun(now).judge(&failure, ELSEWHERE, now);
            assert!(matches!(verdict, Verdict::Again { pause: Duration::ZERO, .. }), "{failure}: {verdict:?}");
        }
    }

    #[test]
    fn attempts_that_may_have_stored_are_counted() {
        let now = Instant::now();
        let mut attempts = Attempts::new(POLICY, now);
        for round in 1..=3 {
            attempts.begin();
            let verdict = attempts.judge(&timed_out(), ELSEWHERE, now);
            assert_eq!(verdict == Verdict::GiveUp, round == 3, "round {round}");
        }
        assert!(attempts.into_error("id", timed_out()).outcome_unknown());
    }

    #[test]
    fn certain_failures_that_pass_are_bounded_by_the_deadline_alone() {
        let start = Instant::now();
        let mut now = start;
        let mut attempts = Attempts::new(POLICY, now);
        loop {
            attempts.begin();
            match attempts.judge(&unreachable(), Chances::default(), now) {
                Verdict::Again { pause, refresh_route } => {
                    assert!(pause <= PAUSE_MAX && refresh_route);
                    now += pause;
                }
                Verdict::GiveUp => break,
            }
            assert!(now < start + POLICY.deadline);
        }
        assert!(attempts.made() > 10, "{} attempts", attempts.made());
        let error = attempts.into_error("id", unreachable());
        assert!(!error.outcome_unknown() && error.is_retryable());
    }

    #[test]
    fn the_quota_of_a_broker_passes() {
        let now = Instant::now();
        let mut attempts = Attempts::new(POLICY, now);
        for _ in 0..2 * POLICY.attempts_max {
            attempts.begin();
            let verdict = attempts.judge(&refused(response::FLOW_CONTROL), Chances::default(), now);
            assert!(matches!(verdict, Verdict::Again { refresh_route: false, .. }), "{verdict:?}");
        }
    }

    #[test]
    fn one_unknown_outcome_is_never_forgotten() {
        let now = Instant::now();
        let mut attempts = begun(now);
        attempts.judge(&timed_out(), ELSEWHERE, now);
        attempts.begin();
        attempts.judge(&refused(response::MESSAGE_ILLEGAL), ELSEWHERE, now);
        assert!(attempts.into_error("id", refused(response::MESSAGE_ILLEGAL)).outcome_unknown());
    }

    #[test]
    fn an_attempt_never_outlives_the_deadline() {
        let now = Instant::now();
        let attempts = Attempts::new(POLICY, now);
        assert_eq!(attempts.patience(now), Duration::from_secs(3));
        assert_eq!(attempts.patience(now + Duration::from_secs(9)), Duration::from_secs(1));
        assert_eq!(attempts.patience(now + Duration::from_secs(11)), Duration::ZERO);
    }

    #[test]
    fn what_a_broker_recognises_goes_there_again_until_the_deadline() {
        let recognised = Chances { elsewhere: true, other_member: true, recognised: true };
        let (now, mut attempts) = (Instant::now(), Attempts::new(POLICY, Instant::now()));
        for _ in 0..2 * POLICY.attempts_max {
            attempts.begin();
            let verdict = attempts.judge(&timed_out(), recognised, now);
            let Verdict::Again { pause, refresh_route: false } = verdict else { panic!("{verdict:?}") };
            assert!(pause >= PAUSE_FIRST && attempts.stays() && !attempts.maybe_twice());
        }
        // Another group is asked only once a repeat may have doubled it anyway.
        attempts.begin();
        attempts.judge(&timed_out(), ELSEWHERE, now);
        assert!(!attempts.stays() && attempts.maybe_twice());
        let late = now + POLICY.deadline;
        assert_eq!(attempts.judge(&timed_out(), recognised, late), Verdict::GiveUp);
        assert!(attempts.into_error("id", timed_out()).outcome_unknown());
    }

    #[test]
    fn what_never_reached_a_broker_leaves_no_doubt_and_is_bounded_by_the_deadline_alone() {
        let now = Instant::now();
        let look_up = timed_out().before_sending(LOOK_UP);
        let mut attempts = Attempts::new(POLICY, now);
        for _ in 0..2 * POLICY.attempts_max {
            attempts.begin();
            assert!(matches!(
                attempts.judge(&look_up, Chances::default(), now),
                Verdict::Again { refresh_route: true, .. }
            ));
        }
        let error = attempts.into_error("id", look_up);
        assert!(!error.outcome_unknown() && error.is_retryable(), "{error}");
    }
}
