//! The view that lookups read.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;

use super::{Brokers, Changes, TopicChange, TopicRoute};

/// The published routes: any number of readers beside the one owner of the [`RouteTable`](super::RouteTable).
///
/// A lookup costs one pointer load and one short shard lock. Lists of topics walk shard by shard and so are no
/// picture of one instant; nobody needs one.
#[derive(Debug, Default)]
pub struct Routes {
    brokers: ArcSwap<Brokers>,
    topics: DashMap<Arc<str>, Arc<TopicRoute>>,
}

impl Routes {
    /// The live broker groups of this moment.
    pub fn brokers(&self) -> impl Deref<Target = Arc<Brokers>> {
        self.brokers.load()
    }

    /// One topic's entry.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicRoute>> {
        self.topics.get(name).map(|entry| Arc::clone(entry.value()))
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The names of all topics that `wanted` accepts.
    pub fn topic_names(&self, mut wanted: impl FnMut(&TopicRoute) -> bool) -> Vec<Arc<str>> {
        self.topics.iter().filter(|entry| wanted(entry.value())).map(|entry| Arc::clone(entry.key())).collect()
    }

    /// Makes what the table decided visible. Broker groups go first: a dead broker disappears from every
    /// topic's answer with one pointer store, before its topics' entries are visited one by one.
    pub fn publish(&self, changes: &mut Changes) {
        if let Some(brokers) = changes.brokers.take() {
            self.brokers.store(brokers);
        }
        for change in changes.topics.drain(..) {
            match change {
                TopicChange::Put(route) => {
                    self.topics.insert(Arc::clone(route.name()), route);
                }
                TopicChange::Remove(name) => {
                    self.topics.remove(&*name);
                }
            }
        }
    }
}
