//! Work that reads files or scans tables: away from the connections' tasks, when the gate has a place for it.

use std::sync::Arc;

use escrowmq_common::code::response;

use crate::broker::Broker;
use crate::gate::{Place, Waiting};
use crate::reply::{Refused, Reply};

const BUSY: &str =
    "[OVERLOAD]system busy, start flow control for a while: too many searches and listings wait (maxSearchesWaiting)";
const VITAL_BUSY: &str = "[OVERLOAD]system busy, start flow control for a while: too many send-backs, recalls and old commits \
     wait to be read; nothing was done, try again";
const RELAYS_BUSY: &str = "[OVERLOAD]system busy, start flow control for a while: too many requests wait for what consumers \
     answer; no consumer was asked, try again";
const FAILED: &str = "the broker failed on this request; its log says why";

/// Lets a request wait for what consumers answer, as long as the result lives. If too many wait already, the request is
/// answered as busy.
pub(super) fn relay(broker: &Broker, reply: &Reply) -> Option<Waiting> {
    let waiting = broker.gate.wait_for_consumers(reply.connection().id());
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
    if let Some(place) = broker.gate.free_search() {
        return start(broker, name, place, reply, work);
    }
    let Some(waiting) = broker.gate.wait_for_search(reply.connection().id()) else {
        broker.metrics.searches_refused.add_one();
        return reply.error(response::SYSTEM_BUSY, BUSY);
    };
    let theirs = Arc::clone(broker);
    broker.tasks.spawn(name, async move {
        let place = theirs.gate.search().await;
        drop(waiting);
        start(&theirs, name, place, reply, work);
    });
}

fn start(
    broker: &Arc<Broker>,
    name: &'static str,
    place: Place,
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

/// Reads what a decision or an acknowledgement needs, in a place that searches do not take. Refused
/// where too much of it waits, or where it panics.
pub(super) async fn read_vital<T: Send + 'static>(
    broker: &Arc<Broker>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let Some(place) = broker.gate.vital().await else {
        broker.metrics.searches_refused.add_one();
        return Err(Refused::new(response::SYSTEM_BUSY, VITAL_BUSY));
    };
    let done = broker.tasks.spawn_blocking(name, move || {
        let _place = place;
        work()
    });
    done.await.ok().flatten().ok_or(Refused::new(response::SYSTEM_ERROR, FAILED))
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
