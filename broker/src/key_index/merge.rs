//! Merging neighbouring runs into one, a step at a time, so that the number of files stays small.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use super::run::{Coverage, Run, RunWriter, Scan};
use crate::terms::{LogIndex, Position};

/// How many runs of a level become one of the next.
pub(super) const FAN_IN: usize = 8;
/// Runs of this level are not merged again: a file must not outlive the log below it by too much.
const LEVEL_MAX: u8 = 3;

/// The oldest runs that are due for a merge: their place in `runs`.
pub(super) fn due(runs: &VecDeque<Arc<Run>>) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    for at in 0..runs.len() {
        if runs[at].level != runs[start].level {
            start = at;
        }
        if runs[at].level < LEVEL_MAX && at + 1 - start == FAN_IN {
            return Some(start..at + 1);
        }
    }
    None
}

/// A merge under way.
pub(super) struct Merge {
    inputs: Vec<(Entry, Scan)>,
    sources: Vec<Arc<Run>>,
    coverage: Coverage,
    writer: RunWriter,
}

impl Merge {
    /// Begins to merge `sources`: neighbours of one level, oldest first.
    pub(super) fn begin(dir: &Path, sources: Vec<Arc<Run>>) -> io::Result<Self> {
        let (oldest, newest) = (&sources[0], &sources[sources.len() - 1]);
        let coverage =
            Coverage { first_index: oldest.coverage.first_index, start: oldest.coverage.start, ..newest.coverage };
        let writer = RunWriter::create(dir, "merge", oldest.level + 1)?;
        let mut inputs = Vec::with_capacity(sources.len());
        for source in &sources {
            let mut scan = source.scan();
            if let Some(first) = scan.next().transpose()? {
                inputs.push((first, scan));
            }
        }
        Ok(Self { inputs, sources, coverage, writer })
    }

    /// Moves up to `entries` entries, leaving out those below the log position `keep_from`. Says whether all are moved.
    pub(super) fn step(&mut self, entries: usize, keep_from: Position) -> io::Result<bool> {
        for _ in 0..entries {
            let smallest = self.inputs.iter().enumerate().min_by_key(|(_, (entry, _))| *entry);
            let Some(at) = smallest.map(|(at, _)| at) else {
                return Ok(true);
            };
            let (entry, scan) = &mut self.inputs[at];
            if entry.position >= keep_from {
                self.writer.push(*entry)?;
            }
            match scan.next().transpose()? {
                Some(next) => *entry = next,
                None => drop(self.inputs.swap_remove(at)),
            }
        }
        Ok(self.inputs.is_empty())
    }

    /// Raft index of the first record that the sources cover.
    pub(super) fn first_index(&self) -> LogIndex {
        self.coverage.first_index
    }

    /// The new run, and those that it replaces.
    pub(super) fn finish(self) -> io::Result<(Run, Vec<Arc<Run>>)> {
        Ok((self.writer.finish(self.coverage)?, self.sources))
    }

    /// Gives the merge up; its sources stay.
    pub(super) fn abandon(self) {
        self.writer.abandon();
    }
}
