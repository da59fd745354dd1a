//! Topics and their queues, as everybody reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;

use super::arrivals::Arrivals;
use crate::terms::{Position, QueueId, QueueOffset, TopicSettings};

/// One queue: where its entries begin and end. Written by apply alone; everybody reads.
#[derive(Debug)]
pub struct Queue {
    /// Its number in this shard.
    pub id: QueueId,
    /// The id of the first queue of its topic, which stands for the topic in keys.
    pub topic_id: QueueId,
    /// The topic it belongs to.
    pub topic: Arc<str>,
    /// Its number within the topic, the protocol's queueId.
    pub index: u32,
    min: AtomicU64,
    max: AtomicU64,
    /// No entry's bytes lie below this log position, as far as the last trim saw.
    oldest: AtomicU64,
    /// Messages up to this offset were not in the broker's memory when they were pulled last. A guess: it decides nothing but
    /// who reads them.
    old_until: AtomicU64,
    /// The number, within the topic, of the queue in which a message enters that waited for this one.
    entered: AtomicU32,
    /// The topic's settings name this queue no more.
    is_given_up: AtomicBool,
    /// The end when counting for metrics began.
    counted_from: AtomicU64,
    /// Bytes of the messages that entered since then.
    entered_bytes: AtomicU64,
    /// The waiters for the next message.
    pub arrivals: Arrivals,
}

impl Queue {
    /// An empty queue.
    pub fn new(id: QueueId, topic_id: QueueId, topic: Arc<str>, index: u32) -> Self {
        Self {
            id,
            topic_id,
            topic,
            index,
            min: AtomicU64::new(0),
            max: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            old_until: AtomicU64::new(0),
            entered: AtomicU32::new(index),
            is_given_up: AtomicBool::new(false),
            counted_from: AtomicU64::new(0),
            entered_bytes: AtomicU64::new(0),
            arrivals: Arrivals::default(),
        }
    }

    /// The first offset that is still kept.
    pub fn min_offset(&self) -> QueueOffset {
        QueueOffset(self.min.load(Ordering::Acquire))
    }

    /// The offset that the next message will get: everything below is visible and readable.
    pub fn max_offset(&self) -> QueueOffset {
        QueueOffset(self.max.load(Ordering::Acquire))
    }

    /// A log position below which no entry's bytes lie that a trim would remove; the log's beginning before the first trim.
    pub(in crate::shard) fn oldest(&self) -> Position {
        Position(self.oldest.load(Ordering::Acquire))
    }

    /// Messages before this offset are hardly in the broker's memory.
    pub fn old_until(&self) -> QueueOffset {
        QueueOffset(self.old_until.load(Ordering::Relaxed))
    }

    /// Messages before this offset were read from files.
    pub fn note_old(&self, until: QueueOffset) {
        self.old_until.store(until.get(), Ordering::Relaxed);
    }

    /// Whether the topic has shrunk below this queue: nobody reads it any more.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Messages that entered since counting began, and their bytes as they are stored.
    pub fn entered(&self) -> (u64, u64) {
        let from = self.counted_from.load(Ordering::Relaxed);
        (self.max_offset().get().saturating_sub(from), self.entered_bytes.load(Ordering::Relaxed))
    }

    /// Settings of the topic are in force: where goes what waits for this queue? Messages of one queue stay together.
    fn follow(&self, settings: &TopicSettings) {
        let live = settings.live_queues().max(1);
        self.entered.store(if self.index < live { self.index } else { self.index % live }, Ordering::Release);
        self.is_given_up.store(self.index >= settings.queue_count(), Ordering::Release);
    }

    /// Apply publishes a new first offset after the index was written.
    pub(in crate::shard) fn trim(&self, min: QueueOffset, oldest: Position) {
        self.oldest.store(oldest.get(), Ordering::Release);
        self.min.store(min.get(), Ordering::Release);
    }

    /// Apply publishes new ends after the index was written.
    pub(in crate::shard) fn publish(&self, min: QueueOffset, max: QueueOffset) {
        self.min.store(min.get(), Ordering::Release);
        self.max.store(max.get(), Ordering::Release);
    }

    /// Messages of so many bytes have entered.
    pub(in crate::shard) fn note_entered(&self, bytes: u64) {
        // Apply alone writes.
        let before = self.entered_bytes.load(Ordering::Relaxed);
        self.entered_bytes.store(before + bytes, Ordering::Relaxed);
    }
}

/// A topic: its settings and its queues, in the order of their numbers.
#[derive(Debug)]
pub struct Topic {
    /// The settings.
    pub settings: TopicSettings,
    /// All queues that were ever made for it; there may be more than the settings name after a shrink.
    pub queues: Vec<Arc<Queue>>,
}

impl Topic {
    /// Whether producers may write to it.
    pub fn is_writable(&self) -> bool {
        self.settings.perm & TopicSettings::WRITE != 0
    }

    /// Whether consumers may read it.
    pub fn is_readable(&self) -> bool {
        self.settings.perm & TopicSettings::READ != 0
    }

    /// The queue with this protocol queueId, if the settings name it.
    pub fn queue(&self, index: i32) -> Option<&Arc<Queue>> {
        let index = u32::try_from(index).ok()?;
        if index >= self.settings.queue_count() {
            return None;
        }
        self.queues.get(index as usize)
    }
}

/// All topics. Apply writes, everybody reads; the truth is in the index.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: DashMap<Arc<str>, Arc<Topic>>,
    by_queue: DashMap<QueueId, Arc<Queue>>,
    version: AtomicU64,
}

impl Topics {
    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.get(name).map(|topic| Arc::clone(&topic))
    }

    /// The queue with this number.
    pub fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.by_queue.get(&id).map(|queue| Arc::clone(&queue))
    }

    /// The queue in which a message enters that waited for `queue`: that one, or, since its topic has shrunk, one that
    /// consumers read. Follows from the settings alone, so that every replica says the same.
    pub fn entered(&self, queue: &Arc<Queue>) -> Arc<Queue> {
        let index = queue.entered.load(Ordering::Acquire);
        if index == queue.index {
            return Arc::clone(queue);
        }
        let topic = self.by_name.get(&queue.topic);
        let other = topic.and_then(|topic| topic.queues.get(index as usize).cloned());
        other.unwrap_or_else(|| Arc::clone(queue))
    }

    /// All topics, in no order.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.by_name.iter().map(|topic| Arc::clone(&topic)).collect()
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many queues all topics have together.
    pub fn queue_count(&self) -> u64 {
        self.by_queue.len() as u64
    }

    /// The broker serves from here on: what entered before, as when the log is applied again after a crash, is no news.
    pub(crate) fn count_from_now(&self) {
        for queue in &self.by_queue {
            queue.entered_bytes.store(0, Ordering::Relaxed);
            queue.counted_from.store(queue.max.load(Ordering::Acquire), Ordering::Relaxed);
        }
    }

    /// Grows with each change of any topic; the broker then registers again.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(in crate::shard) fn put(&self, topic: Topic) {
        for queue in &topic.queues {
            queue.follow(&topic.settings);
            self.by_queue.insert(queue.id, Arc::clone(queue));
        }
        self.by_name.insert(Arc::from(topic.settings.name.as_str()), Arc::new(topic));
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub(in crate::shard) fn remove(&self, name: &str) {
        if let Some((_, topic)) = self.by_name.remove(name) {
            for queue in &topic.queues {
                self.by_queue.remove(&queue.id);
                queue.arrivals.wake();
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }
}
