//! Producer groups with half messages, as everybody reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::index::ProducerRow;
use crate::terms::Stamp;

/// A producer group that has, or lately had, undecided halves. Written by apply alone.
#[derive(Debug)]
pub struct ProducerGroup {
    /// Its number, which stands for it in keys.
    pub id: u32,
    /// Its name.
    pub name: Arc<str>,
    open: AtomicU64,
    parked: AtomicU64,
    /// Those that are further halves of their transactions, open and parked.
    further: [AtomicU64; 2],
    used_at: AtomicU64,
}

impl ProducerGroup {
    /// A group as it was stored.
    pub(in crate::shard) fn of_row(row: &ProducerRow) -> Self {
        Self {
            id: row.id,
            name: row.name.as_str().into(),
            open: AtomicU64::new(row.open),
            parked: AtomicU64::new(row.parked),
            further: row.further.map(AtomicU64::new),
            used_at: AtomicU64::new(row.used_at.get()),
        }
    }

    /// The group as it is stored.
    pub(in crate::shard) fn row(&self) -> ProducerRow {
        let further = [&self.further[0], &self.further[1]].map(|count| count.load(Ordering::Relaxed));
        let (open, parked, used_at) = (self.open(), self.parked(), self.used_at());
        ProducerRow { id: self.id, open, parked, further, used_at, name: self.name.to_string() }
    }

    /// Undecided halves that are not parked.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Parked halves.
    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    /// Undecided transactions, open or parked, each once, however many halves it has.
    pub fn transactions(&self, parked: bool) -> u64 {
        let halves = if parked { self.parked() } else { self.open() };
        halves.saturating_sub(self.further[usize::from(parked)].load(Ordering::Relaxed))
    }

    /// When its halves changed last.
    pub fn used_at(&self) -> Stamp {
        Stamp(self.used_at.load(Ordering::Relaxed))
    }

    /// A half of this group goes from one state to another: `true` is parked, `None` is not undecided. `is_further`: it is
    /// not the first one of its transaction. Says whether the counts hold: none falls below 0.
    #[must_use]
    pub(in crate::shard) fn count(&self, old: Option<bool>, new: Option<bool>, is_further: bool, now: Stamp) -> bool {
        // Apply alone writes, so reading before writing is no race.
        let change = |count: &AtomicU64, by: i64| {
            let after = count.load(Ordering::Relaxed).checked_add_signed(by);
            count.store(after.unwrap_or_default(), Ordering::Relaxed);
            after.is_some()
        };
        let mut holds = true;
        for (state, by) in [(new, 1), (old, -1)] {
            let Some(parked) = state else { continue };
            holds &= change(if parked { &self.parked } else { &self.open }, by);
            holds &= !is_further || change(&self.further[usize::from(parked)], by);
        }
        self.used_at.store(now.get(), Ordering::Relaxed);
        holds
    }
}

/// All of them, by name and by number.
#[derive(Debug, Default)]
pub struct Producers {
    by_name: DashMap<Arc<str>, Arc<ProducerGroup>>,
    by_id: DashMap<u32, Arc<ProducerGroup>>,
}

impl Producers {
    /// A group, if it has or lately had halves.
    pub fn get(&self, name: &str) -> Option<Arc<ProducerGroup>> {
        self.by_name.get(name).map(|group| Arc::clone(&group))
    }

    /// A group by its number.
    pub fn by_id(&self, id: u32) -> Option<Arc<ProducerGroup>> {
        self.by_id.get(&id).map(|group| Arc::clone(&group))
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<ProducerGroup>> {
        let mut all: Vec<_> = self.by_id.iter().map(|group| Arc::clone(&group)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(in crate::shard) fn put(&self, row: &ProducerRow) -> Arc<ProducerGroup> {
        let group = Arc::new(ProducerGroup::of_row(row));
        self.by_name.insert(Arc::clone(&group.name), Arc::clone(&group));
        self.by_id.insert(group.id, Arc::clone(&group));
        group
    }

    pub(in crate::shard) fn remove(&self, group: &ProducerGroup) {
        self.by_name.remove(&group.name);
        self.by_id.remove(&group.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_counts_once_however_many_halves_it_has() {
        let row =
            ProducerRow { id: 1, open: 0, parked: 0, further: [0, 0], used_at: Stamp::ZERO, name: "G".to_owned() };
        let group = ProducerGroup::of_row(&row);
        for is_further in [false, true, true] {
            assert!(group.count(None, Some(false), is_further, Stamp(1)));
        }
        assert!(group.count(None, Some(false), false, Stamp(1)));
        assert_eq!((group.open(), group.transactions(false), group.transactions(true)), (4, 2, 0));
        for is_further in [false, true, true] {
            assert!(group.count(Some(false), Some(true), is_further, Stamp(2)));
        }
        assert_eq!((group.transactions(false), group.transactions(true), group.row().further), (1, 1, [0, 2]));
        let again = ProducerGroup::of_row(&group.row());
        assert_eq!((again.transactions(false), again.transactions(true)), (1, 1));
        for is_further in [false, true, true] {
            assert!(group.count(Some(true), None, is_further, Stamp(3)));
        }
        assert_eq!((group.transactions(false), group.transactions(true)), (1, 0));
    }
}
