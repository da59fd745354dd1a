//! Rows in memory: what no flush has taken yet.
//!
//! RocksDB sees a row when it goes to files and not before, so a write costs an insertion into a map, and a row that
//! comes and goes between two flushes never reaches RocksDB: of a half message that is decided soon no row remains, and
//! a queue's page grows instead of being followed by another.
//!
//! A [`Layer`] hides the rows below it: older layers, then the files. Promises: a batch becomes visible whole or not at
//! all. Leaves to others: who reads which layers in which order (`store`, `cursor`), and when one goes to files.

use crate::terms::to_u8;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use parking_lot::RwLock;

/// A page that has grown to this size is followed by another: a reader that wants its last entry passes the others.
const PAGE_BYTES: usize = 4096;
/// The memory of a row beside its key and its value, about.
const ROW_BYTES: usize = 96;

/// A key. The short ones, which are most, lie in the map itself.
#[derive(Debug, Clone)]
pub(super) enum Key {
    Short { length: u8, bytes: [u8; Key::SHORT_BYTES] },
    Long(Box<[u8]>),
}

impl Key {
    /// Two numbers after the table's letter, and a little more.
    const SHORT_BYTES: usize = 22;

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        if key.len() > Self::SHORT_BYTES {
            return Self::Long(key.into());
        }
        let mut bytes = [0; Self::SHORT_BYTES];
        bytes[..key.len()].copy_from_slice(key);
        Self::Short { length: to_u8(key.len()), bytes }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

/// One change of a batch.
#[derive(Debug)]
pub(super) enum Change {
    /// Writes a row. `is_new`: no row with this key can be seen, so that removing it from this layer removes it for good.
    Put { key: Key, value: Vec<u8>, is_new: bool },
    /// Adds to a page, without the `head` first bytes of the value, or begins one. A page below has the same `prefix` first
    /// bytes in its key and ends where this one begins.
    Append { key: Key, prefix: usize, value: Vec<u8>, head: usize },
    /// Removes a row, if there is one.
    Delete { key: Key },
    /// Removes all rows from the first key up to the second one, exclusive.
    DeleteRange { from: Key, to: Key },
}

/// The state of a key in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// The row is this.
    Row(Vec<u8>),
    /// There is no such row, whatever lies below.
    Removed,
}

/// A place of the map.
#[derive(Debug)]
enum Slot {
    Row { value: Vec<u8>, is_new: bool },
    Removed,
}

/// Changes in memory, by key.
#[derive(Debug, Default)]
pub(super) struct Layer {
    rows: RwLock<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    slots: BTreeMap<Key, Slot>,
    /// Ranges of which nothing below is seen, apart from each other: their ends by their beginnings. Rows of this layer
    /// within them were written later.
    removed: BTreeMap<Key, Key>,
    bytes: usize,
}

impl Layer {
    /// Takes the changes, in their order.
    pub(super) fn write(&self, changes: Vec<Change>) {
        let mut rows = self.rows.write();
        for change in changes {
            rows.change(change);
        }
    }

    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.rows.read().bytes
    }

    /// The state of a key; `None` if the layers below decide.
    pub(super) fn get(&self, key: &[u8]) -> Option<Known> {
        let rows = self.rows.read();
        match rows.slots.get(key) {
            Some(slot) => Some(slot.known()),
            None => rows.is_removed(key).then_some(Known::Removed),
        }
    }

    /// Whether a range was removed that held this key in the layers below.
    pub(super) fn has_removed_around(&self, key: &[u8]) -> bool {
        self.rows.read().is_removed(key)
    }

    /// The first key within the bounds that this layer knows something of.
    pub(super) fn first(&self, from: Bound<&[u8]>, to: &[u8]) -> Option<(Key, Known)> {
        if let Bound::Included(from) | Bound::Excluded(from) = from
            && from >= to
        {
            return None;
        }
        let rows = self.rows.read();
        let (key, slot) = rows.slots.range::<[u8], _>((from, Bound::Excluded(to))).next()?;
        Some((key.clone(), slot.known()))
    }

    /// The last key within the bounds that this layer knows something of.
    pub(super) fn last(&self, from: &[u8], to: Bound<&[u8]>) -> Option<Key> {
        match to {
            Bound::Included(to) if to < from => return None,
            Bound::Excluded(to) if to <= from => return None,
            _ => {}
        }
        let rows = self.rows.read();
        rows.slots.range::<[u8], _>((Bound::Included(from), to)).next_back().map(|(key, _)| key.clone())
    }

    /// Calls `each` with the rows from the last one at or below `key` on, below `to`, until it says stop. Answers whether
    /// there is such a row, not below `from`; if not, `each` was not called.
    ///
    /// `each` runs while nothing can be written: it must be short.
    pub(super) fn scan_from(
        &self,
        from: &[u8],
        key: &[u8],
        to: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> bool {
        let rows = self.rows.read();
        let Some((start, Slot::Row { .. })) =
            rows.slots.range::<[u8], _>((Bound::Included(from), Bound::Included(key))).next_back()
        else {
            return false;
        };
        for (key, slot) in rows.slots.range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Excluded(to))) {
            if let Slot::Row { value, .. } = slot
                && !each(key.as_slice(), value)
            {
                break;
            }
        }
        true
    }

    /// Calls `each` with the rows from `from` on, below `to`, until it says stop. `each` must be short, as in
    /// [`scan_from`](Self::scan_from).
    pub(super) fn for_range(&self, from: &[u8], to: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> bool) {
        let rows = self.rows.read();
        for (key, slot) in rows.slots.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if let Slot::Row { value, .. } = slot
                && !each(key.as_slice(), value)
            {
                break;
            }
        }
    }

    /// Calls `each` with what it takes to make the layers below say the same, in an order in which it can be done.
    pub(super) fn for_all(&self, mut each: impl FnMut(Spilled<'_>)) {
        let rows = self.rows.read();
        for (from, to) in &rows.removed {
            each(Spilled::RemovedRange(from.as_slice(), to.as_slice()));
        }
        for (key, slot) in &rows.slots {
            each(match slot {
                Slot::Row { value, .. } => Spilled::Row(key.as_slice(), value),
                Slot::Removed => Spilled::Removed(key.as_slice()),
            });
        }
    }
}

