//! The settings in force, which tools may change while the broker runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::{Mutex, MutexGuard};

use super::BrokerConfig;

/// The settings in force: a broker's own, and over them those that the log of its group has. Clones share them: a change is seen
/// by all at once.
#[derive(Debug, Clone)]
pub(crate) struct CurrentConfig(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    in_force: ArcSwap<BrokerConfig>,
    parts: Mutex<Parts>,
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Parts {
    own: Arc<BrokerConfig>,
    group: BTreeMap<String, String>,
    differing: Vec<String>,
}

impl CurrentConfig {
    /// The settings of a start.
    pub(crate) fn new(config: BrokerConfig) -> Self {
        let own = Arc::new(config);
        let in_force = ArcSwap::from(Arc::clone(&own));
        let parts = Parts { own, group: BTreeMap::new(), differing: Vec::new() };
        Self(Arc::new(Inner { in_force, parts: Mutex::new(parts), turn: Mutex::default() }))
    }

    /// The settings at this moment.
    pub(crate) fn load(&self) -> Guard<Arc<BrokerConfig>> {
        self.0.in_force.load()
    }

    /// The broker's own settings: those of its file, and what tools have changed there.
    pub(crate) fn own(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.0.parts.lock().own)
    }

    /// Changes come one after the other: each starts from the settings that the one before left. Held by whoever makes one.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock()
    }

    /// Puts other settings of the broker's own in force.
    pub(crate) fn replace(&self, own: Arc<BrokerConfig>) {
        let mut parts = self.0.parts.lock();
        parts.own = own;
        self.put_in_force(&mut parts);
    }

    /// Puts the settings of the group in force, as `read` gives them; says whether they are others than before. Read and put in
    /// one step: of two readers the slower one could put older ones in force.
    pub(crate) fn follow(&self, read: impl FnOnce() -> BTreeMap<String, String>) -> bool {
        let mut parts = self.0.parts.lock();
        let group = read();
        let is_news = parts.group != group;
        if is_news {
            parts.group = group;
            self.put_in_force(&mut parts);
        }
        is_news
    }

    fn put_in_force(&self, parts: &mut Parts) {
        if parts.group.is_empty() {
            return self.0.in_force.store(Arc::clone(&parts.own));
        }
        let (in_force, impossible) = parts.own.under(&parts.group);
        let mut differing = parts.own.unlike(&parts.group);
        // A default that nobody wrote down contradicts nothing.
        differing.retain(|key| impossible.contains(key) || parts.own.named.contains(key.as_str()));
        if !impossible.is_empty() {
            // Ending this member would cost the group a voter, and mend nothing.
            tracing::error!(
                keys = impossible.join(","),
                "settings of the group that this member cannot take: it has its own until the group's, or its file, is changed"
            );
        }
        if !differing.is_empty() && differing != parts.differing {
            let keys = differing.join(",");
            tracing::warn!(keys, "the settings of this member's file differ from those of the group, which count");
        }
        parts.differing = differing;
        self.0.in_force.store(Arc::new(in_force));
    }

    /// The keys of the group to which the broker's own file, environment or flags give another value, and those whose value of the
    /// group it cannot take.
    pub(crate) fn differing(&self) -> Vec<String> {
        self.0.parts.lock().differing.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_groups_settings_are_over_the_own_ones_and_what_a_file_says_otherwise_is_named() {
        let loaded =
            BrokerConfig::load(None, [], pairs(&[("transactionCheckMax", "15"), ("dLegerGroup", "g")])).unwrap();
        let config = CurrentConfig::new(loaded.config);
        let group = pairs(&[("transactionCheckMax", "7"), ("traceOn", "false")]);
        assert!(config.follow(|| group.clone()));
        assert!(!config.follow(|| group.clone()), "no news");
        assert_eq!((config.load().transaction_check_max, config.load().trace_on), (7, false));
        assert_eq!(config.differing(), ["transactionCheckMax"], "a default contradicts nothing");
        let own = BrokerConfig { max_held_pulls: 5, ..BrokerConfig::clone(&config.own()) };
        config.replace(Arc::new(own));
        assert_eq!((config.load().transaction_check_max, config.load().max_held_pulls), (7, 5));
        assert_eq!((config.own().transaction_check_max, config.own().max_held_pulls), (15, 5));
    }
}
