//! One thread that runs a whole shard, step by step.
//!
//! A shard has three parts that work by themselves: the executor (proposing, Raft, apply), the log's writer and the index
//! flusher. In a broker each has a thread. Here a seed says which of them goes next, also while a flush of the disk is under
//! way, so that a seed does the same each time it is tried.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use escrowmq_common::clock::Clock;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;

use super::life::{Rows, index_of, settings};
use crate::log::sim_disk::{Random, SimDisk};
use crate::log::{Drive, Flush};
use crate::raft::Identity;
use crate::storage::{Parts, Storage};

/// Polls of the executor at most while one flush of the disk is under way.
const OVERTAKING: u64 = 6;

/// The parts that work, and the seed.
pub(super) struct Stepper {
    parts: Parts,
    random: Mutex<Random>,
    /// A flush of the disk may be overtaken: nobody holds a lock of the shard meanwhile.
    may_overtake: AtomicBool,
}

impl Stepper {
    /// Lets one part work, the next one that has anything to do. Says whether there was one.
    pub(super) fn step(&self) -> bool {
        let first = self.below(3);
        (0..3).any(|nth| match (first + nth) % 3 {
            0 => self.parts.shard.executor().step(),
            1 => {
                self.may_overtake.store(true, Ordering::Relaxed);
                let worked = self.parts.log.step();
                self.may_overtake.store(false, Ordering::Relaxed);
                worked
            }
            _ => self.parts.applier.step(),
        })
    }

    /// Lets parts work, or not: what is at hand need not be finished when something new comes.
    pub(super) fn dawdle(&self) {
        for _ in 0..self.below(8) {
            self.step();
        }
    }

    /// Steps until something is there.
    pub(super) fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if !self.step() {
                return look().ok_or_else(|| "nobody has anything to do, and somebody waits".to_owned());
            }
        }
    }

    /// Steps until a future is ready.
    pub(super) fn drive<T>(&self, future: impl Future<Output = T>) -> Result<T, String> {
        let mut future = pin!(future);
        self.until(|| match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().below(bound)
    }

    /// A flush of the disk is under way.
    fn overtake(&self) {
        if self.may_overtake.swap(false, Ordering::Relaxed) {
            for _ in 0..self.below(OVERTAKING) {
                self.parts.shard.executor().step();
            }
            self.may_overtake.store(true, Ordering::Relaxed);
        }
    }
}

/// A shard that runs, with everything that a broker's has.
pub(super) struct Stepped {
    pub(super) storage: Storage,
    pub(super) stepper: Arc<Stepper>,
}

impl Stepped {
    /// Opens a shard on a simulated disk, with an index in memory.
    pub(super) fn open(
        disk: &SimDisk,
        rows: Option<&Rows>,
        flush: Flush,
        clock: &Clock,
        seed: u64,
    ) -> Result<Self, String> {
        let why = |error: &dyn std::fmt::Display| format!("the shard does not open: {error}");
        let index = index_of(rows).map_err(|error| why(&error))?;
        let mut settings = settings(flush);
        settings.log.drive = Drive::Step { seed };
        let parts = Parts::open(Arc::new(disk.clone()), index, settings, clock.clone()).map_err(|error| why(&error))?;
        let random = Mutex::new(Random::new(seed));
        let stepper = Arc::new(Stepper { parts: parts.clone(), random, may_overtake: AtomicBool::new(false) });
        // Weak: copies of the disk outlive the shard.
        let weak: Weak<Stepper> = Arc::downgrade(&stepper);
        disk.while_syncing(move || {
            if let Some(stepper) = weak.upgrade() {
                stepper.overtake();
            }
        });
        let storage =
            stepper.drive(parts.start_alone(&Tasks::new(), Identity::alone()))?.map_err(|error| why(&error))?;
        Ok(Self { storage, stepper })
    }

    /// Ends in good order.
    pub(super) fn close(self) -> Result<(), String> {
        let Self { storage, stepper } = self;
        stepper.drive(storage.close())?.map_err(|error| error.to_string())
    }
}
