//! Delivery: pulls find messages or wait for them, and the offsets of groups are kept.
//!
//! ```text
//!  pull -> place (offset against the queue's ends) -> entries that the filter wants -> units -> connection
//!            |  nothing yet                              |  bytes not in memory
//!            v                                           v
//!          holds <-- arrivals, deadline, close         cold readers (a few at a time)
//! ```
//!
//! Promises: messages of a queue are answered in order and without gaps; a corrupt one is an error, never skipped; a
//! held pull is answered once, when something for it arrives or its time is over, and costs nothing in between; reads
//! from memory never wait for reads from files; a group's offset never goes back unless somebody resets it.
//!
//! Left to others: whether the request is allowed (`server`), the bytes (`shard`), the members of a group
//! (`client_registry`), retries and dead letters (`server::send_back`).

mod cold;
mod helpers;
mod hold;
mod hold_table;
mod offsets;
mod place;
mod pull;

use std::sync::Arc;

use escrowmq_common::clock::Clock;
use escrowmq_common::task::{Shutdown, Tasks};

pub(crate) use cold::ColdReaders;
pub(crate) use helpers::{Helpers, helper_count};
pub(crate) use hold::Holds;
pub(crate) use offsets::{CommitRefusal, Offsets};
pub(crate) use pull::{Ask, Pull, Wants};

use crate::config::CurrentConfig;
use crate::metrics::Metrics;
use crate::raft::Office;
use crate::shard::Shard;
use crate::stats::Stats;

/// Held pulls, consumer offsets, helpers, readers of files. One per broker.
pub(crate) struct Delivery {
    /// Pulls that wait for a message.
    pub holds: Holds,
    /// How far groups have come.
    pub offsets: Arc<Offsets>,
    /// Threads that take pulls of old messages off busy ones.
    pub helpers: Helpers,
    /// Readers of files for pulls.
    pub cold: ColdReaders,
    shard: Shard,
    config: CurrentConfig,
    metrics: Arc<Metrics>,
    stats: Arc<Stats>,
    clock: Clock,
    tasks: Tasks,
}

impl Delivery {
    /// Nothing is held and nothing is known that is not stored.
    pub(crate) fn new(
        shard: Shard,
        office: &Arc<Office>,
        config: CurrentConfig,
        metrics: Arc<Metrics>,
        stats: Arc<Stats>,
        clock: Clock,
        tasks: Tasks,
    ) -> Self {
        Self {
            holds: Holds::default(),
            offsets: Arc::new(Offsets::new(Arc::clone(office))),
            helpers: Helpers::default(),
            cold: ColdReaders::default(),
            shard,
            config,
            metrics,
            stats,
            clock,
            tasks,
        }
    }

    /// Writes all offsets that are only in memory.
    pub(crate) async fn flush_offsets(&self) {
        if let Err(error) = self.offsets.flush(&self.shard).await {
            tracing::warn!(%error, "consumer offsets of the last second are not stored; messages will come again");
        }
    }

    /// Answers held pulls and stores offsets until the broker stops.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let keeper = Arc::clone(&self);
        let stop = shutdown.clone();
        self.tasks.spawn("consumer offsets", async move {
            keeper.offsets.run(&keeper.shard, stop).await;
        });
        hold::run(self, shutdown).await;
    }
}
