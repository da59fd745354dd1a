//! Work that reads files or scans tables: away from the connections' tasks, and only so much of it at a time.

use std::sync::Arc;

use escrowmq_common::code::response;
use tokio::sync::Semaphore;

use super::Reply;
use crate::broker::Broker;

/// Most pieces of such work at a time, of all brokers of a process. Tools ask one question after the other; more than
/// this is a flood, and must not take the threads that cold pulls need.
static PLACES: Semaphore = Semaphore::const_new(32);

/// Runs `work`, which answers. If there is no place for it the answer is "busy", and if it panics an error.
pub(super) fn run(
    broker: &Arc<Broker>,
    name: &'static str,
    reply: Reply,
    work: impl FnOnce(&Arc<Broker>, Reply) + Send + 'static,
) {
    let Ok(place) = PLACES.try_acquire() else {
        return reply.error(response::SYSTEM_BUSY, "[OVERLOAD]system busy, start flow control for a while");
    };
    let theirs = Arc::clone(broker);
    broker.tasks.spawn_blocking(name, move || {
        let _place = place;
        let _spare = Spare(reply.clone());
        work(&theirs, reply);
    });
}

/// Answers where nobody else does any more.
struct Spare(Reply);

impl Drop for Spare {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.clone().error(response::SYSTEM_ERROR, "the broker failed on this request; its log says why");
        }
    }
}
