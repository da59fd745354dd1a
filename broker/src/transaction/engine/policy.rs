//! When a half is asked about, and when that ends. Times in milliseconds, by the broker's own time.

use crate::index::HalfRow;
use crate::terms::Stamp;

/// When to check and when to give up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CheckPolicy {
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
/// No gap is longer than this many intervals.
const LONGEST_GAP: u64 = 10;

impl CheckPolicy {
    /// When the half's next check is due.
    pub(crate) fn next_check(&self, row: &HalfRow) -> Stamp {
        row.next_due.unwrap_or_else(|| row.prepared_at.saturating_add(self.first_after))
    }

    /// The gap after a check, given its number from 1.
    pub(crate) fn gap(&self, number: u32) -> u64 {
        let doublings = number.saturating_sub(FIRST_LONGER_GAP - 1).min(LONGEST_GAP.ilog2() + 1);
        self.interval.saturating_mul((1u64 << doublings).min(LONGEST_GAP))
    }

    /// Whether no check is left. The half is parked when the last one's gap is over.
    pub(crate) fn is_exhausted(&self, row: &HalfRow) -> bool {
        row.checks >= self.checks_max
    }

    /// Until when a half waits for an instance of its group.
    pub(crate) fn waits_until(&self, row: &HalfRow) -> Stamp {
        row.prepared_at.saturating_add(self.park_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CheckPolicy =
        CheckPolicy { first_after: 6_000, interval: 30_000, checks_max: 15, park_after: 86_400_000 };

    #[test]
    fn gaps_double_from_the_sixth_up_to_ten_times() {
        let gaps: Vec<u64> = (1..=12).map(|number| POLICY.gap(number) / POLICY.interval).collect();
        assert_eq!(gaps, [1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 10, 10]);
        assert_eq!(POLICY.gap(u32::MAX), 300_000);
    }
}
