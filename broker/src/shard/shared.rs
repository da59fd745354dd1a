//! The parts of a shard that handlers, runners and apply share.

use std::sync::Arc;

use super::agreed::Agreement;
use super::ahead::ReadAhead;
use super::awaiting::Awaiting;
use super::counters::{Counters, Signals};
use super::durations::Durations;
use super::group::Groups;
use super::intake::Intake;
use super::lost::Lost;
use super::producers::Producers;
use super::quarantine::Quarantine;
use super::topic::Topics;
use crate::executor::Executor;
use crate::index::Index;
use crate::log::Log;

/// See the module.
pub(in crate::shard) struct Shared {
    pub(in crate::shard) executor: Executor,
    pub(in crate::shard) intake: Arc<Intake>,
    pub(in crate::shard) awaiting: Arc<Awaiting>,
    pub(in crate::shard) topics: Topics,
    pub(in crate::shard) groups: Groups,
    pub(in crate::shard) agreement: Agreement,
    pub(in crate::shard) producers: Producers,
    pub(in crate::shard) lost: Lost,
    pub(in crate::shard) index: Index,
    pub(in crate::shard) log: Log,
    /// Entries of the log that are not applied.
    pub(in crate::shard) quarantine: Quarantine,
    pub(in crate::shard) ahead: ReadAhead,
    pub(in crate::shard) counters: Counters,
    pub(in crate::shard) signals: Signals,
    pub(in crate::shard) durations: Arc<Durations>,
}

impl Shared {
    /// Nothing is known yet: the state machine loads it from the index.
    pub(in crate::shard) fn new(index: Index, log: Log, quarantine: Quarantine) -> Arc<Self> {
        let durations = Arc::new(Durations::new(log.clock().clone()));
        Arc::new(Self {
            executor: Executor::new(log.clock().clone(), log.latch().clone(), log.seed()),
            intake: Intake::new(log.latch(), log.clock().clone()),
            awaiting: Arc::default(),
            topics: Topics::default(),
            groups: Groups::default(),
            agreement: Agreement::default(),
            producers: Producers::default(),
            lost: Lost::default(),
            index,
            log,
            quarantine,
            ahead: ReadAhead::default(),
            counters: Counters::default(),
            signals: Signals::default(),
            durations,
        })
    }
}
