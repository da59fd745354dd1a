//! A broker inside a test's process: its time can be skipped, and it can end as by a crash. Nothing here runs in a broker of its own
//! process.

use std::io;
use std::time::Duration;

use escrowmq_common::clock::Clock;

use super::RunningBroker;
use crate::index;
use crate::latch::Failure;
use crate::terms::Stamp;

/// Between looks whether everything that a skip made due is done.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Steady time meets a wall clock of whole milliseconds, so it may lag a little behind the sum of what passed. What was to come
/// after exactly the skipped time comes all the same.
const ROUNDING: Duration = Duration::from_millis(2);

/// The differences to a broker that has a process of its own. The default is none.
#[derive(Clone, Debug, Default)]
pub struct Embedding {
    /// The machine's clock, or one that is [skipping](Clock::skipping): [`RunningBroker::skip_time`] moves that one, and brokers
    /// that are started with it later go on from there. Default the machine's.
    pub clock: Clock,
    /// The port that clients are told instead of the one that is listened at: that of a proxy in front. Default none.
    pub told_port: Option<u16>,
}

impl RunningBroker {
    /// Lets time pass at once for everything that is due by the broker's own time: check-backs, delays, timers, retries, windows,
    /// and the stamps of what is stored. Connections, leases and members that fall silent go by the machine's time, which is not
    /// skipped. Returns when what became due is done: messages are visible, and checks are on their way. Does nothing unless
    /// the broker was started with a clock that is [skipping](Clock::skipping).
    pub async fn skip_time(&self, by: Duration) {
        self.broker.clock.advance(by + ROUNDING);
        // Rounds that are woken from here on see this time or a later one.
        let upto = self.broker.time.now();
        let signals = self.broker.shard.signals();
        signals.timers.notify_one();
        signals.halves.notify_one();
        while !self.has_done(upto) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How many messages wait for their time: those with a delay or a timer, and those that a consumer gets again.
    pub fn waiting_messages(&self) -> u64 {
        self.broker.shard.counters().timers()
    }

    /// Whether nothing is left to do that was due at `upto`, or ever will be done: a store that has failed does no more.
    fn has_done(&self, upto: Stamp) -> bool {
        let shard = &self.broker.shard;
        if shard.intake().latch().is_closed() {
            return true;
        }
        let next = index::timer::next_due(shard.index(), shard.counters().timers_from());
        let has_fired = next.is_ok_and(|next| next.is_none_or(|next| next > upto));
        has_fired && self.broker.transactions.done_at() >= upto
    }

    /// Ends as `kill -9` would end it, as far as its folder tells: nothing is written any more, and what was only in memory is lost.
    /// The next start recovers. Clients that still have a connection may get answers that say so; whoever wants none cuts
    /// them off first.
    pub async fn kill(self) {
        self.broker.shard.intake().latch().close(Failure::storage("going on", io::Error::other("killed by its test")));
        // It tells the failure that was made just now.
        let _ = self.stop().await;
    }
}
