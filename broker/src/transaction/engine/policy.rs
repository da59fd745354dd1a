//! When a half is asked about, and when that ends. Times in milliseconds, by the broker's own time.

use crate::index::HalfRow;
use crate::steady_clock::Leap;
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
    /// How time leapt when this member began to lead: what was given before then lives that much longer.
    pub leapt: Option<Leap>,
}

/// A check is given its due time so much before it is recorded at most, in milliseconds.
const RECORDED_WITHIN: u64 = 2_000;

/// The gaps grow from this one on: the sixth is twice the interval.
const FIRST_LONGER_GAP: u32 = 6;
/// No gap is longer than this many intervals.
const LONGEST_GAP: u64 = 10;

impl CheckPolicy {
    /// When the half's next check is due.
    pub(crate) fn next_check(&self, row: &HalfRow) -> Stamp {
        let due = row.next_due.unwrap_or_else(|| row.prepared_at.saturating_add(self.first_after));
        match self.leapt {
            Some(leap) if due > leap.last && self.is_given_before(&leap, row, due) => due.saturating_add(leap.by),
            _ => due,
        }
    }

    /// Whether the due time of a half is known to be older than a leap. It is not known of a lease that its producer asked for and
    /// that ends after the leap: this one ends as much earlier.
    fn is_given_before(&self, leap: &Leap, row: &HalfRow, due: Stamp) -> bool {
        if due < leap.start {
            // Nothing that is given since then is due so early.
            true
        } else if let Some(asked) = row.asked.last() {
            let gap = self.gap(row.checks);
            asked.at <= leap.last && (gap.saturating_sub(RECORDED_WITHIN)..=gap).contains(&due.since(asked.at))
        } else {
            row.prepared_at <= leap.last && due.since(row.prepared_at) == row.immunity.unwrap_or(self.first_after)
        }
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
    use crate::index::history::Asked;
    use crate::terms::HalfId;
    use crate::transaction::tests::half_row;

    const POLICY: CheckPolicy =
        CheckPolicy { first_after: 6_000, interval: 30_000, checks_max: 15, park_after: 86_400_000, leapt: None };

    #[test]
    fn a_leap_of_time_makes_nothing_due() {
        let leap = Leap { last: Stamp(100_000), start: Stamp(150_000), by: 50_000 };
        let policy = CheckPolicy { leapt: Some(leap), ..POLICY };
        let row = |prepared| half_row(HalfId(1), "a", "client", Stamp(prepared));
        let due = |row: HalfRow| policy.next_check(&row).get();
        assert_eq!(due(row(94_000)), 100_000, "it was due before");
        assert_eq!(due(row(94_001)), 150_001);
        assert_eq!(due(row(100_000)), 156_000);
        assert_eq!(due(row(150_000)), 156_000, "since then");
        let immune =
            |prepared, next_due| HalfRow { immunity: Some(60_000), next_due: Some(Stamp(next_due)), ..row(prepared) };
        assert_eq!(due(immune(95_000, 155_000)), 205_000);
        assert_eq!(due(immune(95_000, 140_000)), 190_000, "whoever gave it");
        assert_eq!(due(immune(95_000, 160_000)), 160_000, "a lease, perhaps of this leader");
        let asked = |at, next_due| HalfRow {
            asked: vec![Asked { at: Stamp(at), client: "client".to_owned() }],
            checks: 1,
            next_due: Some(Stamp(next_due)),
            ..row(10_000)
        };
        let long = CheckPolicy { interval: 60_000, ..policy };
        let due = |row: HalfRow| long.next_check(&row).get();
        assert_eq!(due(asked(95_010, 155_000)), 205_000, "a moment passed until it was recorded");
        assert_eq!(due(asked(150_000, 210_000)), 210_000, "by this leader");
        assert_eq!(due(asked(95_000, 152_000)), 152_000, "it was resumed, perhaps");
    }

    #[test]
    fn gaps_double_from_the_sixth_up_to_ten_times() {
        let gaps: Vec<u64> = (1..=12).map(|number| POLICY.gap(number) / POLICY.interval).collect();
        assert_eq!(gaps, [1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 10, 10]);
        assert_eq!(POLICY.gap(u32::MAX), 300_000);
    }
}
