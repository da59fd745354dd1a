//! One topic's entry: its queues at each broker group.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The queues of one topic at one broker group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    /// The group's name.
    pub group: Arc<str>,
    /// Queues that can be read, numbered from 0.
    pub read: i32,
    /// Queues that can be written, numbered from 0.
    pub write: i32,
    /// Bits of [`permission`](super::permission).
    pub perm: i32,
    /// Unit flags of the topic.
    pub sys_flag: i32,
}

/// How a static topic's logical queues are spread over one broker group; carried from brokers to clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueMapping {
    /// The topic.
    pub topic: String,
    /// The scope that the mapping belongs to.
    pub scope: Option<String>,
    /// Logical queues in all groups together.
    pub total_queues: i32,
    /// The broker group.
    pub group: String,
    /// Grows with each remapping.
    pub epoch: i64,
    /// Set while a remapping is under way.
    pub dirty: bool,
    /// Logical queue number to the group's own queue number.
    pub current: BTreeMap<i32, i32>,
}

/// The table's knowledge of one topic. Shared with readers, hence replaced and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRoute {
    name: Arc<str>,
    /// At most one entry per group, ordered by group name. Topics live at few groups: a list beats a map.
    queues: Vec<Queues>,
    /// By group; empty but for static topics.
    mappings: BTreeMap<Arc<str>, QueueMapping>,
}

impl TopicRoute {
    pub(super) fn new(name: Arc<str>) -> Self {
        TopicRoute { name, queues: Vec::with_capacity(1), mappings: BTreeMap::new() }
    }

    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its queues, at most one entry per broker group, ordered by the group's name.
    pub fn queues(&self) -> &[Queues] {
        &self.queues
    }

    /// Its queues at one broker group.
    pub fn at(&self, group: &str) -> Option<&Queues> {
        self.place(group).ok().map(|at| &self.queues[at])
    }

    /// The mapping of a static topic by broker group; empty for others.
    pub fn mappings(&self) -> impl Iterator<Item = (&Arc<str>, &QueueMapping)> {
        self.mappings.iter()
    }

    pub(super) fn put(&mut self, queues: Queues) {
        match self.place(&queues.group) {
            Ok(at) => self.queues[at] = queues,
            Err(at) => {
                // A list that grows by itself makes room for three more, in each of millions.
                self.queues.reserve_exact(1);
                self.queues.insert(at, queues);
            }
        }
    }

    pub(super) fn put_mapping(&mut self, group: Arc<str>, mapping: QueueMapping) {
        self.mappings.insert(group, mapping);
    }

    /// Forgets the group; true if there was something to forget.
    pub(super) fn remove(&mut self, group: &str) -> bool {
        let mapped = self.mappings.remove(group).is_some();
        let Ok(at) = self.place(group) else {
            return mapped;
        };
        self.queues.remove(at);
        true
    }

    pub(super) fn mapping(&self, group: &str) -> Option<&QueueMapping> {
        self.mappings.get(group)
    }

    fn place(&self, group: &str) -> Result<usize, usize> {
        self.queues.binary_search_by(|q| (*q.group).cmp(group))
    }
}
