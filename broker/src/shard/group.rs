//! Consumer groups, as everybody reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::terms::GroupSettings;

/// All consumer groups. Apply writes, everybody reads; the truth is in the index.
#[derive(Debug, Default)]
pub struct Groups {
    by_name: DashMap<Arc<str>, Arc<GroupSettings>>,
    version: AtomicU64,
}

impl Groups {
    /// The group of this name.
    pub fn get(&self, name: &str) -> Option<Arc<GroupSettings>> {
        self.by_name.get(name).map(|group| Arc::clone(&group))
    }

    /// All groups, in no order.
    pub fn all(&self) -> Vec<Arc<GroupSettings>> {
        self.by_name.iter().map(|group| Arc::clone(&group)).collect()
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Grows with each change of any group.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(in crate::shard) fn put(&self, group: GroupSettings) {
        self.by_name.insert(Arc::from(group.name.as_str()), Arc::new(group));
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub(in crate::shard) fn remove(&self, name: &str) {
        if self.by_name.remove(name).is_some() {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }
}
