//! A test's certain knowledge: which messages were acknowledged, in which order, and what was delivered.
//!
//! The ledger is kept outside of the broker and judged after the last fault: acknowledged means delivered; in the order of
//! each producer's acknowledgements per queue, leaving repeats away; and nothing that nobody sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;

/// One message of a producer: its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// The producer.
    pub producer: u32,
    /// Counts up in the order of its sends.
    pub number: u32,
}

impl Entry {
    /// As a message body.
    pub fn body(self) -> String {
        format!("{}/{}", self.producer, self.number)
    }

    /// Read back from a message body.
    pub fn read(body: &[u8]) -> Option<Entry> {
        let (producer, number) = std::str::from_utf8(body).ok()?.split_once('/')?;
        Some(Entry { producer: producer.parse().ok()?, number: number.parse().ok()? })
    }
}

/// Sends and their answers.
#[derive(Clone, Debug, Default)]
pub struct Ledger<Queue> {
    /// Sent, answered or not.
    attempted: BTreeSet<Entry>,
    /// Acknowledged, with the queue and the offset that the answer named.
    acknowledged: BTreeMap<Entry, (Queue, i64)>,
}

/// The contents that the log turned out to have: for each queue, its messages in order of offset.
pub type Contents<Queue> = BTreeMap<Queue, Vec<(i64, Entry)>>;

impl<Queue: Clone + Debug + Eq + Hash + Ord> Ledger<Queue> {
    /// A producer is about to send.
    pub fn attempt(&mut self, entry: Entry) {
        self.attempted.insert(entry);
    }

    /// The broker acknowledged.
    pub fn acknowledge(&mut self, entry: Entry, queue: Queue, offset: i64) {
        self.acknowledged.insert(entry, (queue, offset));
    }

    /// How many are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Everything of another ledger.
    pub fn absorb(&mut self, other: Ledger<Queue>) {
        self.attempted.extend(other.attempted);
        self.acknowledged.extend(other.acknowledged);
    }

    /// The faults of `contents`, in words; empty if there are none.
    pub fn judge(&self, contents: &Contents<Queue>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (entry, (queue, offset)) in &self.acknowledged {
            let found = contents.get(queue).and_then(|messages| {
                messages.binary_search_by_key(offset, |(at, _)| *at).ok().map(|index| messages[index].1)
            });
            if found != Some(*entry) {
                wrong.push(format!("{entry:?} was acknowledged at {queue:?}:{offset}, where {found:?} is"));
            }
        }
        for (queue, messages) in contents {
            self.judge_queue(queue, messages, &mut wrong);
        }
        wrong
    }

    fn judge_queue(&self, queue: &Queue, messages: &[(i64, Entry)], wrong: &mut Vec<String>) {
        let mut last_first_seen: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (expected, (offset, entry)) in (0..).zip(messages) {
            if expected != *offset {
                wrong.push(format!("{queue:?}: offset {offset} where {expected} was due"));
                return;
            }
            if !self.attempted.contains(entry) {
                wrong.push(format!("{queue:?}:{offset} holds {entry:?}, which nobody sent"));
            }
            // A repeat of an attempt whose answer was lost may stand anywhere after it.
            if !seen.insert(*entry) {
                continue;
            }
            let last = last_first_seen.insert(entry.producer, entry.number);
            if let Some(last) = last
                && last > entry.number
            {
                wrong.push(format!("{queue:?}:{offset} holds {entry:?} behind number {last} of the same producer"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(producer: u32, number: u32) -> Entry {
        Entry { producer, number }
    }

    fn ledger(entries: &[(Entry, i64)]) -> Ledger<u8> {
        let mut ledger = Ledger::default();
        for (entry, offset) in entries {
            ledger.attempt(*entry);
            ledger.acknowledge(*entry, 0, *offset);
        }
        ledger
    }

    fn contents(entries: &[Entry]) -> Contents<u8> {
        BTreeMap::from([(0, (0..).zip(entries.iter().copied()).collect())])
    }

    #[test]
    fn bodies_read_back() {
        assert_eq!(Entry::read(entry(3, 14).body().as_bytes()), Some(entry(3, 14)));
        assert_eq!(Entry::read(b"nonsense"), None);
    }

    #[test]
    fn a_faithful_log_and_one_with_repeats_pass() {
        let mut told = ledger(&[(entry(1, 1), 0), (entry(1, 2), 2)]);
        told.attempt(entry(2, 1));
        assert_eq!(told.judge(&contents(&[entry(1, 1), entry(2, 1), entry(1, 2), entry(1, 1)])), Vec::<String>::new());
        assert_eq!(told.acknowledged(), 2);
    }

    #[test]
    fn losses_strangers_disorder_and_gaps_are_found() {
        let told = ledger(&[(entry(1, 1), 0), (entry(1, 2), 1)]);
        assert!(told.judge(&contents(&[entry(1, 1)]))[0].contains("was acknowledged"));
        assert!(told.judge(&contents(&[entry(1, 1), entry(1, 2), entry(9, 9)]))[0].contains("nobody sent"));
        let turned = ledger(&[(entry(1, 2), 0), (entry(1, 1), 1)]);
        assert!(turned.judge(&contents(&[entry(1, 2), entry(1, 1)]))[0].contains("behind number 2"));
        let gap = BTreeMap::from([(0, vec![(0, entry(1, 1)), (2, entry(1, 2))])]);
        assert!(told.judge(&gap).iter().any(|line| line.contains("where 1 was due")));
    }
}
