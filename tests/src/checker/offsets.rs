//! I8: how far consumers are.

use std::collections::BTreeMap;

use super::{Facts, Violation};
use crate::history::{Event, What};

pub(super) fn judge(events: &[&Event], facts: &Facts, violations: &mut Vec<Violation>) {
    let mut wrong = |what: String| violations.push(Violation { invariant: 8, what });
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for place in facts.stored.keys() {
        ends.insert(&place.queue, place.offset + 1);
    }
    // The highest that was acknowledged or seen, since the last reset.
    let mut known: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in events {
        match &event.what {
            What::OffsetCommitted { group, place } => {
                let known = known.entry((group, &place.queue)).or_default();
                *known = (*known).max(place.offset);
            }
            What::OffsetSeen { group, place } => {
                let known = known.entry((group, &place.queue)).or_default();
                if place.offset < *known {
                    wrong(format!("{group} was at {known} of {}, later at {}", place.queue, place.offset));
                }
                *known = (*known).max(place.offset);
                let end = ends.get(place.queue.as_str()).copied();
                if end.is_some_and(|end| place.offset > end) {
                    wrong(format!("{group} is at {} of {}, which ends at {end:?}", place.offset, place.queue));
                }
            }
            What::OffsetReset { group, place } => {
                known.insert((group, &place.queue), place.offset);
            }
            _ => {}
        }
    }
}
