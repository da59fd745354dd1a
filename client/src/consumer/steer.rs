//! What a user may do to the queues of a running consumer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use futures_util::future::join_all;

use super::group::{Group, HeldQueue};
use super::offsets;
use super::start::{ConsumeFrom, StartPoint};
use crate::error::RequestError;
use crate::queue::MessageQueue;

/// How far a consumer is behind in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// The queue.
    pub queue: MessageQueue,
    /// The first message that is not done with.
    pub offset: i64,
    /// The end of the queue.
    pub end: i64,
}

impl Lag {
    /// Messages that are not done with, those that the subscription passes over included.
    pub fn messages(&self) -> u64 {
        self.end.saturating_sub(self.offset).max(0) as u64
    }
}

/// A place in a queue to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// The oldest message that is kept.
    Beginning,
    /// Behind the newest message.
    End,
    /// The message of this number.
    Offset(i64),
    /// The first message stored at or after this time.
    Time(SystemTime),
}

impl Group {
    /// The queues held now, in order.
    pub(super) fn assignment(&self) -> Vec<MessageQueue> {
        let mut queues: Vec<MessageQueue> = self.held.lock().keys().cloned().collect();
        queues.sort();
        queues
    }

    /// Chooses the queues instead of taking this member's share.
    pub(super) fn assign(&self, queues: impl IntoIterator<Item = MessageQueue>) {
        *self.assigned.lock() = Some(queues.into_iter().collect::<BTreeSet<_>>());
        self.rebalance_soon.notify_one();
    }

    /// Stops or goes on with handing out a queue. Answers whether it is held.
    pub(super) fn pause(&self, queue: &MessageQueue, paused: bool) -> bool {
        let Some(held) = self.held.lock().get(queue).cloned() else { return false };
        held.paused.store(paused, Ordering::Release);
        if !paused {
            held.room.notify_one();
            if held.buffer.lock().waiting() > 0 {
                self.ready.push(&held);
            }
        }
        true
    }

    /// Goes to another place of a queue.
    pub(super) async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<(), RequestError> {
        let offset = match to {
            SeekTo::Offset(offset) if offset < 0 => return Err(RequestError::invalid("the offset is negative")),
            SeekTo::Offset(offset) => offset,
            SeekTo::Beginning => offsets::min(&self.core, queue).await?,
            SeekTo::End => offsets::max(&self.core, queue).await?,
            SeekTo::Time(time) => match ConsumeFrom::Timestamp(time).start_point(false) {
                StartPoint::Since(time) => offsets::search(&self.core, queue, time).await?,
                StartPoint::At(offset) => offset,
                StartPoint::End => offsets::max(&self.core, queue).await?,
            },
        };
        // The offset that was earned is stored first; the user's word is the last.
        self.release(queue).await;
        let stored = offsets::set(self, queue, offset).await;
        self.rebalance_soon.notify_one();
        stored
    }

    /// How far behind the held queues are, by the brokers' own numbers.
    pub(super) async fn lag(&self) -> Result<Vec<Lag>, RequestError> {
        let mut held = self.held();
        held.sort_by(|one, other| one.queue.cmp(&other.queue));
        let asked = held.iter().map(|held| async move {
            let end = offsets::max(&self.core, &held.queue).await?;
            held.end.store(end, Ordering::Relaxed);
            Ok(held.lag(end))
        });
        join_all(asked).await.into_iter().collect()
    }
}

impl HeldQueue {
    pub(super) fn lag(self: &Arc<Self>, end: i64) -> Lag {
        Lag { queue: self.queue.clone(), offset: self.buffer.lock().committable(), end }
    }
}
