//! Which queue the next attempt goes to. Pure: the caller brings the queues and the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::queue::MessageQueue;

/// How long a broker that just failed is passed over while others can take the message.
const PENALTY: Duration = Duration::from_secs(5);

/// Brokers that failed lately. Bounded by the number of brokers in the routes.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    until: HashMap<Arc<str>, Instant>,
}

impl Penalties {
    /// The broker just failed.
    pub(crate) fn add(&mut self, broker: Arc<str>, now: Instant) {
        self.until.insert(broker, now + PENALTY);
    }

    /// The broker just answered as it should.
    pub(crate) fn clear(&mut self, broker: &str) {
        // Nearly always empty: the look costs nothing on the way of a healthy send.
        if !self.until.is_empty() {
            self.until.remove(broker);
        }
    }

    fn applies_to(&self, broker: &str, now: Instant) -> bool {
        self.until.get(broker).is_some_and(|until| now < *until)
    }
}

/// Picks a queue, starting at `turn` (a counter that the caller advances per send).
///
/// In order of preference: a broker that neither was the last one tried nor failed lately; any broker but the last one;
/// another queue of the last broker; whatever there is.
pub(crate) fn select<'q>(
    queues: &'q [MessageQueue],
    turn: usize,
    last: Option<&MessageQueue>,
    penalties: &Penalties,
    now: Instant,
) -> Option<&'q MessageQueue> {
    let from_turn = || (0..queues.len()).map(|step| &queues[(turn.wrapping_add(step)) % queues.len()]);
    let elsewhere = |queue: &MessageQueue| last.is_none_or(|last| last.broker() != queue.broker());
    from_turn()
        .find(|queue| elsewhere(queue) && !penalties.applies_to(queue.broker(), now))
        .or_else(|| from_turn().find(|queue| elsewhere(queue)))
        .or_else(|| from_turn().find(|queue| last != Some(*queue)))
        .or_else(|| from_turn().next())
}

/// The queue of a sharding key: the same one as long as the queues stay the same.
pub(crate) fn select_by_key<'q>(queues: &'q [MessageQueue], key: &str) -> Option<&'q MessageQueue> {
    if queues.is_empty() {
        return None;
    }
    // The hash that the protocol uses for tags: other clients' usual selectors take it too, so that a Java producer that
    // selects by `key.hashCode()` and this one agree.
    let hash = escrowmq_common::message::java_hash(key);
    queues.get(hash.unsigned_abs() as usize % queues.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str, id: i32) -> MessageQueue {
        MessageQueue::new("T", broker, id)
    }

    fn two_brokers() -> Vec<MessageQueue> {
        vec![queue("a", 0), queue("a", 1), queue("b", 0), queue("b", 1)]
    }

    #[test]
    fn turns_go_round() {
        let queues = two_brokers();
        let picked: Vec<_> = (0..5)
            .map(|turn| select(&queues, turn, None, &Penalties::default(), Instant::now()).expect("a queue"))
            .cloned()
            .collect();
        assert_eq!(picked, [queue("a", 0), queue("a", 1), queue("b", 0), queue("b", 1), queue("a", 0)]);
    }

    #[test]
    fn a_retry_leaves_the_broker_that_failed() {
        let queues = two_brokers();
        for turn in 0..8 {
            let picked = select(&queues, turn, Some(&queue("a", 1)), &Penalties::default(), Instant::now());
            assert_eq!(picked.expect("a queue").broker(), "b");
        }
    }

    #[test]
    fn with_one_broker_a_retry_takes_another_queue() {
        let queues = [queue("a", 0), queue("a", 1)];
        let picked = select(&queues, 1, Some(&queue("a", 1)), &Penalties::default(), Instant::now());
        assert_eq!(picked, Some(&queue("a", 0)));
        assert_eq!(
            select(&queues[..1], 7, Some(&queue("a", 0)), &Penalties::default(), Instant::now()),
            Some(&queue("a", 0))
        );
        assert_eq!(select(&[], 0, None, &Penalties::default(), Instant::now()), None);
    }

    #[test]
    fn a_penalty_holds_for_its_time_and_while_there_is_a_choice() {
        let queues = two_brokers();
        let mut penalties = Penalties::default();
        let now = Instant::now();
        penalties.add("a".into(), now);
        assert_eq!(select(&queues, 0, None, &penalties, now).expect("a queue").broker(), "b");
        assert_eq!(select(&queues, 0, None, &penalties, now + PENALTY).expect("a queue").broker(), "a");
        penalties.add("b".into(), now);
        assert_eq!(select(&queues, 0, None, &penalties, now).expect("a queue").broker(), "a");
        penalties.clear("a");
        assert_eq!(select(&queues, 2, None, &penalties, now).expect("a queue").broker(), "a");
    }

    #[test]
    fn a_key_keeps_its_queue() {
        let queues = two_brokers();
        let picked = select_by_key(&queues, "order-17");
        assert!(picked.is_some());
        assert_eq!(picked, select_by_key(&queues, "order-17"));
        assert_eq!(select_by_key(&[], "order-17"), None);
    }
}
