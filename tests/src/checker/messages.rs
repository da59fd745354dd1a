//! I1, I5, I6, I7 and I9: what becomes of messages.

use std::collections::BTreeMap;

use super::{Facts, Terms, Violation};
use crate::history::{Ending, Event, Place, What};

pub(super) fn judge(events: &[&Event], facts: &Facts, terms: &Terms, violations: &mut Vec<Violation>) {
    let mut wrong = |invariant: u8, what: String| violations.push(Violation { invariant, what });
    for (key, _) in facts.local.iter().filter(|(_, ending)| **ending == Ending::Commit) {
        // A half that was never acknowledged may be lost with its local transaction undone; the ledger would not say so.
        for group in &terms.groups {
            if !facts.delivered.contains_key(&(group.clone(), key.clone())) {
                wrong(1, format!("the ledger committed {key}, but {group} never got it"));
            }
        }
        if facts.copies(key) == 0 {
            wrong(1, format!("the ledger committed {key}, but it is not in the final log"));
        }
    }
    judge_receipts(facts, &mut wrong);
    judge_seen(events, facts, &mut wrong);
    judge_order(events, facts, &mut wrong);
    for key in facts.sent.keys() {
        for group in &terms.groups {
            let entry = (group.clone(), key.clone());
            if !facts.delivered.contains_key(&entry) && !facts.dead.contains_key(&entry) {
                wrong(9, format!("{key} was acknowledged, but {group} never got it"));
            }
        }
    }
    for ((group, key), count) in facts.dead.iter().filter(|(_, count)| **count > 1) {
        wrong(9, format!("{key} became a dead letter of {group} {count} times"));
    }
}

fn judge_receipts(facts: &Facts, wrong: &mut impl FnMut(u8, String)) {
    for (key, place) in &facts.sent {
        match place {
            Some(place) => {
                let there = facts.stored.get(place).map(|(key, _)| key);
                if there != Some(key) {
                    wrong(5, format!("{key} was acknowledged at {place:?}, in the end {there:?} is there"));
                }
            }
            None if facts.copies(key) == 0 => wrong(5, format!("{key} was acknowledged, but is not in the final log")),
            None => {}
        }
    }
    for (key, sent) in facts.sends.iter().chain(&facts.halves) {
        for place in facts.places.get(key).into_iter().flatten() {
            let stored = facts.stored.get(place).map(|(_, hash)| *hash);
            if stored.is_some_and(|stored| stored != *sent) {
                wrong(5, format!("the body of {key} at {place:?} is not the one that was sent"));
            }
        }
    }
}

fn judge_seen(events: &[&Event], facts: &Facts, wrong: &mut impl FnMut(u8, String)) {
    let mut first_seen: BTreeMap<&Place, (&str, u32)> = BTreeMap::new();
    for event in events {
        let What::Delivered { group, key, place, hash, .. } = &event.what else { continue };
        let there = facts.stored.get(place).map(|(key, hash)| (key.as_str(), *hash));
        if there != Some((key.as_str(), *hash)) {
            wrong(6, format!("{group} saw {key} at {place:?}, in the end {:?} is there", there.map(|(key, _)| key)));
        }
        let first = *first_seen.entry(place).or_insert((key, *hash));
        if first != (key.as_str(), *hash) {
            wrong(7, format!("at {place:?} one reader saw {}, another one {key}", first.0));
        }
    }
}

fn judge_order(events: &[&Event], facts: &Facts, wrong: &mut impl FnMut(u8, String)) {
    let mut last: Option<&Place> = None;
    for place in facts.stored.keys() {
        let gap = last.is_some_and(|last| last.queue == place.queue && last.offset + 1 != place.offset);
        if gap {
            wrong(
                7,
                format!("in {} the offset after {} is {}", place.queue, last.map_or(0, |l| l.offset), place.offset),
            );
        }
        last = Some(place);
    }
    // A message sent after an answer stands after the one that was answered, if the client and the queue are the same.
    let mut newest: BTreeMap<(&str, &str), (u64, &str)> = BTreeMap::new();
    for event in events {
        let What::Sent { key, place: Some(place), .. } = &event.what else { continue };
        let newest = newest.entry((&event.client, &place.queue)).or_insert((place.offset, key));
        if newest.0 > place.offset {
            wrong(
                7,
                format!("{} sent {key} after {}, but it stands before it in {}", event.client, newest.1, place.queue),
            );
        }
        *newest = (place.offset, key);
    }
}
