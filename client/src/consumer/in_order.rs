//! Handling in order: the messages of a lane one after the other, by one member of the group at a time.
//!
//! A lane is a queue, or a key: other lanes of the queue then go on while one waits. A failed message is tried again in place, and
//! holds up its lane until it succeeds or has used up its attempts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::dispatch::{Failed, handled, later};
use super::group::{Group, HeldQueue};
use super::retry;
use crate::message::MessageExt;

/// Before a failed message is tried again, unless its handler says when.
const PAUSE: Duration = Duration::from_secs(1);

/// Finds the key whose messages stay in order; `None` for a message that is bound to no other.
pub(crate) type KeyOf = Arc<dyn Fn(&MessageExt) -> Option<String> + Send + Sync>;

/// The order in which a consumer handles the messages of a queue.
#[derive(Clone)]
pub(crate) enum Order {
    /// None.
    Free,
    /// One after the other.
    Queue,
    /// Those of a key one after the other.
    Key(KeyOf),
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Order::Free => "Free",
            Order::Queue => "Queue",
            Order::Key(_) => "Key",
        })
    }
}

impl Order {
    /// Whether there is one, so that the broker must lock the queues for this member.
    pub(crate) fn is_ordered(&self) -> bool {
        !matches!(self, Order::Free)
    }

    /// The lane of a message.
    fn lane(&self, message: &MessageExt) -> Option<u64> {
        match self {
            Order::Free => None,
            Order::Queue => Some(0),
            Order::Key(key_of) => {
                let key = key_of(message)?;
                // Two keys with one hash share a lane, which costs them time and nothing else.
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                Some(hasher.finish())
            }
        }
    }
}

/// Handles the next messages of one lane that no other worker is at.
pub(super) async fn handle(group: &Arc<Group>, held: &Arc<HeldQueue>) {
    // Without the lock nothing is handed out; its renewal puts the queue into the line.
    if !held.is_locked() {
        return;
    }
    let (lane, batch, more) = {
        let mut lanes = held.lanes.lock();
        let mut buffer = held.buffer.lock();
        let (lane, batch) =
            buffer.take_lane(group.settings.batch_max, &lanes.busy, |message| group.settings.order.lane(message));
        lanes.busy.extend(lane.filter(|_| !batch.is_empty()));
        (lane, batch, buffer.waiting() > 0)
    };
    // The worker that ends with the last free lane looks again.
    let Some(first) = batch.first() else { return };
    // A message without a key counts its failures for itself.
    let counted = lane.unwrap_or(first.queue_offset() as u64);
    if more {
        group.ready.push(held);
    }
    let pause = match handled(group, held, &batch).await {
        None => None,
        Some(failed) => settle(group, held, counted, &batch, failed).await,
    };
    let Some(pause) = pause else {
        held.succeeded(counted);
        held.buffer.lock().finish(batch.iter().map(MessageExt::queue_offset));
        release(held, lane);
        if held.buffer.lock().waiting() > 0 {
            group.ready.push(held);
        }
        return;
    };
    held.buffer.lock().give_back(batch);
    later(group, held, pause, move |held| release(held, lane));
}

/// After a failure: whether the broker took the messages out of the way, or else when they are tried again.
async fn settle(
    group: &Group,
    held: &HeldQueue,
    counted: u64,
    batch: &[MessageExt],
    failed: Failed,
) -> Option<Duration> {
    let failures = held.failed(counted);
    let (pause, reason) = match &failed {
        Failed::Again { after, .. } if !is_exhausted(group, failures) => return Some(after.unwrap_or(PAUSE)),
        Failed::Again { .. } => (PAUSE, ""),
        Failed::Never { reason } => (PAUSE, reason.as_str()),
    };
    for message in batch {
        if !retry::bury(group, message, failures, reason).await {
            return Some(pause);
        }
    }
    None
}

/// Whether a message has failed so often that it goes to the dead letters. By default one that is tried again in place never has.
pub(super) fn is_exhausted(group: &Group, failures: u32) -> bool {
    group.settings.attempts_max.is_some_and(|max| failures >= max)
}

fn release(held: &HeldQueue, lane: Option<u64>) {
    if let Some(lane) = lane {
        held.lanes.lock().busy.remove(&lane);
    }
}
