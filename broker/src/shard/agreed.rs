//! What the log says of the group itself, as everybody reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::terms::FIRST_LEVEL;

/// The settings and the feature level of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The feature level that the log may use.
    pub level: u32,
    /// The settings, by key. Those of a broker that has always been alone are in its file, and not here.
    pub settings: BTreeMap<String, String>,
}

impl Default for Agreed {
    fn default() -> Self {
        Self { level: FIRST_LEVEL, settings: BTreeMap::new() }
    }
}

/// Apply writes, everybody reads; the truth is in the index.
#[derive(Debug)]
pub(in crate::shard) struct Agreement(watch::Sender<Arc<Agreed>>);

impl Default for Agreement {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }
}

impl Agreement {
    pub(in crate::shard) fn now(&self) -> Arc<Agreed> {
        Arc::clone(&self.0.borrow())
    }

    pub(in crate::shard) fn watch(&self) -> watch::Receiver<Arc<Agreed>> {
        self.0.subscribe()
    }

    pub(in crate::shard) fn change(&self, change: impl FnOnce(&mut Agreed)) {
        self.0.send_modify(|agreed| change(Arc::make_mut(agreed)));
    }
}
