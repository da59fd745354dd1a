//! Producer groups with half messages, as everybody reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::index::ProducerRow;

/// A producer group that has, or lately had, undecided halves. Written by apply alone.
#[derive(Debug)]
pub struct ProducerGroup {
    /// Its number, which stands for it in keys.
    pub id: u32,
    /// Its name.
    pub name: Arc<str>,
    open: AtomicU64,
    parked: AtomicU64,
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
            used_at: AtomicU64::new(row.used_at),
        }
    }

    /// The group as it is stored.
    pub(in crate::shard) fn row(&self) -> ProducerRow {
        let (open, parked, used_at) = (self.open(), self.parked(), self.used_at());
        ProducerRow { id: self.id, open, parked, used_at, name: self.name.to_string() }
    }

    /// Undecided halves that are not parked.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Parked halves.
    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    /// When its halves changed last, in milliseconds since 1970.
    pub fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// A half of this group goes from one state to another: `true` is parked, `None` is not undecided.
    pub(in crate::shard) fn count(&self, old: Option<bool>, new: Option<bool>, now: u64) {
        let of = |parked: bool| if parked { &self.parked } else { &self.open };
        if let Some(parked) = new {
            of(parked).fetch_add(1, Ordering::Relaxed);
        }
        if let Some(parked) = old {
            of(parked).fetch_sub(1, Ordering::Relaxed);
        }
        self.used_at.store(now, Ordering::Relaxed);
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
