//! The tail cache: the newest records in memory, shared with whoever appended them.
//!
//! It always covers the log up to its very end, so a record is readable from the moment it is accepted. A record that
//! is not yet written to the file, or not yet released by the state machine, is never evicted; beyond that the cache is
//! bounded by bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::record::Record;
use crate::terms::{LogIndex, Position};

/// Counted per record beside its payload: the entry itself and the payload's shared header.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A contiguous run of records that ends with the newest one.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The index of the oldest record held.
    pub(crate) fn first_index(&self) -> Option<LogIndex> {
        self.records.front().map(|oldest| oldest.index)
    }

    /// Where the oldest record held begins.
    pub(crate) fn first_position(&self) -> Option<Position> {
        self.records.front().map(|oldest| oldest.position)
    }

    /// Adds the newest record.
    pub(crate) fn push(&mut self, record: Record) {
        assert!(
            self.records.back().is_none_or(|last| last.index.next() == record.index && last.end() == record.position),
            "the tail cache has no holes"
        );
        self.bytes += cost(&record);
        self.records.push_back(record);
    }

    /// Removes the records that begin at or after `cut`.
    pub(crate) fn cut(&mut self, cut: Position) {
        while self.records.back().is_some_and(|last| last.position >= cut) {
            self.bytes -= self.records.pop_back().map_or(0, |record| cost(&record));
        }
    }

    /// Removes the oldest records while the cache is over `budget`, but only records that end at or before
    /// `written` (else nobody could read them) and whose index is at most `released`.
    pub(crate) fn evict(&mut self, budget: usize, written: Position, released: Option<LogIndex>) {
        while self.bytes > budget {
            match self.records.front() {
                Some(oldest) if oldest.end() <= written && Some(oldest.index) <= released => {
                    self.bytes -= cost(oldest);
                    self.records.pop_front();
                }
                _ => break,
            }
        }
    }

    /// The record with this index.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Record> {
        let first = self.first_index()?;
        self.records.get(usize::try_from(index.get().checked_sub(first.get())?).ok()?)
    }

    /// The records `from..to` (the end excluded), at most `max_bytes` of them, but at least one; `None` if `from` is not here.
    pub(crate) fn from(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> Option<Vec<Record>> {
        let first = self.get(from)?;
        if from >= to {
            return Some(Vec::new());
        }
        let mut records = vec![first.clone()];
        let mut bytes = first.bytes();
        for record in (from.next().get()..to.get()).map_while(|index| self.get(LogIndex(index))) {
            bytes += record.bytes();
            if bytes > max_bytes {
                break;
            }
            records.push(record.clone());
        }
        Some(records)
    }

    /// Payload bytes at a position; `None` unless they lie within one payload that is held.
    pub(crate) fn read(&self, position: Position, len: usize) -> Option<Bytes> {
        if position < self.records.front()?.position {
            return None;
        }
        let after = self.records.partition_point(|held| held.position <= position);
        let record = self.records.get(after.checked_sub(1)?)?;
        let from = usize::try_from(position.get().checked_sub(record.payload_position().get())?).ok()?;
        let to = from.checked_add(len)?;
        (to <= record.payload.len()).then(|| record.payload.slice(from..to))
    }
}

fn cost(record: &Record) -> usize {
    record.payload.len() + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

    use super::*;

    fn tail(sizes: &[usize]) -> Tail {
        let mut tail = Tail::default();
        let mut position = Position(1000);
        for (nth, size) in sizes.iter().enumerate() {
            let record = Record {
                term: 1,
                index: LogIndex(10 + nth as u64),
                kind: 1,
                position,
                crc: 0,
                payload: Bytes::from(vec![nth as u8; *size]),
            };
            position = record.end();
            tail.push(record);
        }
        tail
    }

    #[test]
    fn it_evicts_down_to_its_budget_but_nothing_unwritten_or_unreleased() {
        let mut tail = tail(&[100, 100, 100, 100]);
        let all = tail.bytes();
        tail.evict(all, Position(u64::MAX), Some(LogIndex(u64::MAX)));
        assert_eq!(tail.bytes(), all);
        tail.evict(0, Position(u64::MAX), None);
        assert_eq!(tail.bytes(), all, "nothing was released");
        tail.evict(0, Position(1160), Some(LogIndex(99)));
        assert_eq!(tail.first_index(), Some(LogIndex(11)), "only the first was written");
        tail.evict(0, Position(u64::MAX), Some(LogIndex(11)));
        assert_eq!(tail.first_index(), Some(LogIndex(12)));
        assert_eq!(tail.bytes(), all / 2);
        tail.evict(all / 4, Position(u64::MAX), Some(LogIndex(13)));
        assert_eq!(tail.first_index(), Some(LogIndex(13)));
    }

    #[test]
    fn it_reads_payload_bytes_only() {
        let tail = tail(&[10, 0, 20]);
        let second = tail.get(LogIndex(11)).unwrap().position;
        let third = tail.get(LogIndex(12)).unwrap();
        assert_eq!(tail.read(Position(1040), 10).unwrap(), vec![0; 10]);
        assert_eq!(tail.read(Position(1044), 6).unwrap().len(), 6);
        assert_eq!(tail.read(Position(1044), 7), None, "beyond the payload");
        assert_eq!(tail.read(Position(1039), 1), None, "within a header");
        assert_eq!(tail.read(Position(999), 1), None, "before the cache");
        assert_eq!(tail.read(second.advance(40), 0).unwrap().len(), 0);
        assert_eq!(tail.read(third.payload_position(), 20).unwrap(), vec![2; 20]);
        assert_eq!(tail.read(third.payload_position(), usize::MAX), None);
    }

    #[test]
    fn a_cut_takes_the_newest() {
        let mut tail = tail(&[10, 10, 10]);
        let second = tail.get(LogIndex(11)).unwrap().position;
        tail.cut(second);
        assert_eq!((tail.first_index(), tail.get(LogIndex(11))), (Some(LogIndex(10)), None));
        tail.cut(Position(0));
        assert_eq!((tail.first_index(), tail.bytes()), (None, 0));
    }
}
