//! Where to cut: decides by the files and the settings which bytes go, which are moved, and which are moved before a commit.

use super::age::Files;
use crate::terms::{Position, Stamp};

/// The settings and figures that decide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Now.
    pub(super) now: Stamp,
    /// How long messages are kept, in milliseconds.
    pub(super) keep: u64,
    /// Bytes of log that are kept; `None` for no limit.
    pub(super) size: Option<u64>,
    /// Whether the disk is so full that the oldest file goes although it is young.
    pub(super) early: bool,
}

/// Log positions up to which something is to happen: the log's beginning where nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Below, nothing is kept.
    pub(super) trim: Position,
    /// Below, what is pinned is moved.
    pub(super) roll: Position,
    /// Below, a message that becomes visible is moved.
    pub(super) rewrite: Position,
}

impl Plan {
    /// Pins are moved at half the retention, messages rewritten at a quarter: so nothing visible lies long below the cut,
    /// and a trim waits for no pin.
    pub(super) fn new(files: &Files, rules: Rules) -> Plan {
        let age = |part: u64| files.older_than(rules.now.saturating_sub(rules.keep / part));
        let size = |part: u64| rules.size.map_or(Position::ZERO, |limit| files.beyond(limit / part));
        let early = |count| if rules.early { files.boundary(count) } else { Position::ZERO };
        Plan {
            trim: age(1).max(size(1)).max(early(1)),
            roll: age(2).max(size(2)).max(early(2)),
            rewrite: age(4).max(size(4)).max(early(3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SegmentInfo;
    use crate::terms::LogIndex;

    fn upto(trim: u64, roll: u64, rewrite: u64) -> Plan {
        Plan { trim: Position(trim), roll: Position(roll), rewrite: Position(rewrite) }
    }

    /// Ten files of 100 bytes, begun at 0, 10, 20, ...
    fn files() -> Files {
        let segment = |at: u64| SegmentInfo {
            start: Position(100 * at),
            end: Position(100 * at + 100),
            first_index: LogIndex(1 + at),
            previous: None,
        };
        Files::of((0..10).map(|at| (segment(at), Stamp(10 * at))))
    }

    #[test]
    fn age_trims_moves_at_half_of_it_and_rewrites_at_a_quarter() {
        let plan = Plan::new(&files(), Rules { now: Stamp(100), keep: 80, size: None, early: false });
        assert_eq!(plan, upto(200, 600, 800));
        let nothing = Plan::new(&files(), Rules { now: Stamp(100), keep: 1000, size: None, early: false });
        assert_eq!(nothing, Plan::default());
    }

    #[test]
    fn size_does_likewise_and_the_stricter_rule_holds() {
        let size = Plan::new(&files(), Rules { now: Stamp(100), keep: 1000, size: Some(800), early: false });
        assert_eq!(size, upto(200, 600, 800));
        let both = Plan::new(&files(), Rules { now: Stamp(100), keep: 40, size: Some(800), early: false });
        assert_eq!(both, upto(600, 800, 900));
    }

    #[test]
    fn a_disk_that_fills_up_takes_one_file_at_a_time() {
        let plan = Plan::new(&files(), Rules { now: Stamp(100), keep: 1000, size: None, early: true });
        assert_eq!(plan, upto(100, 200, 300));
    }
}
