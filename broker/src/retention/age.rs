//! How old the log's files are.

use std::collections::HashMap;
use std::io;

use crate::log::{LogReader, SegmentInfo};
use crate::shard::Batch;
use crate::terms::{LogIndex, Position, Stamp};

/// Records at the beginning of a file that are looked at for a time: a leader's first entries have none.
const LOOK_RECORDS: u64 = 16;
/// Bytes of them read at once.
const LOOK_BYTES: u64 = 64 << 10;
/// The kind byte of records that hold commands and so a time.
const COMMANDS: u8 = 1;

/// When each file was begun. Remembers what it has read.
#[derive(Debug, Default)]
pub(super) struct Ages {
    begun: HashMap<Position, Stamp>,
}

/// The log's files as retention sees them.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// The files from the oldest to the newest, the newest being written.
    pub(super) segments: Vec<SegmentInfo>,
    /// The first stamp in each; rises.
    begun: Vec<Stamp>,
}

impl Ages {
    /// Looks at the files. Reads the beginning of those that are new.
    pub(super) fn look(&mut self, log: &LogReader) -> Files {
        let segments = log.segments();
        let mut begun: Vec<Option<Stamp>> = Vec::with_capacity(segments.len());
        for segment in &segments {
            let known = self.begun.get(&segment.start).copied();
            let stamp = match known.map_or_else(|| first_stamp(log, segment), |stamp| Ok(Some(stamp))) {
                Ok(Some(stamp)) => {
                    self.begun.insert(segment.start, stamp);
                    Some(stamp)
                }
                // Stamps never go back, so a file without any is as old as the one before.
                Ok(None) => begun.last().copied().unwrap_or(Some(Stamp::ZERO)),
                Err(error) => {
                    tracing::warn!(%error, "retention: the age of a file of the log cannot be read");
                    None
                }
            };
            begun.push(stamp);
        }
        let first = segments.first().map_or(Position::ZERO, |segment| segment.start);
        self.begun.retain(|start, _| *start >= first);
        Files { segments, begun: at_the_latest(&begun) }
    }
}

/// Unknown stamps taken to be as late as they can be: a file whose age is not known keeps the one before it no shorter than
/// it should be kept.
fn at_the_latest(begun: &[Option<Stamp>]) -> Vec<Stamp> {
    let mut latest = Stamp::MAX;
    let mut stamps: Vec<Stamp> = begun
        .iter()
        .rev()
        .map(|stamp| {
            latest = stamp.unwrap_or(latest);
            latest
        })
        .collect();
    stamps.reverse();
    stamps
}

fn first_stamp(log: &LogReader, segment: &SegmentInfo) -> io::Result<Option<Stamp>> {
    let from = segment.first_index;
    let records = log.read_entries(from, from + LOOK_RECORDS, LOOK_BYTES)?;
    let stamps = records.iter().filter(|record| record.kind == COMMANDS);
    Ok(stamps.filter_map(|record| Batch::decode(&record.payload).ok()).map(|batch| batch.stamp).next())
}

impl Files {
    #[cfg(test)]
    pub(super) fn of(files: impl Iterator<Item = (SegmentInfo, Stamp)>) -> Files {
        let (segments, begun) = files.unzip();
        Files { segments, begun }
    }

    /// Bytes of records in all files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(SegmentInfo::bytes).sum()
    }

    /// The end of the last file all of whose records are from before `time`; the newest file is never among them.
    pub(super) fn older_than(&self, time: Stamp) -> Position {
        // All records of a file are older than the first one of the next file.
        self.boundary(self.begun.iter().skip(1).take_while(|begun| **begun <= time).count())
    }

    /// The end of as few of the oldest files as it takes to leave at most `bytes`, or all but the newest.
    pub(super) fn beyond(&self, bytes: u64) -> Position {
        let mut left = self.bytes();
        let goes = |segment: &&SegmentInfo| {
            let goes = left > bytes;
            left -= segment.bytes();
            goes
        };
        self.boundary(self.segments.iter().take_while(goes).count())
    }

    /// Where the first `count` files end, the newest one left out; the log's beginning if there is no file.
    pub(super) fn boundary(&self, count: usize) -> Position {
        let count = count.min(self.segments.len().saturating_sub(1));
        self.segments.get(count).map_or(Position::ZERO, |segment| segment.start)
    }

    /// Index of the last record of the files that end at or before `position`; `None` if there is no such file.
    pub(super) fn last_index_below(&self, position: Position) -> Option<LogIndex> {
        last_index_below(&self.segments, position)
    }
}

/// Index of the last record of the files that end at or before `position`; `None` if there is no such file.
pub(crate) fn last_index_below(segments: &[SegmentInfo], position: Position) -> Option<LogIndex> {
    let next = segments.iter().skip(1).take_while(|segment| segment.start <= position).last()?;
    next.first_index.get().checked_sub(1).map(LogIndex)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of 100 bytes and 10 records each, begun at these times.
    fn files(begun: &[Stamp]) -> Files {
        let segment = |at: u64| SegmentInfo {
            start: Position(1000 + 100 * at),
            end: Position(1100 + 100 * at),
            first_index: LogIndex(1 + 10 * at),
            previous: None,
        };
        Files { segments: (0..begun.len() as u64).map(segment).collect(), begun: begun.to_vec() }
    }

    #[test]
    fn a_file_is_as_old_as_its_newest_record() {
        let files = files(&[Stamp(10), Stamp(20), Stamp(30), Stamp(40)]);
        assert_eq!(files.older_than(Stamp(19)), Position(1000), "the first file may hold records of 19");
        assert_eq!(files.older_than(Stamp(20)), Position(1100));
        assert_eq!(files.older_than(Stamp(35)), Position(1200));
        assert_eq!(files.older_than(Stamp(1000)), Position(1300), "the newest stays");
    }

    #[test]
    fn size_takes_the_oldest_first_and_leaves_the_newest() {
        let files = files(&[Stamp(1), Stamp(2), Stamp(3), Stamp(4)]);
        assert_eq!(files.beyond(400), Position(1000));
        assert_eq!(files.beyond(399), Position(1100));
        assert_eq!(files.beyond(200), Position(1200));
        assert_eq!(files.beyond(0), Position(1300));
        assert_eq!(Files::default().beyond(0), Position::ZERO);
    }

    #[test]
    fn a_file_whose_age_cannot_be_read_makes_no_other_one_older() {
        assert_eq!(
            at_the_latest(&[Some(Stamp(10)), None, None, Some(Stamp(40)), None]),
            [Stamp(10), Stamp(40), Stamp(40), Stamp(40), Stamp::MAX]
        );
        assert_eq!(
            files(&at_the_latest(&[Some(Stamp(10)), None, Some(Stamp(40))])).older_than(Stamp(39)),
            Position(1000)
        );
        assert_eq!(
            files(&at_the_latest(&[Some(Stamp(10)), None, Some(Stamp(40))])).older_than(Stamp(40)),
            Position(1200)
        );
    }

    #[test]
    fn whole_files_are_purged() {
        let files = files(&[Stamp(1), Stamp(2), Stamp(3)]);
        assert_eq!(files.last_index_below(Position(1099)), None);
        assert_eq!(files.last_index_below(Position(1100)), Some(LogIndex(10)));
        assert_eq!(files.last_index_below(Position(5000)), Some(LogIndex(20)));
    }
}
