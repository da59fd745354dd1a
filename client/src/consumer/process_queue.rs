//! The messages of one queue between the pull that brought them and the offset that acknowledges them.
//!
//! Pure state: no clock, no socket. Promises: the committable offset never passes a message whose handler has
//! not succeeded (or whose retry the broker has not taken over), whatever order the handlers end in; and it never holds
//! more than its bounds, because the puller asks [`ProcessQueue::is_full`] first.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::message::MessageExt;

/// Bounds of one queue's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferLimits {
    /// Messages held: waiting and running together.
    pub(crate) messages: usize,
    /// Body bytes held.
    pub(crate) bytes: usize,
    /// Distance from the oldest unfinished message to the newest one; one stuck message must not let the rest run away.
    pub(crate) span: i64,
}

impl Default for BufferLimits {
    fn default() -> BufferLimits {
        BufferLimits { messages: 1000, bytes: 100 << 20, span: 2000 }
    }
}

/// A queue's buffer.
#[derive(Debug)]
pub(crate) struct ProcessQueue {
    /// Pulled and not handed to a handler yet, ascending by offset.
    waiting: VecDeque<MessageExt>,
    /// Handed out and not finished: offset to body bytes.
    running: BTreeMap<i64, usize>,
    /// Body bytes of both.
    bytes: usize,
    /// One past the newest message seen or skipped: where the queue stands once everything held is finished.
    next: i64,
}

impl ProcessQueue {
    /// An empty buffer of a queue that is consumed from `start` on.
    pub(crate) fn new(start: i64) -> ProcessQueue {
        ProcessQueue { waiting: VecDeque::new(), running: BTreeMap::new(), bytes: 0, next: start }
    }

    /// Takes in what a pull brought, and that the broker has examined everything below `next`. Messages below what was
    /// seen before are dropped: a broker that repeats itself must not make a handler run twice at the same time.
    pub(crate) fn put(&mut self, messages: impl IntoIterator<Item = MessageExt>, next: i64) {
        for message in messages {
            let offset = message.queue_offset();
            if offset < self.next {
                continue;
            }
            self.next = offset + 1;
            self.bytes += message.body().len();
            self.waiting.push_back(message);
        }
        self.next = self.next.max(next);
    }

    /// Hands out up to `count` messages in order. They stay unfinished until [`ProcessQueue::finish`] or
    /// [`ProcessQueue::give_back`].
    pub(crate) fn take(&mut self, count: usize) -> Vec<MessageExt> {
        let count = count.min(self.waiting.len());
        let taken: Vec<MessageExt> = self.waiting.drain(..count).collect();
        self.ran(&taken);
        taken
    }

    /// Hands out up to `count` messages of one lane in order: of the first waiting one whose lane is not busy. A message without a
    /// lane is bound to no other.
    pub(crate) fn take_lane(
        &mut self,
        count: usize,
        busy: &HashSet<u64>,
        lane: impl Fn(&MessageExt) -> Option<u64>,
    ) -> (Option<u64>, Vec<MessageExt>) {
        let mut taken = Vec::new();
        let mut chosen = None;
        let mut at = 0;
        while at < self.waiting.len() && taken.len() < count {
            let this = lane(&self.waiting[at]);
            let fits = if taken.is_empty() { this.is_none_or(|lane| !busy.contains(&lane)) } else { this == chosen };
            if !fits {
                at += 1;
                continue;
            }
            chosen = this;
            taken.extend(self.waiting.remove(at));
        }
        self.ran(&taken);
        (chosen, taken)
    }

    fn ran(&mut self, taken: &[MessageExt]) {
        self.running.extend(taken.iter().map(|message| (message.queue_offset(), message.body().len())));
    }

