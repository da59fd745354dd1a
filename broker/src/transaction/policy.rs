//! What to do with a half whose next check is due. Pure: a row, a time and who is there in, a step out.

use crate::index::HalfRow;
use crate::shard::ParkReason;

/// When to check and when to give up. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckPolicy {
    /// From Prepare to the first check, unless the message says otherwise (`transactionTimeOut`).
    pub first_after: u64,
    /// Between checks (`transactionCheckInterval`).
    pub interval: u64,
    /// Checks before the half is parked (`transactionCheckMax`).
    pub checks_max: u32,
    /// From Prepare until a half whose group has no instance is parked (`transactionParkAfter`).
    pub park_after: u64,
}

/// The gaps grow from this one on: the sixth is twice the interval.
const FIRST_LONGER_GAP: u32 = 6;
/// No gap is longer than so many intervals.
const LONGEST_GAP: u64 = 10;

/// What to do with a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: it is due at this time.
    NotDue(u64),
    /// Ask, and be due again at `next_due` whatever comes back.
    Check {
        /// When the next check is due, in milliseconds since 1970.
        next_due: u64,
        /// Which check this is, from 1.
        number: u32,
    },
    /// Nobody to ask: wait for an instance of the group, until this time.
    Wait {
        /// When it is parked if none comes, in milliseconds since 1970.
        until: u64,
    },
    /// Take it out of the checks, in plain sight.
    Park(ParkReason),
    /// It is parked: nothing is due.
    Nothing,
}

impl CheckPolicy {
    /// When the half's next check is due, in milliseconds since 1970.
    pub fn due(&self, row: &HalfRow) -> u64 {
        if row.next_due == 0 { row.prepared_at.saturating_add(self.first_after) } else { row.next_due }
    }

    /// The gap after a check, given its number from 1.
    pub fn gap(&self, number: u32) -> u64 {
        let doublings = number.saturating_sub(FIRST_LONGER_GAP - 1).min(LONGEST_GAP.ilog2() + 1);
        self.interval.saturating_mul((1u64 << doublings).min(LONGEST_GAP))
    }

    /// What to do with a half at `now`, knowing whether anyone of its group can be asked.
    pub fn step(&self, row: &HalfRow, now: u64, has_checker: bool) -> Step {
        if row.parked.is_some() {
            return Step::Nothing;
        }
        let due = self.due(row);
        if due > now {
            return Step::NotDue(due);
        }
        if row.checks >= self.checks_max {
            return Step::Park(ParkReason::ChecksExhausted);
        }
        if !has_checker {
            let until = row.prepared_at.saturating_add(self.park_after);
            return if until <= now { Step::Park(ParkReason::NoChecker) } else { Step::Wait { until } };
        }
        let number = row.checks + 1;
        Step::Check { next_due: now.saturating_add(self.gap(number)), number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{QueueId, When};

    const POLICY: CheckPolicy =
        CheckPolicy { first_after: 6_000, interval: 30_000, checks_max: 15, park_after: 86_400_000 };

    fn row() -> HalfRow {
        HalfRow {
            half: 100,
            counter: 0,
            position: 100,
            length: 10,
            queue: QueueId(1),
            tag_hash: 0,
            when: When::Now,
            immunity: None,
            first_half: None,
            prepared_at: 1_000,
            next_due: 0,
            checks: 0,
            parked: None,
            duplicate_window: 0,
            body_crc: 0,
            group: "g".into(),
            client: "c".into(),
            unique_id: "u".into(),
            topic: QueueId(1),
            members: Vec::new(),
            asked: Vec::new(),
            acts: Vec::new(),
            group_id: 0,
        }
    }

    #[test]
    fn the_first_check_waits_for_its_time() {
        assert_eq!(POLICY.step(&row(), 6_999, true), Step::NotDue(7_000));
        assert_eq!(POLICY.step(&row(), 7_000, true), Step::Check { next_due: 37_000, number: 1 });
    }

    #[test]
    fn a_time_of_its_own_replaces_the_default() {
        let row = HalfRow { next_due: 2_000, ..row() };
        assert_eq!(POLICY.step(&row, 2_000, true), Step::Check { next_due: 32_000, number: 1 });
    }

    #[test]
    fn gaps_double_from_the_sixth_up_to_ten_times() {
        let gaps: Vec<u64> = (1..=12).map(|number| POLICY.gap(number) / POLICY.interval).collect();
        assert_eq!(gaps, [1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 10, 10]);
        assert_eq!(POLICY.gap(u32::MAX), 300_000);
    }

    #[test]
    fn nobody_to_ask_uses_up_no_attempt() {
        let mut half = row();
        half.checks = 3;
        assert_eq!(POLICY.step(&half, 7_000, false), Step::Wait { until: 86_401_000 });
        assert_eq!(POLICY.step(&half, 86_401_000, false), Step::Park(ParkReason::NoChecker));
    }

    #[test]
    fn the_last_check_is_followed_by_parking_once_its_gap_is_over() {
        let half = HalfRow { checks: 15, next_due: 50_000, ..row() };
        assert_eq!(POLICY.step(&half, 49_999, true), Step::NotDue(50_000));
        assert_eq!(POLICY.step(&half, 50_000, true), Step::Park(ParkReason::ChecksExhausted));
        assert_eq!(POLICY.step(&half, 50_000, false), Step::Park(ParkReason::ChecksExhausted));
    }

    #[test]
    fn a_parked_half_is_left_alone() {
        let half = HalfRow { parked: Some((ParkReason::Operator, 1)), ..row() };
        assert_eq!(POLICY.step(&half, u64::MAX, true), Step::Nothing);
    }
}
