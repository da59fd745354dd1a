//! I2, I3, I4 and I10: how transactions end.

use std::collections::BTreeSet;

use super::{Facts, Violation};
use crate::history::{Ending, Place};

pub(super) fn judge(facts: &Facts, violations: &mut Vec<Violation>) {
    let mut wrong = |invariant: u8, what: String| violations.push(Violation { invariant, what });
    for (key, seen) in &facts.seen {
        let ledger = facts.local.get(key);
        let is_half = facts.halves.contains_key(key);
        if is_half && ledger != Some(&Ending::Commit) {
            let ledger = ledger.map_or_else(|| "knows nothing of".to_owned(), |_| "rolled back".to_owned());
            wrong(2, format!("the ledger {ledger} {key}, but it was seen: {seen:?}"));
        }
        if !is_half && !facts.sends.contains_key(key) {
            wrong(2, format!("nobody sent {key}, but it was seen: {seen:?}"));
        }
    }
    for (key, parked) in &facts.pending {
        if parked.as_deref().is_none_or(str::is_empty) {
            wrong(3, format!("{key} is undecided in the end"));
        }
        if facts.decided.contains_key(key) {
            wrong(4, format!("{key} was decided, and is undecided in the end"));
        }
    }
    for key in facts.halves.keys() {
        let copies = facts.copies(key);
        if copies > 1 {
            wrong(4, format!("{copies} copies of {key}: {:?}", facts.places.get(key)));
        }
    }
    for (key, decisions) in &facts.decided {
        let endings: BTreeSet<Ending> = decisions.iter().map(|(ending, _)| *ending).collect();
        if endings.len() > 1 {
            wrong(4, format!("{key} was confirmed both ways"));
        }
        let places: BTreeSet<&Place> = decisions.iter().filter_map(|(_, place)| place.as_ref()).collect();
        if places.len() > 1 {
            wrong(4, format!("the commit of {key} was confirmed at {places:?}"));
        }
        let there = facts.places.get(key).and_then(|places| places.first());
        match endings.first() {
            Some(Ending::Commit) if places.first().is_some_and(|place| there != Some(*place)) => {
                wrong(4, format!("the commit of {key} was confirmed at {places:?}, in the end it is at {there:?}"));
            }
            // Where there is a ledger it says first what a decision may be.
            Some(ending) if facts.local.get(key).is_some_and(|local| local != ending) => {
                wrong(4, format!("{key} was confirmed as {ending:?} against the ledger"));
            }
            _ => {}
        }
    }
    for (key, refused) in &facts.conflicts {
        if facts.decided.get(key).is_some_and(|decisions| decisions.iter().any(|(ending, _)| ending == refused)) {
            wrong(4, format!("{refused:?} of {key} was refused as the opposite of the decision, and confirmed"));
        }
    }
    judge_counts(facts, &mut wrong);
}

fn judge_counts(facts: &Facts, wrong: &mut impl FnMut(u8, String)) {
    let Some([halves, committed, rolled_back, pending, parked]) = facts.counted else { return };
    if halves != committed + rolled_back + pending + parked {
        wrong(
            10,
            format!("{halves} halves, but {committed} + {rolled_back} + {pending} + {parked} by the broker's count"),
        );
    }
    let visible = facts.halves.keys().filter(|key| facts.copies(key) > 0).count() as u64;
    if committed != visible {
        wrong(10, format!("{committed} commits are counted, {visible} committed messages are there"));
    }
    let undecided = facts.pending.len() as u64;
    if pending + parked != undecided {
        wrong(10, format!("{pending} pending and {parked} parked are counted, {undecided} are there"));
    }
}
