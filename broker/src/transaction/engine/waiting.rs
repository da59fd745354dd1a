//! Halves that are due and cannot be asked about, by producer group: ids alone, two to four bytes each.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringTreemap;

use crate::terms::{HalfId, Stamp};

/// Ids of halves by group, oldest first.
#[derive(Debug, Default)]
pub(in crate::transaction) struct ByGroup {
    groups: HashMap<Arc<str>, Halves>,
    count: usize,
}

/// Ids, which are positions in the log: ascending, and near each other.
#[derive(Debug, Default)]
struct Halves {
    ids: RoaringTreemap,
    /// How many they are: the set itself would count them.
    count: usize,
}

impl Halves {
    fn add(&mut self, half: HalfId) -> bool {
        let added = self.ids.insert(half.get());
        self.count += usize::from(added);
        added
    }

    fn remove(&mut self, half: HalfId) -> bool {
        let removed = self.ids.remove(half.get());
        self.count -= usize::from(removed);
        removed
    }

    fn add_all(&mut self, others: Self) {
        if self.count == 0 {
            *self = others;
        } else {
            self.ids |= others.ids;
            self.count = usize::try_from(self.ids.len()).expect("as many as fit into memory");
        }
    }
}

impl ByGroup {
    pub(in crate::transaction) fn add(&mut self, group: &str, half: HalfId) {
        if !self.groups.contains_key(group) {
            self.groups.insert(Arc::from(group), Halves::default());
        }
        let added = self.groups.get_mut(group).is_some_and(|halves| halves.add(half));
        self.count += usize::from(added);
    }

    pub(in crate::transaction) fn remove(&mut self, group: &str, half: HalfId) -> bool {
        let Some(halves) = self.groups.get_mut(group) else { return false };
        let removed = halves.remove(half);
        if halves.count == 0 {
            self.groups.remove(group);
        }
        self.count -= usize::from(removed);
        removed
    }

    #[cfg(test)]
    pub(in crate::transaction) fn contains(&self, group: &str, half: HalfId) -> bool {
        self.groups.get(group).is_some_and(|halves| halves.ids.contains(half.get()))
    }

    pub(in crate::transaction) fn first(&self, group: &str) -> Option<HalfId> {
        self.groups.get(group)?.ids.min().map(HalfId)
    }

    /// Takes the oldest half of a group.
    pub(in crate::transaction) fn pop(&mut self, group: &str) -> Option<HalfId> {
        let half = self.first(group)?;
        self.remove(group, half);
        Some(half)
    }

    /// Takes all halves of a group, without a look at any of them.
    fn take_all(&mut self, group: &str) -> Halves {
        let halves = self.groups.remove(group).unwrap_or_default();
        self.count -= halves.count;
        halves
    }

    /// Adds halves of a group. Costs nothing if it has none yet, however many they are.
    fn add_all(&mut self, group: &Arc<str>, halves: Halves) {
        if halves.count == 0 {
            return;
        }
        let known = self.groups.entry(Arc::clone(group)).or_default();
        self.count -= known.count;
        known.add_all(halves);
        self.count += known.count;
    }

    pub(in crate::transaction) fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys()
    }

    /// The oldest half of all groups.
    pub(in crate::transaction) fn oldest(&self) -> Option<HalfId> {
        self.groups.values().filter_map(|halves| halves.ids.min()).min().map(HalfId)
    }

    pub(in crate::transaction) fn len_of(&self, group: &str) -> usize {
        self.groups.get(group).map_or(0, |halves| halves.count)
    }

    pub(in crate::transaction) fn len(&self) -> usize {
        self.count
    }

    pub(in crate::transaction) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Halves whose group has no instance. Each waits until its time; halves of a group were prepared in the order of their
/// ids, so that the oldest one's time comes first and only that one's is kept.
#[derive(Debug, Default)]
pub(in crate::transaction) struct Waiting {
    halves: ByGroup,
    /// By group: no wait of it is over earlier than this. The first time of all: the oldest one must be looked at.
    over: HashMap<Arc<str>, Stamp>,
}

impl Waiting {
    /// A half waits until a time.
    pub(in crate::transaction) fn add(&mut self, group: &str, half: HalfId, until: Stamp) {
        self.halves.add(group, half);
        if self.halves.first(group) != Some(half) {
            return;
        }
        match self.over.get_mut(group) {
            Some(over) => *over = until,
            None => drop(self.over.insert(Arc::from(group), until)),
        }
    }