/// One step of [`Layer::for_all`].
pub(super) enum Spilled<'a> {
    Row(&'a [u8], &'a [u8]),
    Removed(&'a [u8]),
    RemovedRange(&'a [u8], &'a [u8]),
}

impl Slot {
    fn known(&self) -> Known {
        match self {
            Self::Row { value, .. } => Known::Row(value.clone()),
            Self::Removed => Known::Removed,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Row { value, .. } => value.len(),
            Self::Removed => 0,
        }
    }
}

impl Rows {
    fn change(&mut self, change: Change) {
        match change {
            Change::Put { key, value, is_new } => self.put(key, value, is_new),
            Change::Append { key, prefix, value, head } => self.append(key, prefix, value, head),
            Change::Delete { key } => self.delete(key),
            Change::DeleteRange { from, to } => self.delete_range(from, to),
        }
    }

    fn put(&mut self, key: Key, value: Vec<u8>, is_new: bool) {
        self.bytes += value.len();
        match self.slots.entry(key) {
            Entry::Vacant(place) => {
                self.bytes += place.key().as_slice().len() + ROW_BYTES;
                place.insert(Slot::Row { value, is_new });
            }
            Entry::Occupied(mut place) => {
                self.bytes -= place.get().value_bytes();
                // A row below may have been removed here.
                let is_new = matches!(place.get(), Slot::Row { is_new: true, .. });
                place.insert(Slot::Row { value, is_new });
            }
        }
    }

    fn append(&mut self, key: Key, prefix: usize, value: Vec<u8>, head: usize) {
        let below = (Bound::Unbounded, Bound::Excluded(key.as_slice()));
        if let Some((before, Slot::Row { value: page, .. })) = self.slots.range_mut::<[u8], _>(below).next_back()
            && before.as_slice().get(..prefix) == key.as_slice().get(..prefix)
            && page.len() + value.len() <= PAGE_BYTES
        {
            page.extend_from_slice(&value[head..]);
            self.bytes += value.len() - head;
            return;
        }
        self.put(key, value, true);
    }

    fn delete(&mut self, key: Key) {
        match self.slots.entry(key) {
            Entry::Vacant(place) => {
                self.bytes += place.key().as_slice().len() + ROW_BYTES;
                place.insert(Slot::Removed);
            }
            Entry::Occupied(mut place) => {
                self.bytes -= place.get().value_bytes();
                if matches!(place.get(), Slot::Row { is_new: true, .. }) {
                    self.bytes -= place.key().as_slice().len() + ROW_BYTES;
                    place.remove();
                } else {
                    place.insert(Slot::Removed);
                }
            }
        }
    }

    fn delete_range(&mut self, mut from: Key, mut to: Key) {
        if from >= to {
            return;
        }
        let within = (Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
        let gone: Vec<Key> = self.slots.range::<[u8], _>(within).map(|(key, _)| key.clone()).collect();
        for key in gone {
            let slot = self.slots.remove(&key).expect("it was found just now");
            self.bytes -= key.as_slice().len() + ROW_BYTES + slot.value_bytes();
        }
        if let Some((before, end)) = self.removed.range(..=from.clone()).next_back()
            && *end >= from
        {
            from = before.clone();
        }
        while let Some((start, end)) = self.removed.range(from.clone()..=to.clone()).next() {
            let start = start.clone();
            to = to.max(end.clone());
            self.removed.remove(&start);
            self.bytes -= ROW_BYTES;
        }
        self.bytes += ROW_BYTES;
        self.removed.insert(from, to);
    }

    fn is_removed(&self, key: &[u8]) -> bool {
        let before = (Bound::Unbounded, Bound::Included(key));
        self.removed.range::<[u8], _>(before).next_back().is_some_and(|(_, end)| key < end.as_slice())
    }
}