    /// These are dealt with: consumed, or taken over by the broker for a retry.
    pub(crate) fn finish(&mut self, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            if let Some(bytes) = self.running.remove(&offset) {
                self.bytes -= bytes;
            }
        }
    }

    /// These are to be handed out again, before the ones that still wait.
    pub(crate) fn give_back(&mut self, messages: Vec<MessageExt>) {
        for message in messages.into_iter().rev() {
            if self.running.remove(&message.queue_offset()).is_none() {
                continue;
            }
            let at = self.waiting.partition_point(|other| other.queue_offset() < message.queue_offset());
            self.waiting.insert(at, message);
        }
    }

    /// The offset that may be stored: everything below it is dealt with.
    pub(crate) fn committable(&self) -> i64 {
        let waiting = self.waiting.front().map(MessageExt::queue_offset);
        let running = self.running.keys().next().copied();
        match (waiting, running) {
            (Some(waiting), Some(running)) => waiting.min(running),
            (one, other) => one.or(other).unwrap_or(self.next),
        }
    }

    /// Whether the puller must wait.
    pub(crate) fn is_full(&self, limits: BufferLimits) -> bool {
        let held = self.waiting.len() + self.running.len();
        held >= limits.messages
            || self.bytes >= limits.bytes
            || (held > 0 && self.next - self.committable() > limits.span)
    }

    /// Messages that no handler has begun.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Messages in handlers.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Body bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// One past the newest message seen or skipped.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Forgets what no handler has begun: at loss of the queue or at shutdown. The committable offset then stays at or
    /// below the first message forgotten, so it is delivered again.
    pub(crate) fn drop_waiting(&mut self) {
        if let Some(first) = self.waiting.front().map(MessageExt::queue_offset) {
            self.next = first;
        }
        for message in self.waiting.drain(..) {
            self.bytes -= message.body().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;

    fn filled(range: std::ops::Range<i64>) -> ProcessQueue {
        let mut queue = ProcessQueue::new(range.start);
        queue.put(range.clone().map(|offset| delivered("T", offset, b"0123456789")), range.end);
        queue
    }

    fn offsets(messages: &[MessageExt]) -> Vec<i64> {
        messages.iter().map(MessageExt::queue_offset).collect()
    }

    #[test]
    fn lanes_run_beside_each_other_and_each_in_order() {
        // Even offsets are of lane 0, odd ones of lane 1, from 6 on there is none.
        let lane = |message: &MessageExt| (message.queue_offset() < 6).then_some((message.queue_offset() % 2) as u64);
        let mut queue = filled(0..8);
        let (first, taken) = queue.take_lane(2, &HashSet::new(), lane);
        assert_eq!((first, offsets(&taken)), (Some(0), vec![0, 2]));
        let (second, odd) = queue.take_lane(9, &HashSet::from([0]), lane);
        assert_eq!((second, offsets(&odd)), (Some(1), vec![1, 3, 5]));
        let both = HashSet::from([0, 1]);
        let (none, free) = queue.take_lane(9, &both, lane);
        assert_eq!((none, offsets(&free)), (None, vec![6, 7]));
        assert!(queue.take_lane(9, &both, lane).1.is_empty(), "offset 4 waits for its lane");
        queue.give_back(taken);
        assert_eq!(offsets(&queue.take_lane(9, &HashSet::from([1]), lane).1), [0, 2, 4]);
        assert_eq!(queue.committable(), 0);
        queue.finish(0..8);
        assert_eq!(queue.committable(), 8);
    }

    #[test]
    fn the_offset_waits_for_the_slowest() {
        let mut queue = filled(10..14);
        assert_eq!(offsets(&queue.take(2)), [10, 11]);
        assert_eq!(offsets(&queue.take(9)), [12, 13]);
        queue.finish([11, 12, 13]);
        assert_eq!(queue.committable(), 10);
        queue.finish([10]);
        assert_eq!(queue.committable(), 14);
    }

    #[test]
    fn what_the_filter_skipped_counts_as_done() {
        let mut queue = ProcessQueue::new(5);
        assert_eq!(queue.committable(), 5);
        queue.put([], 40);
        assert_eq!(queue.committable(), 40);
        queue.put([delivered("T", 44, b"x")], 50);
        assert_eq!(queue.committable(), 44);
        queue.take(1);
        queue.finish([44]);
        assert_eq!(queue.committable(), 50);
    }

    #[test]
    fn a_repeated_pull_adds_nothing() {
        let mut queue = filled(0..3);
        queue.put((0..5).map(|offset| delivered("T", offset, b"x")), 5);
        assert_eq!(offsets(&queue.take(9)), [0, 1, 2, 3, 4]);
        queue.put([delivered("T", 2, b"x")], 3);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn given_back_messages_come_first_and_in_order() {
        let mut queue = filled(0..4);
        let taken = queue.take(3);
        queue.finish([1]);
        let back = taken.into_iter().filter(|message| message.queue_offset() != 1).collect();
        queue.give_back(back);
        assert_eq!(queue.committable(), 0);
        assert_eq!(offsets(&queue.take(9)), [0, 2, 3]);
    }

    #[test]
    fn each_bound_stops_the_puller() {
        let limits = BufferLimits { messages: 4, bytes: 35, span: 10 };
        assert!(!filled(0..3).is_full(limits));
        assert!(filled(0..4).is_full(limits));
        assert!(filled(0..3).is_full(BufferLimits { bytes: 30, ..limits }));
        let mut stuck = filled(0..1);
        stuck.take(1);
        stuck.put([], 11);
        assert!(stuck.is_full(limits), "one message unfinished, eleven behind it");
        stuck.finish([0]);
        assert!(!stuck.is_full(limits));
    }

    #[test]
    fn forgetting_the_waiting_keeps_them_to_be_delivered_again() {
        let mut queue = filled(0..6);
        queue.take(2);
        queue.drop_waiting();
        queue.finish([0, 1]);
        assert_eq!(queue.committable(), 2);
        assert!(!queue.is_full(BufferLimits { messages: 1, bytes: 1, span: 1 }), "nothing is counted any more");
    }

    #[test]
    fn random_endings_never_commit_past_an_unfinished_message() {
        let mut state: u64 = 42;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below.max(1)
        };
        let mut queue = ProcessQueue::new(0);
        let (mut running, mut done): (Vec<MessageExt>, Vec<i64>) = (Vec::new(), Vec::new());
        let mut next = 0;
        for _ in 0..2000 {
            match random(4) {
                0 => {
                    let count = random(8) as i64;
                    queue.put((next..next + count).map(|offset| delivered("T", offset, b"x")), next + count);
                    next += count;
                }
                1 => running.extend(queue.take(random(5))),
                2 if !running.is_empty() => {
                    let message = running.swap_remove(random(running.len()));
                    queue.finish([message.queue_offset()]);
                    done.push(message.queue_offset());
                }
                3 if !running.is_empty() => {
                    let message = running.swap_remove(random(running.len()));
                    queue.give_back(vec![message]);
                }
                _ => {}
            }
            let committable = queue.committable();
            assert!((0..committable).all(|offset| done.contains(&offset)), "committable {committable}");
        }
        assert!(done.len() > 100);
    }
}
