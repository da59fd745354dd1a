//! Places for work that reads files or scans tables: how much of it runs at a time, and how much may wait.
//!
//! Work that waits for a place is not in the pool for blocking work yet. The pool has more threads than all places together,
//! so check-backs, timers, retention and cold pulls, which use the same pool, always find a thread. Work that consumers and
//! producers depend on, such as sending a message back, has places of its own and never waits for a search to end.
//!
//! Promises: places are given in the order of arrival; one connection takes no more than its share of the room for waiting.
//! Left to others: the work, and the answer to a refused client (`server`).

mod room;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use escrowmq_common::remoting::LARGE_BODY_PLACES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{BLOCKING_THREADS, SEARCHES_MAX};
use room::Room;

pub(crate) use room::Waiting;

/// Places for what decides or acknowledges: old commits, send-backs, recalls.
const VITAL_PLACES: usize = 8;
/// The most requests that wait for such a place. A connection counts each as unanswered, unless it is one-way.
const VITAL_WAITING_MAX: usize = 200_000;
/// Requests that wait for what consumers answer. Each may ask 256 of them.
const RELAYS_MAX: usize = 64;
/// Threads for blocking work that runners use: check-back, timers, retention, disk, metrics, backups, cold pulls.
const RUNNERS: usize = 128;

const _: () = assert!(SEARCHES_MAX + VITAL_PLACES + RELAYS_MAX + LARGE_BODY_PLACES + RUNNERS <= BLOCKING_THREADS);

/// A place. It is free again when this is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// The places of one broker for work that may take long.
pub(crate) struct Gate {
    searches: Arc<Semaphore>,
    searches_room: Arc<Room>,
    vital: Arc<Semaphore>,
    /// How many requests wait for a vital place.
    vital_waiting: AtomicUsize,
    relays_room: Arc<Room>,
}

impl Gate {
    /// A gate with `searches` places for searches and listings, and room for `waiting_max` that wait.
    pub(crate) fn new(searches: usize, waiting_max: usize) -> Self {
        Self {
            searches: Arc::new(Semaphore::new(searches)),
            searches_room: Room::new(waiting_max),
            vital: Arc::new(Semaphore::new(VITAL_PLACES)),
            vital_waiting: AtomicUsize::new(0),
            relays_room: Room::new(RELAYS_MAX),
        }
    }

    /// A place for a search or a listing, if one is free.
    pub(crate) fn free_search(&self) -> Option<Place> {
        Arc::clone(&self.searches).try_acquire_owned().ok()
    }

    /// Lets a request of a connection wait for a place, as long as the result lives; `None` if too many wait.
    pub(crate) fn wait_for_search(&self, connection: u64) -> Option<Waiting> {
        self.searches_room.enter(connection)
    }

    /// The next place for a search or a listing.
    pub(crate) async fn search(&self) -> Place {
        next(&self.searches).await
    }

    /// How many searches and listings wait.
    pub(crate) fn waiting(&self) -> usize {
        self.searches_room.waiting()
    }

    /// The next place for what decides or acknowledges; `None` if too many wait.
    pub(crate) async fn vital(&self) -> Option<Place> {
        if self.vital_waiting.fetch_add(1, Ordering::Relaxed) >= VITAL_WAITING_MAX {
            self.vital_waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let place = next(&self.vital).await;
        self.vital_waiting.fetch_sub(1, Ordering::Relaxed);
        Some(place)
    }

    /// Lets a request of a connection wait for what consumers answer, as long as the result lives; `None` if too many do.
    pub(crate) fn wait_for_consumers(&self, connection: u64) -> Option<Waiting> {
        self.relays_room.enter(connection)
    }

    /// Takes all places for searches, which are free, until the answer is dropped, as a device that hangs does.
    #[cfg(test)]
    pub(crate) async fn occupy(&self) -> Place {
        let all = self.searches.available_permits() as u32;
        Arc::clone(&self.searches).acquire_many_owned(all).await.expect("never closed")
    }
}

async fn next(places: &Arc<Semaphore>) -> Place {
    Arc::clone(places).acquire_owned().await.expect("never closed")
}
