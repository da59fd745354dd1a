//! Entries of queues that were read from files ahead of who reads them.
//!
//! A look into the index's files costs more than the entries that one pull takes, and who reads old messages takes the next
//! ones next. Entries never change; what a trim removes lies below the queue's first offset, where nobody looks.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::index::QueueEntry;
use crate::terms::{QueueId, QueueOffset};

/// Entries that are read ahead.
pub(in crate::shard) const AHEAD: usize = 256;
/// Queues of which entries are kept; those with the same number but for a multiple of this take turns.
const SLOTS: u32 = 64;

/// The entries that were read ahead. About a megabyte at most.
pub(in crate::shard) struct ReadAhead {
    slots: [Mutex<Slot>; SLOTS as usize],
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Mutex::default()) }
    }
}

#[derive(Default)]
struct Slot {
    queue: Option<QueueId>,
    entries: VecDeque<QueueEntry>,
}

impl ReadAhead {
    /// Takes the entries of a queue that begin with this offset; empty if there are none.
    pub(in crate::shard) fn take(&self, queue: QueueId, from: QueueOffset) -> VecDeque<QueueEntry> {
        let mut slot = self.slot(queue).lock();
        let is_next = slot.queue == Some(queue) && slot.entries.front().is_some_and(|entry| entry.offset == from);
        if is_next { std::mem::take(&mut slot.entries) } else { VecDeque::new() }
    }

    /// Keeps entries of a queue, without gaps, for whoever wants the first of them.
    pub(in crate::shard) fn keep(&self, queue: QueueId, entries: VecDeque<QueueEntry>) {
        *self.slot(queue).lock() = Slot { queue: Some(queue), entries };
    }

    fn slot(&self, queue: QueueId) -> &Mutex<Slot> {
        &self.slots[(queue.0 % SLOTS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::EntryFlags;
    use crate::terms::Stamp;
    use crate::terms::{HalfId, Position};

    fn entries(range: std::ops::Range<u64>) -> VecDeque<QueueEntry> {
        let entry = |offset| QueueEntry {
            offset: QueueOffset(offset),
            position: Position(offset),
            length: 1,
            tag_hash: 0,
            store_time: Stamp::ZERO,
            flags: EntryFlags::PLAIN,
            half: HalfId(offset),
        };
        range.map(entry).collect()
    }

    #[test]
    fn only_who_comes_next_gets_them_and_once() {
        let ahead = ReadAhead::default();
        ahead.keep(QueueId(3), entries(10..20));
        assert!(
            ahead.take(QueueId(3), QueueOffset(11)).is_empty()
                && ahead.take(QueueId(3 + SLOTS), QueueOffset(10)).is_empty()
        );
        assert_eq!(ahead.take(QueueId(3), QueueOffset(10)), entries(10..20));
        assert!(ahead.take(QueueId(3), QueueOffset(10)).is_empty());
        ahead.keep(QueueId(3), entries(20..30));
        ahead.keep(QueueId(3 + SLOTS), entries(0..1));
        assert!(ahead.take(QueueId(3), QueueOffset(20)).is_empty(), "another queue has the place");
    }
}
