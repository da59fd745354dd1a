//! How long commands spend on their way, and how long flushes of the index take.

use std::time::Duration;

use escrowmq_common::clock::Clock;

use crate::metrics::Histogram;

/// Where the time of commands goes. They travel in batches, so a batch is timed as a whole, by a handful of looks at the clock, and
/// counts once for each of its commands.
///
/// ```text
/// first command of the batch comes -- queued --> proposed -- flush --> committed -- apply --> readable -- answer --> answered
/// ```
#[derive(Debug)]
pub struct Durations {
    clock: Clock,
    /// Until the batch was proposed: it waited for its turn and for room in the log.
    pub queued: Histogram,
    /// From then until it was committed: on the device here, and with other members on those of a majority.
    pub flush: Histogram,
    /// From then until readers saw what it does, and its answers began.
    pub apply: Histogram,
    /// Giving its answers to the connections that wait.
    pub answer: Histogram,
    /// Writing set-aside rows to the index's files.
    pub index_flush: Histogram,
}

impl Durations {
    pub(in crate::shard) fn new(clock: Clock) -> Self {
        let new = Histogram::default;
        Self { clock, queued: new(), flush: new(), apply: new(), answer: new(), index_flush: new() }
    }

    /// Now, by the clock that all of them are measured with.
    pub(in crate::shard) fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}
