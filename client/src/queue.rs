//! One queue of a topic, as clients name it.

use std::fmt;
use std::sync::Arc;

/// A queue of a topic on one broker group. Cheap to clone.
///
/// The order (topic, then broker name, then id) is part of the protocol: every member of a consumer group sorts the queues
/// of a topic this way before it computes its share, so a different order would give a queue to two members.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageQueue {
    topic: Arc<str>,
    broker: Arc<str>,
    id: i32,
}

impl MessageQueue {
    /// The queue `id` of `topic` on the broker group named `broker`.
    pub fn new(topic: impl Into<Arc<str>>, broker: impl Into<Arc<str>>, id: i32) -> MessageQueue {
        MessageQueue { topic: topic.into(), broker: broker.into(), id }
    }

    /// The topic, without namespace handling: what the broker knows it by.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The broker's name (the group of its replicas, not an address).
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The queue's number within the topic on that broker, from 0.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The broker's name, shared.
    pub(crate) fn broker_shared(&self) -> Arc<str> {
        Arc::clone(&self.broker)
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.topic, self.broker, self.id)
    }
}

impl fmt::Debug for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_sort_by_topic_then_broker_then_number() {
        let mut queues = [
            MessageQueue::new("b", "a", 0),
            MessageQueue::new("a", "b", 1),
            MessageQueue::new("a", "b", 0),
            MessageQueue::new("a", "a", 10),
            MessageQueue::new("a", "a", 9),
        ];
        queues.sort();
        let shown: Vec<String> = queues.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a@a:9", "a@a:10", "a@b:0", "a@b:1", "b@a:0"]);
    }
}
