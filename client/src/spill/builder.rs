//! Settings of a spill, and its start.

use std::io;
use std::path::{Path, PathBuf};

use escrowmq_common::task::Tasks;

use super::failed::{self, FailedMessage};
use super::producer::SpillingProducer;
use super::store::Store;
use crate::error::StartError;
use crate::producer::{ProducerBuilder, Profile};

/// The least that a spill may hold.
const CAPACITY_MIN: u64 = 128 << 10;

/// Where and how messages are kept that could not be sent. For [`ProducerBuilder::spill`].
#[derive(Clone, Debug)]
#[must_use = "it is a setting of a producer"]
pub struct Spill {
    folder: PathBuf,
    capacity: u64,
    sync: bool,
}

impl Spill {
    /// In this folder, which is made if it is not there. One producer of one process has it at a time.
    pub fn dir(folder: impl Into<PathBuf>) -> Spill {
        Spill { folder: folder.into(), capacity: 1 << 30, sync: true }
    }

    /// Bytes that the folder may hold, failed messages included, which a person has to take away. Default 1 GiB, at least 128 KiB. A
    /// message takes its topic, properties and body and some 50 bytes more. Up to a sixteenth is not free at once when messages have been
    /// sent, and files hold up to twice what waits in them: beyond that, what waits is moved together, for which a 32nd is kept free
    /// (at least 32 KiB, at most 32 MiB). No more than a million messages wait. What does not fit is
    /// [`SpillError::Full`](super::SpillError::Full).
    pub fn capacity(mut self, bytes: u64) -> Spill {
        self.capacity = bytes;
        self
    }

    /// Whether a message is on disk for good before its receipt says that it is spilled. Default true. With false a power cut of
    /// this machine may lose it; the end of the process does not.
    pub fn sync(mut self, sync: bool) -> Spill {
        self.sync = sync;
        self
    }

    /// The messages that were given up, in the order in which they were: from `failed.jsonl` in the folder, in which a person reads
    /// the same. To send one again, send its message: it has its unique id. Then take the file away, while no producer has
    /// the folder. Blocks the thread.
    ///
    /// # Errors
    ///
    /// What the system says; a file that is not there is no error.
    pub fn failed(folder: impl AsRef<Path>) -> io::Result<Vec<FailedMessage>> {
        failed::read(folder.as_ref())
    }
}

/// Collects the settings of a [`SpillingProducer`]. Made by [`ProducerBuilder::spill`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct SpillingProducerBuilder {
    producer: ProducerBuilder,
    spill: Spill,
}

impl SpillingProducerBuilder {
    pub(crate) fn new(producer: ProducerBuilder, spill: Spill) -> SpillingProducerBuilder {
        SpillingProducerBuilder { producer, spill }
    }

    /// Opens the folder, starts the producer, and sends what an earlier process has left.
    ///
    /// # Errors
    ///
    /// Those of [`ProducerBuilder::start`]; [`StartError::SpillInUse`] if another producer has the folder, [`StartError::Spill`] if
    /// it cannot be read or written, [`StartError::Setting`] for a capacity that is too small.
    pub async fn start(self) -> Result<SpillingProducer, StartError> {
        let Spill { folder, capacity, sync } = self.spill;
        if capacity < CAPACITY_MIN {
            return Err(StartError::setting("capacity", format!("must be at least {CAPACITY_MIN} bytes")));
        }
        let opening = folder.clone();
        let opened = Tasks::new().spawn_blocking("spill opening", move || Store::open(&opening, capacity, sync)).await;
        let failed = |reason: String| StartError::Spill { folder: folder.clone(), reason };
        let Ok(Some(opened)) = opened else { return Err(failed("opening it was interrupted".to_owned())) };
        let (store, entries) = opened?;
        if !entries.is_empty() {
            tracing::info!(folder = %folder.display(), messages = entries.len(), "a spill holds messages that are sent now");
        }
        let producer = self.producer.start().await?;
        let is_strict = producer.settings().profile == Profile::Strict;
        let started = SpillingProducer::begin(producer, store, entries, capacity, sync, is_strict);
        started.map_err(|error| failed(error.to_string()))
    }
}
