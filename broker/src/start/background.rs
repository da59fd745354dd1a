//! Which parts each task in the background gets.

use std::sync::Arc;

use escrowmq_common::remoting::Budget;
use escrowmq_common::task::Shutdown;
use tokio::runtime::Handle;

use crate::broker::Broker;
use crate::executor::Blocking;
use crate::forward::Forwarder;
use crate::monitoring::{ByName, Monitor};
use crate::raft::Office;
use crate::retention::Keeper;
use crate::schedule::{Expiry, Timers, UnusedGroups};
use crate::stats::Sampler;
use crate::storage::Storage;
use crate::transaction::runner::Runner;

/// Where they read files.
fn blocking(broker: &Broker) -> Blocking {
    Blocking::new(broker.tasks.clone(), Handle::current())
}

pub(super) fn check_backs(broker: &Broker, office: &Arc<Office>) -> Runner {
    Runner {
        shard: broker.shard.clone(),
        clients: Arc::clone(&broker.clients),
        transactions: Arc::clone(&broker.transactions),
        config: broker.config.clone(),
        time: Arc::clone(&broker.time),
        clock: broker.clock.clone(),
        office: Arc::clone(office),
        blocking: blocking(broker),
        store_host: broker.store_host,
    }
}

pub(super) fn timers(broker: &Broker) -> Timers {
    Timers {
        shard: broker.shard.clone(),
        retention: Arc::clone(&broker.retention),
        time: Arc::clone(&broker.time),
        blocking: blocking(broker),
    }
}

pub(super) fn expiry(broker: &Broker) -> Expiry {
    Expiry { shard: broker.shard.clone(), config: broker.config.clone(), time: Arc::clone(&broker.time) }
}

pub(crate) fn unused_groups(broker: &Broker) -> UnusedGroups {
    UnusedGroups {
        shard: broker.shard.clone(),
        clients: Arc::clone(&broker.clients),
        offsets: Arc::clone(&broker.delivery.offsets),
        config: broker.config.clone(),
        metrics: Arc::clone(&broker.metrics),
        registration: Arc::clone(&broker.registration),
        time: Arc::clone(&broker.time),
        tasks: broker.tasks.clone(),
    }
}

pub(super) fn keeper(broker: &Broker, storage: &Storage) -> Keeper {
    Keeper {
        retention: Arc::clone(&broker.retention),
        shard: broker.shard.clone(),
        config: broker.config.clone(),
        time: Arc::clone(&broker.time),
        tasks: broker.tasks.clone(),
        applier: Arc::clone(storage.applier()),
        purger: storage.purger().clone(),
    }
}

pub(super) fn sampler(broker: &Broker) -> Sampler {
    Sampler {
        stats: Arc::clone(&broker.stats),
        shard: broker.shard.clone(),
        metrics: Arc::clone(&broker.metrics),
        time: Arc::clone(&broker.time),
    }
}

pub(super) fn monitor(
    broker: &Broker,
    storage: &Storage,
    office: &Arc<Office>,
    budget: &Arc<Budget>,
    [passing, arriving]: [&Forwarder; 2],
    stopping: Shutdown,
) -> Monitor {
    Monitor {
        metrics: Arc::clone(&broker.metrics),
        request_times: Arc::clone(&broker.request_times),
        spans: broker.spans.clone(),
        shard: broker.shard.clone(),
        transactions: Arc::clone(&broker.transactions),
        backups: Arc::clone(&broker.backups),
        retention: Arc::clone(&broker.retention),
        clients: Arc::clone(&broker.clients),
        stats: Arc::clone(&broker.stats),
        by_name: ByName::new(broker.config().metrics_series_max),
        delivery: Arc::clone(&broker.delivery),
        gate: Arc::clone(&broker.gate),
        budget: Arc::clone(budget),
        config: broker.config.clone(),
        time: Arc::clone(&broker.time),
        group: broker.group.clone(),
        leadership: storage.leadership(),
        office: Arc::clone(office),
        passing: Arc::clone(passing.counts()),
        arriving: Arc::clone(arriving.counts()),
        stopping,
    }
}
