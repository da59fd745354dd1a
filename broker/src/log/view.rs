//! The log as readers see it: the tail cache, the segments, and where the log begins and ends.
//!
//! Appenders change it under a write lock for some hundred nanoseconds; readers copy what they need out of it
//! and do their file reads without any lock.

use std::sync::Arc;

use super::format::Link;
use super::record::RecordId;
use super::segment::Segment;
use super::tail::Tail;
use crate::terms::{LogIndex, Position};

pub(crate) struct View {
    pub(crate) tail: Tail,
    /// In rising order, without gaps. Empty only in a log that never had a record.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The newest record; `None` when there is none, not even a deleted one.
    pub(crate) last: Option<Link>,
    /// Where the next record begins.
    pub(crate) end: Position,
    /// Raised by each truncation: a file read that overlapped one may have seen bytes of both histories.
    pub(crate) epoch: u64,
}

impl View {
    /// Position of the oldest record held, or of the next one if none is.
    pub(crate) fn first_position(&self) -> Position {
        self.segments.first().map_or(self.end, |segment| segment.start)
    }

    /// The record right before the oldest one held, if there ever was one.
    pub(crate) fn purged(&self) -> Option<RecordId> {
        let previous = self.segments.first()?.previous?;
        Some(RecordId { term: previous.term, index: previous.index })
    }

    /// Index of the oldest record held, or of the next one; 0 in a log that never had a record.
    pub(crate) fn first_index(&self) -> LogIndex {
        self.segments.first().map_or(LogIndex::ZERO, |segment| segment.first_index)
    }

    /// The newest record held. Unlike `last` this is no record that has been purged.
    pub(crate) fn last_held(&self) -> Option<Link> {
        self.last.filter(|last| last.position >= self.first_position())
    }

    /// The segment that holds `position`, and where its records end.
    pub(crate) fn segment_at(&self, position: Position) -> Option<(Arc<Segment>, Position)> {
        let at = self.segments.partition_point(|segment| segment.start <= position).checked_sub(1)?;
        Some(self.with_end(at))
    }

    /// The segment that holds the record with `index`, and where its records end.
    pub(crate) fn segment_of(&self, index: LogIndex) -> Option<(Arc<Segment>, Position)> {
        let at = self.segments.partition_point(|segment| segment.first_index <= index).checked_sub(1)?;
        Some(self.with_end(at))
    }

    fn with_end(&self, at: usize) -> (Arc<Segment>, Position) {
        (Arc::clone(&self.segments[at]), self.end_of(at))
    }

    /// Where the records of the segment number `at` end.
    pub(crate) fn end_of(&self, at: usize) -> Position {
        self.segments.get(at + 1).map_or(self.end, |next| next.start)
    }
}
