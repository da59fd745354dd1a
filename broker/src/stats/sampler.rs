//! The task that takes samples of the counts.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::task::Shutdown;

use super::window::STEP;
use super::{Stats, Totals};
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::steady_clock::SteadyClock;

/// Takes samples every ten seconds.
pub(crate) struct Sampler {
    /// Where the samples go.
    pub stats: Arc<Stats>,
    /// The topics, with what entered them.
    pub shard: Shard,
    /// The counts of the whole broker.
    pub metrics: Arc<Metrics>,
    /// The time of the samples.
    pub time: Arc<SteadyClock>,
}

impl Sampler {
    /// Takes samples until the broker stops.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(Duration::from_millis(STEP));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {
                    let topics = self.shard.topics().all();
                    self.stats.tick(self.time.now(), Totals::of(&self.metrics), &topics);
                }
            }
        }
    }
}
