//! Settings of a barrier.

use std::time::Duration;

use sqlx::Pool;

use super::{Barrier, BarrierDatabase};
use crate::error::StartError;
use crate::limit::{TABLE_BYTES_MAX, is_table_name};

/// How long a check waits for one of the barrier's own connections. Longer than all checks that may wait for a lock before it.
pub(super) const OWN_CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// After this time unused the barrier's own connections are closed.
pub(super) const OWN_CONNECTION_IDLE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) table: String,
    pub(super) begin: Option<String>,
    pub(super) lock_wait: Duration,
    pub(super) ask_again_after: Duration,
    pub(super) begin_within: Duration,
    pub(super) keep_rolled_back: Duration,
    pub(super) sweep_after: Duration,
    pub(super) sweep_every: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            table: "escrowmq_barrier".to_owned(),
            begin: None,
            lock_wait: Duration::from_millis(250),
            ask_again_after: Duration::from_secs(3),
            begin_within: Duration::from_secs(3600),
            keep_rolled_back: Duration::from_secs(7 * 24 * 3600),
            sweep_after: Duration::from_secs(600),
            sweep_every: Duration::from_secs(60),
        }
    }
}

/// Collects the settings of a [`Barrier`]. Made by [`Barrier::builder`].
#[must_use = "a builder does nothing until `build`"]
#[derive(Debug)]
pub struct BarrierBuilder<DB: BarrierDatabase> {
    pool: Pool<DB>,
    settings: Settings,
}

impl<DB: BarrierDatabase> BarrierBuilder<DB> {
    pub(super) fn new(pool: Pool<DB>) -> BarrierBuilder<DB> {
        BarrierBuilder { pool, settings: Settings::default() }
    }

    /// The table, optionally with its schema in front. Default `escrowmq_barrier`. One table serves one cluster of brokers.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.settings.table = table.into();
        self
    }

    /// The statement by which local transactions begin, for example `BEGIN ISOLATION LEVEL SERIALIZABLE`. Default: that of the
    /// database (SQLite: `BEGIN IMMEDIATE`), and so its default isolation level. The barrier needs none in particular.
    pub fn begin_by(mut self, statement: impl Into<String>) -> Self {
        self.settings.begin = Some(statement.into());
        self
    }

    /// How long a check waits for a local transaction that is open, before it answers "in progress". Default 250 ms; MySQL
    /// counts in whole seconds.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.settings.lock_wait = wait;
        self
    }

    /// How much later the broker is to ask again after "in progress". Default 3 s.
    pub fn ask_again_after(mut self, time: Duration) -> Self {
        self.settings.ask_again_after = time;
        self
    }

    /// A local transaction does not begin later than this after its half was stored. Default 1 h. It may take as long as it
    /// likes.
    pub fn begin_within(mut self, time: Duration) -> Self {
        self.settings.begin_within = time;
        self
    }

    /// How long the rows of transactions that checks have rolled back stay. Default 7 days, and at least twice
    /// [`begin_within`](BarrierBuilder::begin_within): they are what stops late local transactions.
    pub fn keep_rolled_back(mut self, time: Duration) -> Self {
        self.settings.keep_rolled_back = time;
        self
    }

    /// From which age on a committed row that is still there is swept: its commit is told again, and it goes when the broker
    /// confirms. Default 10 minutes.
    pub fn sweep_after(mut self, age: Duration) -> Self {
        self.settings.sweep_after = age;
        self
    }

    /// How often a producer that runs local transactions sweeps. Default once a minute.
    pub fn sweep_every(mut self, time: Duration) -> Self {
        self.settings.sweep_every = time;
        self
    }

    /// Makes the barrier, within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for settings that cannot be.
    pub fn build(self) -> Result<Barrier<DB>, StartError> {
        let settings = &self.settings;
        if !is_table_name(&settings.table) {
            let reason = format!(
                "{:?} is no name of at most {TABLE_BYTES_MAX} letters, digits and underscores, with its schema in front or not",
                settings.table
            );
            return Err(StartError::setting("table", reason));
        }
        if settings.keep_rolled_back < settings.begin_within.saturating_mul(2) {
            return Err(StartError::setting("keep_rolled_back", "must be at least twice begin_within"));
        }
        if settings.lock_wait.is_zero() {
            // To the databases zero means "for ever", or "not at all".
            return Err(StartError::setting("lock_wait", "must not be zero"));
        }
        if settings.sweep_every.is_zero() {
            return Err(StartError::setting("sweep_every", "must not be zero"));
        }
        Ok(Barrier::with_settings(self.pool, self.settings))
    }
}
