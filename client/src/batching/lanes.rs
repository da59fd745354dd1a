//! Which messages go together, and how many workers send them. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use escrowmq_common::message::java_hash;
use escrowmq_common::message::properties::name;

use crate::message::Message;
use crate::producer::{BatchLimit, packed_bytes};

/// Lanes of a topic for messages with a sharding key. A number that most numbers of queues divide: then the messages of a lane go to
/// one queue together.
const KEY_LANES: u32 = 64;
/// Batches of messages without a key that are in flight at the same time, for each topic.
const FREE_WORKERS: usize = 4;

/// Messages whose order counts among each other, or any without a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneId {
    topic: Arc<str>,
    /// By the hash of the key.
    number: Option<u32>,
}

impl LaneId {
    pub(super) fn of(message: &Message) -> LaneId {
        let key = message.get(name::SHARDING_KEY);
        LaneId { topic: message.topic_shared(), number: key.map(|key| java_hash(key).unsigned_abs() % KEY_LANES) }
    }

    fn workers_max(&self) -> usize {
        if self.number.is_some() { 1 } else { FREE_WORKERS }
    }
}

/// The messages that wait, by lane, each with the item that its caller keeps for it.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: HashMap<LaneId, Lane<T>>,
    limit: BatchLimit,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<(T, Message)>,
    bytes: usize,
    workers: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Lane { items: VecDeque::new(), bytes: 0, workers: 0 }
    }
}

/// The caller's next step after a message was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// Nothing: a worker will come to it.
    Waits,
    /// Nothing, but a worker that lingers need not any more.
    IsFull,
    /// Start a worker.
    NeedsWorker,
}

impl<T> Lanes<T> {
    pub(super) fn new(limit: BatchLimit) -> Lanes<T> {
        Lanes { lanes: HashMap::new(), limit }
    }

    /// Puts a message in.
    pub(super) fn add(&mut self, id: &LaneId, item: T, message: Message) -> Added {
        let limit = self.limit;
        let lane = self.lanes.entry(id.clone()).or_default();
        lane.bytes += packed_bytes(&message);
        lane.items.push_back((item, message));
        let is_full = lane.items.len() >= limit.messages || lane.bytes >= limit.bytes;
        if lane.workers == 0 || is_full && lane.workers < id.workers_max() {
            lane.workers += 1;
            Added::NeedsWorker
        } else if is_full {
            Added::IsFull
        } else {
            Added::Waits
        }
    }

    /// Whether a batch is complete.
    pub(super) fn is_full(&self, id: &LaneId) -> bool {
        let full = |lane: &Lane<T>| lane.items.len() >= self.limit.messages || lane.bytes >= self.limit.bytes;
        self.lanes.get(id).is_some_and(full)
    }

    /// The next ones for a worker; `None` ends the worker.
    pub(super) fn take(&mut self, id: &LaneId) -> Option<Vec<(T, Message)>> {
        let lane = self.lanes.get_mut(id)?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < self.limit.messages
            && let Some((_, next)) = lane.items.front()
            && (taken.is_empty() || bytes + packed_bytes(next) <= self.limit.bytes)
        {
            bytes += packed_bytes(next);
            taken.extend(lane.items.pop_front());
        }
        lane.bytes -= bytes;
        if !taken.is_empty() {
            return Some(taken);
        }
        lane.workers -= 1;
        if lane.workers == 0 {
            self.lanes.remove(id);
        }
        None
    }

    /// A worker is gone without a word: what no other one comes to is given back.
    pub(super) fn abandoned(&mut self, id: &LaneId) -> Vec<(T, Message)> {
        let Some(lane) = self.lanes.get_mut(id) else { return Vec::new() };
        lane.workers -= 1;
        if lane.workers > 0 {
            return Vec::new();
        }
        self.lanes.remove(id).map(|lane| lane.items.into()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(messages: usize) -> Lanes<u32> {
        Lanes::new(BatchLimit { messages, bytes: 1000 })
    }

    fn put(lanes: &mut Lanes<u32>, item: u32, message: Message) -> (LaneId, Added) {
        let id = LaneId::of(&message);
        let added = lanes.add(&id, item, message);
        (id, added)
    }

    fn taken(lanes: &mut Lanes<u32>, id: &LaneId) -> Option<Vec<u32>> {
        lanes.take(id).map(|items| items.into_iter().map(|(item, _)| item).collect())
    }

    #[test]
    fn an_idle_lane_sends_at_once_and_what_comes_meanwhile_goes_together() {
        let mut lanes = lanes(3);
        let (id, added) = put(&mut lanes, 1, Message::new("T", "x"));
        assert_eq!(added, Added::NeedsWorker);
        assert_eq!(taken(&mut lanes, &id), Some(vec![1]));
        assert_eq!(put(&mut lanes, 2, Message::new("T", "x")).1, Added::Waits);
        assert_eq!(put(&mut lanes, 3, Message::new("T", "x")).1, Added::Waits);
        assert_eq!(put(&mut lanes, 4, Message::new("T", "x")).1, Added::NeedsWorker, "a whole batch waits");
        assert_eq!(put(&mut lanes, 5, Message::new("T", "x")).1, Added::NeedsWorker);
        assert!(lanes.is_full(&id));
        assert_eq!(taken(&mut lanes, &id), Some(vec![2, 3, 4]));
        assert_eq!(taken(&mut lanes, &id), Some(vec![5]));
        for _ in 0..3 {
            assert_eq!(taken(&mut lanes, &id), None);
        }
        assert!(lanes.lanes.is_empty());
    }

    #[test]
    fn messages_of_a_key_have_one_worker_and_batches_are_bounded_by_bytes() {
        let mut lanes = lanes(100);
        let message = || Message::new("T", vec![0; 400]).sharding_key("k");
        let (id, added) = put(&mut lanes, 1, message());
        assert_eq!(added, Added::NeedsWorker);
        assert_eq!(put(&mut lanes, 2, message()).1, Added::Waits);
        assert_eq!(put(&mut lanes, 3, message()).1, Added::IsFull);
        assert_eq!(put(&mut lanes, 4, Message::new("T", vec![0; 5000]).sharding_key("k")).1, Added::IsFull);
        assert_eq!(taken(&mut lanes, &id), Some(vec![1, 2]));
        assert_eq!(taken(&mut lanes, &id), Some(vec![3]));
        assert_eq!(taken(&mut lanes, &id), Some(vec![4]), "a large one goes alone");
        assert_eq!(taken(&mut lanes, &id), None);
        assert!(lanes.lanes.is_empty());
    }

    #[test]
    fn what_a_lost_worker_leaves_is_given_back() {
        let mut lanes = lanes(2);
        let (id, _) = put(&mut lanes, 1, Message::new("T", "x"));
        let _ = lanes.take(&id);
        let _ = put(&mut lanes, 2, Message::new("T", "x"));
        assert_eq!(put(&mut lanes, 3, Message::new("T", "x")).1, Added::NeedsWorker);
        assert!(lanes.abandoned(&id).is_empty(), "another one is there");
        let left: Vec<u32> = lanes.abandoned(&id).into_iter().map(|(item, _)| item).collect();
        assert_eq!(left, [2, 3]);
        assert_eq!(put(&mut lanes, 4, Message::new("T", "x")).1, Added::NeedsWorker);
    }
}
