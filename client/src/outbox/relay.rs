//! The relay, as its user sees it: settings, statistics, start and end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use escrowmq_common::task::{Shutdown, Tasks};
use tokio::sync::Notify;

use super::lease::{Keeper, Leases, Owned};
use super::rows::Rows;
use super::worker::{Counters, Settings, Worker};
use crate::error::StartError;
use crate::producer::Producer;

/// The fate of a key's other messages when one of them has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailed {
    /// They wait, as [`OutboxState::Held`](crate::OutboxState::Held), until a person has requeued or discarded the failed one.
    Hold,
    /// They are sent. The failed one comes after them, if ever.
    Pass,
}

/// Collects the settings of a [`Relay`]. Made by the `relay` of an outbox.
#[must_use = "a builder does nothing until `start`"]
pub struct RelayBuilder {
    settings: Settings,
    begin: Box<dyn FnOnce(Settings) -> Relay + Send + Sync>,
}

impl fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RelayBuilder {
    pub(super) fn new(begin: impl FnOnce(Settings) -> Relay + Send + Sync + 'static) -> Self {
        let settings = Settings {
            max_attempts: 3,
            on_failed: OnFailed::Hold,
            keep_sent: Duration::ZERO,
            alarm_after: Duration::from_secs(60),
            lease: Duration::from_secs(15),
        };
        RelayBuilder { settings, begin: Box::new(begin) }
    }

    /// How often a message may be refused for what it is (too large, illegal, no permission, no such topic) until its row has
    /// failed. Default 3. Brokers that are away, busy or without a route do not count.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = attempts;
        self
    }

    /// The fate of the other messages of a failed one's sharding key. Default [`OnFailed::Hold`].
    pub fn on_failed(mut self, on_failed: OnFailed) -> Self {
        self.settings.on_failed = on_failed;
        self
    }

    /// How long rows stay as `sent` that a broker has. Default 0: they are deleted at once.
    pub fn keep_sent(mut self, time: Duration) -> Self {
        self.settings.keep_sent = time;
        self
    }

    /// From which age of a waiting row on there is an alarm: an error in the log once a minute, and [`RelayStats::alarm`]. Default
    /// one minute.
    pub fn alarm_after(mut self, age: Duration) -> Self {
        self.settings.alarm_after = age;
        self
    }

    /// How long a relay that is gone keeps its part of the work from others. Default 15 s.
    pub fn lease(mut self, time: Duration) -> Self {
        self.settings.lease = time;
        self
    }

    /// Starts it, within a Tokio runtime. It works until [`Relay::shutdown`], whatever fails meanwhile. In tables of another version
    /// it sends nothing and says so in [`RelayStats::last_error`]; `Outbox::check_tables` tells before.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for settings that cannot be.
    pub fn start(self) -> Result<Relay, StartError> {
        let settings = &self.settings;
        if settings.max_attempts == 0 {
            return Err(StartError::setting("max_attempts", "must be at least 1"));
        }
        if settings.lease < Duration::from_secs(1) {
            return Err(StartError::setting("lease", "must be at least a second"));
        }
        Ok((self.begin)(self.settings))
    }
}

/// How a relay does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Slots that are this relay's, of 128.
    pub slots: usize,
    /// Rows that a broker took.
    pub sent: u64,
    /// Answers that refused a row for what it is.
    pub refused: u64,
    /// Rows that have failed.
    pub failed: u64,
    /// Tries that ended because brokers were away or busy, or without an answer.
    pub away: u64,
    /// Age of the oldest row that waits here; `None` if none does.
    pub oldest: Option<Duration>,
    /// Whether that is older than [`alarm_after`](RelayBuilder::alarm_after).
    pub alarm: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Sends what an outbox holds. Several may run, in one process or in many: they share the work.
#[derive(Debug)]
pub struct Relay {
    owned: Arc<Owned>,
    counters: Arc<Counters>,
    alarm_after: Duration,
    pub(super) shutdown: Shutdown,
    pub(super) tasks: Tasks,
}

impl Relay {
    pub(super) fn start(
        settings: Settings,
        producer: Producer,
        wake: Arc<Notify>,
        rows: impl Rows,
        leases: impl Leases,
    ) -> Relay {
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let (owned, counters) = (Arc::<Owned>::default(), Arc::<Counters>::default());
        let (lease, alarm_after) = (settings.lease, settings.alarm_after);
        let keeper = Keeper { leases, owned: Arc::clone(&owned), counters: Arc::clone(&counters), lease };
        let (worker, reports) = Worker::new(rows, producer, settings, &owned, &counters, &tasks);
        let stop = shutdown.clone();
        tasks.spawn("outbox relay", async move {
            let leases = Shutdown::new();
            let work = async {
                worker.run(reports, &wake, &stop).await;
                leases.cancel();
            };
            tokio::join!(work, keeper.run(&leases));
            keeper.leave().await;
        });
        Relay { owned, counters, alarm_after, shutdown, tasks }
    }

    /// How it does now.
    pub fn stats(&self) -> RelayStats {
        let counters = &*self.counters;
        let oldest = counters.oldest();
        RelayStats {
            slots: self.owned.count(),
            sent: counters.sent.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            away: counters.away.load(Ordering::Relaxed),
            oldest,
            alarm: oldest.is_some_and(|age| age > self.alarm_after),
            last_error: counters.last_error.lock().clone(),
        }
    }

    /// Reads no more, waits for what is on its way, and leaves the rest to others.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