    pub(in crate::transaction) fn remove(&mut self, group: &str, half: HalfId) {
        let was_first = self.halves.first(group) == Some(half);
        if self.halves.remove(group, half) && was_first {
            self.oldest_went(group);
        }
    }

    /// Takes the oldest half of a group.
    fn pop(&mut self, group: &str) -> Option<HalfId> {
        let half = self.halves.pop(group)?;
        self.oldest_went(group);
        Some(half)
    }

    /// An instance of the group is there: its halves go on as there is room.
    pub(in crate::transaction) fn hold_all(&mut self, group: &Arc<str>, held: &mut ByGroup) {
        held.add_all(group, self.halves.take_all(group));
        self.over.remove(group);
    }

    /// No instance of the group is there any more: the halves that were held back wait. A look at the oldest tells until when.
    pub(in crate::transaction) fn wait_all(&mut self, group: &Arc<str>, held: &mut ByGroup) {
        let halves = held.take_all(group);
        if halves.count > 0 {
            self.halves.add_all(group, halves);
            self.over.insert(Arc::clone(group), Stamp::ZERO);
        }
    }

    /// Takes a half whose wait may be over.
    pub(in crate::transaction) fn pop_over(&mut self, now: Stamp) -> Option<HalfId> {
        let group = self.over.iter().find(|(_, over)| **over <= now).map(|(group, _)| Arc::clone(group))?;
        self.pop(&group)
    }

    /// When a wait may be over.
    pub(in crate::transaction) fn next_over(&self) -> Option<Stamp> {
        self.over.values().min().copied()
    }

    /// The times may have become others: the oldest of each group is looked at again.
    pub(in crate::transaction) fn times_changed(&mut self) {
        for over in self.over.values_mut() {
            *over = Stamp::ZERO;
        }
    }

    /// The oldest half of all groups.
    pub(in crate::transaction) fn oldest(&self) -> Option<HalfId> {
        self.halves.oldest()
    }

    #[cfg(test)]
    pub(in crate::transaction) fn contains(&self, group: &str, half: HalfId) -> bool {
        self.halves.contains(group, half)
    }

    pub(in crate::transaction) fn len_of(&self, group: &str) -> usize {
        self.halves.len_of(group)
    }

    pub(in crate::transaction) fn len(&self) -> usize {
        self.halves.len()
    }

    pub(in crate::transaction) fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    fn oldest_went(&mut self, group: &str) {
        if self.halves.first(group).is_none() {
            self.over.remove(group);
        } else if let Some(over) = self.over.get_mut(group) {
            *over = Stamp::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_each_half_once_and_gives_the_oldest_first() {
        let mut waiting = Waiting::default();
        waiting.add("g", HalfId(2), Stamp(20));
        waiting.add("g", HalfId(1), Stamp(10));
        waiting.add("g", HalfId(1), Stamp(10));
        waiting.add("h", HalfId(3), Stamp(15));
        assert_eq!((waiting.len(), waiting.len_of("g"), waiting.next_over()), (3, 2, Some(Stamp(10))));
        assert_eq!(waiting.pop("g"), Some(HalfId(1)));
        assert_eq!(waiting.next_over(), Some(Stamp::ZERO), "whose time is next is not known without its row");
        assert_eq!(waiting.pop("g"), Some(HalfId(2)));
        assert_eq!(waiting.pop("g"), None);
        assert_eq!((waiting.len(), waiting.next_over()), (1, Some(Stamp(15))));
    }

    #[test]
    fn a_wait_that_is_over_is_taken_whatever_its_group() {
        let mut waiting = Waiting::default();
        waiting.add("g", HalfId(1), Stamp(10));
        waiting.add("h", HalfId(2), Stamp(11));
        assert_eq!(waiting.pop_over(Stamp(9)), None);
        assert_eq!(waiting.pop_over(Stamp(10)), Some(HalfId(1)));
        assert_eq!(waiting.pop_over(Stamp(10)), None);
        waiting.times_changed();
        assert_eq!(waiting.pop_over(Stamp(10)), Some(HalfId(2)));
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_decided_half_waits_no_more() {
        let mut waiting = Waiting::default();
        waiting.add("g", HalfId(1), Stamp(10));
        waiting.add("g", HalfId(2), Stamp(20));
        waiting.remove("g", HalfId(7));
        waiting.remove("g", HalfId(1));
        assert_eq!((waiting.len(), waiting.next_over()), (1, Some(Stamp::ZERO)));
        waiting.remove("g", HalfId(2));
        assert_eq!((waiting.len(), waiting.next_over()), (0, None));
    }
}
