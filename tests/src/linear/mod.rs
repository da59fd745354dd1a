//! Linearizability of two shapes: appends to queues, and decisions on half messages.
//!
//! A history is *linearizable* if each operation can be given one moment between its call and its return, so that a
//! single copy of the data, which does one operation after the other in the order of these moments, would have given
//! the same answers. An operation whose outcome is unknown may have its moment at any time after its call, or never.
//!
//! Promises: the judgement is exact. A history without a violation has such moments, one with a violation has none;
//! [`appends`] and [`decisions`] argue why, and the tests compare them with a search that tries every order. A history
//! of n operations costs n log n steps, which are counted. Each violation names the operations that contradict each
//! other.
//!
//! Leaves to others: everything about a run that is no matter of order in time, such as lost bodies, consumer groups
//! and counts ([`crate::checker`]).

pub mod appends;
pub mod decisions;
mod record;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use appends::{Append, Found, Sent, judge_appends};
pub use decisions::{Answer, Decision, judge_decisions};
pub use record::{Client, Recording, Ticket};

/// Violations that are told of one queue or half. One fault can contradict everything that comes after it.
const TOLD_MAX: usize = 20;

/// Something a client did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation<W> {
    /// The client.
    pub client: u32,
    /// When it was called, in any unit, by one clock for all clients.
    pub called: u64,
    /// When its answer was there. If the outcome is unknown: when the client gave up, which says nothing.
    pub returned: u64,
    /// What was asked and answered.
    pub what: W,
}

/// The ways in which a history can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The history itself is wrong: an operation returned before it was called.
    Malformed,
    /// An answer contradicts itself: nothing at an offset below the end that it names.
    Nonsense,
    /// Two sends were acknowledged at one offset.
    OffsetTwice,
    /// One offset had two values.
    ValuesDiffer,
    /// A queue was longer than all that was sent to it.
    TooLong,
    /// Something was seen that nobody can have sent or decided.
    Phantom,
    /// Nothing that was sent can be at an offset below others.
    Hole,
    /// A send that was called after another one had returned stands before that one.
    Reordered,
    /// Something had its effect before it was asked for.
    TooEarly,
    /// A read did not see what had been acknowledged, or seen, before it was called.
    Stale,
    /// A half was committed, and it was rolled back.
    Flipped,
    /// Two decisions on a half were each told that they were the first.
    DecidedTwice,
}

/// A contradiction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which kind.
    pub kind: Kind,
    /// In words.
    pub what: String,
    /// The operations that contradict each other, by their place in the history.
    pub operations: Vec<usize>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// The judgement on a history.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The contradictions; empty for a linearizable history. Of one queue or half no more than 20 are told.
    pub violations: Vec<Violation>,
    /// Operations that were judged.
    pub operations: usize,
    /// Operations of unknown outcome among them.
    pub unknown: usize,
    /// The work: comparisons and visits.
    pub steps: u64,
}

impl Verdict {
    /// Whether the history is linearizable.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether there is a violation of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.violations.iter().any(|violation| violation.kind == kind)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        writeln!(f, "{} operations, {} of unknown outcome", self.operations, self.unknown)?;
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

/// Counts the work of a judgement.
#[derive(Debug, Default)]
struct Work(u64);

impl Work {
    fn step(&mut self) {
        self.0 += 1;
    }

    /// Sorts; each comparison is a step.
    fn sort<T>(&mut self, all: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
        all.sort_by(|one, other| {
            self.step();
            compare(one, other)
        });
    }
}

/// The operations of each queue or half, in the order of its number. An operation that returned before its call is
/// told.
fn split<W>(
    history: &[Operation<W>],
    work: &mut Work,
    told: &mut Vec<Violation>,
    number: impl Fn(&W) -> u64,
) -> Vec<Vec<usize>> {
    let mut all = Vec::with_capacity(history.len());
    for (at, operation) in history.iter().enumerate() {
        work.step();
        if operation.returned < operation.called {
            let Operation { client, called, returned, .. } = operation;
            let what =
                format!("client {client} has an operation that was called at {called} and returned at {returned}");
            told.push(Violation { kind: Kind::Malformed, what, operations: vec![at] });
            continue;
        }
        all.push((number(&operation.what), at));
    }
    // Stable: within a queue the order of the history stays.
    work.sort(&mut all, |one, other| one.0.cmp(&other.0));
    all.chunk_by(|one, other| one.0 == other.0).map(|chunk| chunk.iter().map(|(_, at)| *at).collect()).collect()
}
