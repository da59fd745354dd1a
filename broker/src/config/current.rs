//! The settings in force, which tools may change while the broker runs.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::BrokerConfig;

/// The settings in force. Clones share them: a change is seen by all at once.
#[derive(Debug, Clone)]
pub(crate) struct CurrentConfig(Arc<ArcSwap<BrokerConfig>>);

impl CurrentConfig {
    /// The settings of a start.
    pub(crate) fn new(config: BrokerConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The settings at this moment.
    pub(crate) fn load(&self) -> Guard<Arc<BrokerConfig>> {
        self.0.load()
    }

    /// Puts other settings in force.
    pub(crate) fn replace(&self, config: Arc<BrokerConfig>) {
        self.0.store(config);
    }
}
