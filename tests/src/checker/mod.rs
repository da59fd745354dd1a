//! The checker: judges a history by what must hold whatever happened.
//!
//! | | invariant |
//! | --- | --- |
//! | I1 | no loss: what the ledger committed was delivered to every group that reads |
//! | I2 | no phantom: what the ledger rolled back, or never heard of, was shown by nothing |
//! | I3 | decided: after the end nothing is undecided, but what is parked with a reason |
//! | I4 | one decision: one copy per commit, none per rollback; confirmations agree with it and with each other |
//! | I5 | receipts: what was acknowledged is in the final log, where the answer said |
//! | I6 | seen is durable: what a consumer saw is in the final log, there, unchanged |
//! | I7 | order: offsets are dense; what one client sent after an answer comes after it; all agree what is at an offset |
//! | I8 | offsets do not go back, unless somebody resets them, and do not pass the end |
//! | I9 | at least once: what was acknowledged was delivered or became a dead letter, once |
//! | I10 | conservation: halves are committed, rolled back, pending or parked, by the broker's count and by ours |
//!
//! It looks at nothing but the history, so that real processes and users' own runs are judged alike. Simulated runs of the broker have
//! a judge that compares each answer with logs and states, too (`broker/src/shard/cluster/judge.rs`). A run in which too little happened is *invalid*, which is not the same as good.

mod messages;
mod offsets;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Ending, Event, Place, What};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The number of the invariant: 1 for I1.
    pub invariant: u8,
    /// The violation in words.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}: {}", self.invariant, self.what)
    }
}

/// The terms by which a run is judged.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Consumer groups that read everything, from the beginning to the end.
    pub groups: Vec<String>,
    /// Acknowledged operations without which a run says nothing.
    pub acknowledged_min: usize,
}

/// How a run was.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The violations; empty if there are none.
    pub violations: Vec<Violation>,
    /// Why the run says nothing, if so.
    pub invalid: Option<String>,
    /// Acknowledged sends, halves and decisions.
    pub acknowledged: usize,
    /// Faults that happened.
    pub faults: usize,
}

impl Verdict {
    /// Whether the run shows something, and nothing bad.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.invalid.is_none()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        writeln!(f, "{} acknowledged operations, {} faults", self.acknowledged, self.faults)?;
        if let Some(why) = &self.invalid {
            writeln!(f, "invalid: {why}")?;
        }
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "{violation}")?;
        }
        let more = self.violations.len().saturating_sub(SHOWN);
        if more > 0 {
            writeln!(f, "and {more} more")?;
        }
        Ok(())
    }
}

/// Judges a history. Events may be in any order; their times count.
pub fn judge(events: &[Event], terms: &Terms) -> Verdict {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| event.at);
    let facts = Facts::gather(&events);
    let mut violations = Vec::new();
    transactions::judge(&facts, &mut violations);
    messages::judge(&events, &facts, terms, &mut violations);
    offsets::judge(&events, &facts, &mut violations);
    violations.sort();
    let faults: Vec<bool> = events
        .iter()
        .filter_map(|event| match event.what {
            What::Fault { fired, .. } => Some(fired),
            _ => None,
        })
        .collect();
    let fired = faults.iter().filter(|fired| **fired).count();
    let invalid = if fired * 10 < faults.len() * 9 {
        Some(format!("{fired} of {} faults happened", faults.len()))
    } else if facts.acknowledged < terms.acknowledged_min {
        Some(format!("{} acknowledged operations, {} are needed", facts.acknowledged, terms.acknowledged_min))
    } else {
        None
    };
    Verdict { violations, invalid, acknowledged: facts.acknowledged, faults: fired }
}

/// A history's facts about each message.
#[derive(Default)]
struct Facts {
    /// Sent without a transaction, by key, with the hash of the body.
    sends: BTreeMap<String, u32>,
    /// Half messages, by key.
    halves: BTreeMap<String, u32>,
    /// Acknowledged sends, with the place that the answer named.
    sent: BTreeMap<String, Option<Place>>,
    /// The ledger.
    local: BTreeMap<String, Ending>,
    /// Confirmed decisions.
    decided: BTreeMap<String, Vec<(Ending, Option<Place>)>>,
    conflicts: Vec<(String, Ending)>,
    /// The final log, by place.
    stored: BTreeMap<Place, (String, u32)>,
    /// Where each message is in the end.
    places: BTreeMap<String, Vec<Place>>,
    /// Deliveries by group and key.
    delivered: BTreeMap<(String, String), usize>,
    dead: BTreeMap<(String, String), usize>,
    /// Every way in which a message was seen, for messages that were.
    seen: BTreeMap<String, BTreeSet<String>>,
    pending: BTreeMap<String, Option<String>>,
    counted: Option<[u64; 5]>,
    acknowledged: usize,
}

impl Facts {
    fn gather(events: &[&Event]) -> Facts {
        let mut facts = Facts::default();
        for event in events {
            facts.add(&event.what);
        }
        facts
    }

    fn add(&mut self, what: &What) {
        match what {
            What::Send { key, hash } => {
                self.sends.insert(key.clone(), *hash);
            }
            What::Half { key, hash } => {
                self.halves.insert(key.clone(), *hash);
            }
            What::Sent { key, place, .. } => {
                self.acknowledged += 1;
                self.sent.insert(key.clone(), place.clone());
            }
            What::HalfStored { .. } => self.acknowledged += 1,
            What::Local { key, ending } => {
                self.local.insert(key.clone(), *ending);
            }
            What::Decided { key, ending, place } => {
                self.acknowledged += 1;
                self.decided.entry(key.clone()).or_default().push((*ending, place.clone()));
            }
            What::Conflict { key, ending } => self.conflicts.push((key.clone(), *ending)),
            What::Delivered { group, key, .. } => {
                *self.delivered.entry((group.clone(), key.clone())).or_default() += 1;
                self.seen.entry(key.clone()).or_default().insert(format!("delivery to {group}"));
            }
            What::Shown { view, key } => {
                self.seen.entry(key.clone()).or_default().insert(view.clone());
            }
            What::DeadLetter { group, key } => {
                *self.dead.entry((group.clone(), key.clone())).or_default() += 1;
                self.seen.entry(key.clone()).or_default().insert(format!("dead letters of {group}"));
            }
            What::Stored { key, place, hash } => {
                self.stored.insert(place.clone(), (key.clone(), *hash));
                self.places.entry(key.clone()).or_default().push(place.clone());
                self.seen.entry(key.clone()).or_default().insert(format!("{}:{}", place.queue, place.offset));
            }
            What::Pending { key, parked } => {
                self.pending.insert(key.clone(), parked.clone());
            }
            What::Counted { halves, committed, rolled_back, pending, parked } => {
                self.counted = Some([*halves, *committed, *rolled_back, *pending, *parked]);
            }
            What::OffsetCommitted { .. }
            | What::OffsetSeen { .. }
            | What::OffsetReset { .. }
            | What::Fault { .. }
            | What::Healed => {}
        }
    }

    fn copies(&self, key: &str) -> usize {
        self.places.get(key).map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests;
