//! Work that reads files or scans tables: away from the connections' tasks, and only so much of it at a time.
//!
//! All of it goes through a [`Gate`] of its broker. What waits for a place is not in the pool for blocking work yet, so
//! that check-backs, timers, retention and cold pulls, which use the same pool, always find a thread: the pool has more
//! threads than all gates have places. What consumers and producers must get done, such as sending a message back, has
//! places of its own and never waits behind a search.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use escrowmq_common::code::response;
use escrowmq_common::remoting::LARGE_BODY_PLACES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::room::{Room, Waiting};
use crate::broker::Broker;
use crate::limits::{BLOCKING_THREADS, SEARCHES_MAX};

/// Places for what decides or acknowledges: old commits, send-backs, recalls.
const VITAL_PLACES: usize = 8;
/// The most requests that wait for such a place. A connection counts each as unanswered, unless it is one-way.
const VITAL_WAITING_MAX: usize = 200_000;
/// Requests that wait for what consumers answer. Each may ask 256 of them.
const RELAYS_MAX: usize = 64;
/// Threads for blocking work that runners use: check-back, timers, retention, disk, metrics, backups, cold pulls.
const RUNNERS: usize = 128;

const _: () = assert!(SEARCHES_MAX + VITAL_PLACES + RELAYS_MAX + LARGE_BODY_PLACES + RUNNERS <= BLOCKING_THREADS);

/// The places of one broker for work that may take long.
pub(crate) struct Gate {
    searches: Lane,
    vital: Lane,
    /// How many requests wait for a vital place.
    vital_waiting: AtomicUsize,
    searches_room: Arc<Room>,
    relays_room: Arc<Room>,
}

/// Places, which are given in the order of arrival.
struct Lane {
    places: Arc<Semaphore>,
}

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// Too much of it waits.
    Busy,
    /// It panicked; the log says why.
    Panicked,
}

impl NotDone {
    /// Code and remark of the answer.
    pub(super) fn answer(self) -> (i32, String) {
        match self {
            Self::Busy => (response::SYSTEM_BUSY, VITAL_BUSY.to_owned()),
            Self::Panicked => (response::SYSTEM_ERROR, FAILED.to_owned()),
        }
    }
}

const BUSY: &str =
    "[OVERLOAD]system busy, start flow control for a while: too many searches and listings wait (maxSearchesWaiting)";
const VITAL_BUSY: &str = "[OVERLOAD]system busy, start flow control for a while: too many send-backs, recalls and old commits \
     wait to be read; nothing was done, try again";
const RELAYS_BUSY: &str = "[OVERLOAD]system busy, start flow control for a while: too many requests wait for what consumers \
     answer; no consumer was asked, try again";
const FAILED: &str = "the broker failed on this request; its log says why";

impl Gate {
    /// A gate with `searches` places for searches and listings, and room for `waiting_max` that wait.
    pub(crate) fn new(searches: usize, waiting_max: usize) -> Self {
        Self {
            searches: Lane::new(searches),
            vital: Lane::new(VITAL_PLACES),
            vital_waiting: AtomicUsize::new(0),
            searches_room: Room::new(waiting_max),
            relays_room: Room::new(RELAYS_MAX),
        }
    }

    /// Takes all places for searches, which are free, until the answer is dropped, as a device that hangs does.
    #[cfg(test)]
    pub(crate) async fn occupy(&self) -> OwnedSemaphorePermit {
        let places = Arc::clone(&self.searches.places);
        let all = places.available_permits() as u32;
        places.acquire_many_owned(all).await.expect("never closed")
    }

    /// How many searches and listings wait.
    pub(crate) fn waiting(&self) -> usize {
        self.searches_room.waiting()
    }
}

impl Lane {
    fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)) }
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.places).acquire_owned().await.expect("never closed")
    }
}

/// Lets a request wait for what consumers answer, as long as the result lives. If too many wait already, the request is
/// answered as busy.
pub(super) fn relay(broker: &Broker, reply: &Reply) -> Option<Waiting> {
    let waiting = broker.gate.relays_room.enter(reply.connection().id());
    if waiting.is_none() {
        broker.metrics.searches_refused.add_one();
        reply.clone().error(response::SYSTEM_BUSY, RELAYS_BUSY);
    }
    waiting
}

/// Runs `work`, which answers, when there is a place for it. If too much waits the answer is "busy", and if it panics an
/// error.
pub(super) fn run(
    broker: &Arc<Broker>,
    name: &'static str,
    reply: Reply,
    work: impl FnOnce(&Arc<Broker>, Reply) + Send + 'static,
) {
    let lane = &broker.gate.searches;
    if let Ok(place) = Arc::clone(&lane.places).try_acquire_owned() {
        return start(broker, name, place, reply, work);
    }
    let Some(waiting) = broker.gate.searches_room.enter(reply.connection().id()) else {
        broker.metrics.searches_refused.add_one();
        return reply.error(response::SYSTEM_BUSY, BUSY);
    };
    let theirs = Arc::clone(broker);
    broker.tasks.spawn(name, async move {
        let place = theirs.gate.searches.place().await;
        drop(waiting);
        start(&theirs, name, place, reply, work);
    });
}

fn start(
    broker: &Arc<Broker>,
    name: &'static str,
    place: OwnedSemaphorePermit,
    reply: Reply,
    work: impl FnOnce(&Arc<Broker>, Reply) + Send + 'static,
) {
    let theirs = Arc::clone(broker);
    broker.tasks.spawn_blocking(name, move || {
        let _place = place;
        let _spare = Spare(reply.clone());
        work(&theirs, reply);
    });
}

/// Reads what a decision or an acknowledgement needs, in a place that searches do not take.
pub(super) async fn read_vital<T: Send + 'static>(
    broker: &Arc<Broker>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    let Gate { vital, vital_waiting, .. } = &broker.gate;
    if vital_waiting.fetch_add(1, Ordering::Relaxed) >= VITAL_WAITING_MAX {
        vital_waiting.fetch_sub(1, Ordering::Relaxed);
        broker.metrics.searches_refused.add_one();
        return Err(NotDone::Busy);
    }
    let place = vital.place().await;
    vital_waiting.fetch_sub(1, Ordering::Relaxed);
    let done = broker.tasks.spawn_blocking(name, move || {
        let _place = place;
        work()
    });
    done.await.ok().flatten().ok_or(NotDone::Panicked)
}

/// Answers where nobody else does any more.
struct Spare(Reply);

impl Drop for Spare {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.clone().error(response::SYSTEM_ERROR, FAILED);
        }
    }
}
