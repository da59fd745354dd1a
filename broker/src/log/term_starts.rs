//! Where terms begin in the log.

use std::io;

use super::LogReader;
use crate::terms::{LogIndex, Position};

/// The first record of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermStart {
    /// The term.
    pub term: u64,
    /// The index of its first record.
    pub index: LogIndex,
    /// Where that record begins.
    pub position: Position,
}

impl LogReader {
    /// The first records of the newest `max` terms, in rising order. A term whose first records are purged begins here with the
    /// oldest record that is held.
    ///
    /// Terms do not fall, so each begin is found by halving what lies before it: some thirty small reads, however long the log.
    /// Blocks on the disk.
    pub fn term_starts(&self, max: usize) -> io::Result<Vec<TermStart>> {
        let mut starts = Vec::new();
        let first = self.first_index();
        let Some(mut newest) = self.last().filter(|last| last.index >= first) else { return Ok(starts) };
        while starts.len() < max {
            let (mut low, mut high) = (first.get(), newest.index.get());
            while low < high {
                let middle = low.midpoint(high);
                if self.held_term(LogIndex(middle))? < newest.term { low = middle + 1 } else { high = middle }
            }
            let index = LogIndex(low);
            let record = self.read_entries(index, index.next(), 0)?.pop().ok_or(io::ErrorKind::Interrupted)?;
            starts.push(TermStart { term: newest.term, index, position: record.position });
            if index <= first {
                break;
            }
            newest.index = LogIndex(low - 1);
            newest.term = self.held_term(newest.index)?;
        }
        starts.reverse();
        Ok(starts)
    }

    /// Where the record with this index ends; `None` if it is not held. Blocks on the disk if the record is old.
    pub fn end_of(&self, index: LogIndex) -> io::Result<Option<Position>> {
        if self.last().is_some_and(|last| last.index == index) {
            return Ok(Some(self.end()));
        }
        match self.read_entries(index, index.next(), 0) {
            Ok(mut records) => Ok(records.pop().map(|record| record.end())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The term of a record that was held a moment ago. A purge or a truncation may have come in between.
    fn held_term(&self, index: LogIndex) -> io::Result<u64> {
        self.term_of(index)?.ok_or_else(|| io::ErrorKind::Interrupted.into())
    }
}
