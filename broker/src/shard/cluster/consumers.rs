//! Consumers of the group: each has one queue for one group, pulls it, and commits how far it has come.
//!
//! They read through the office of a leader and its newest offsets, as the handlers of a broker do, and go to another node when
//! they are not answered. Judged at each step:
//!
//! - a queue shows the same message at an offset, whoever leads, and never ends before what was consumed of it;
//! - a group's offset is never beyond what it has consumed, so nothing is skipped;
//! - it is never below what was acknowledged as stored, nor, at one leader, below what that leader took or told before.
//!
//! At the end each has consumed its queue to the end, and that is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::message::MessageUnit;
use parking_lot::Mutex;

use super::clients::TOPIC;
use super::desk::Desk;
use super::net::Seat;
use super::node::Node;
use crate::log::sim_disk::Random;
use crate::shard::{Queue, Shard};
use crate::terms::{QueueId, QueueOffset};

/// Their groups.
pub(super) const GROUPS: [&str; 2] = ["readers-0", "readers-1"];

/// A message that was pulled: its queue, its offset.
type At = (QueueId, QueueOffset);

/// Commits that are stored: which consumer's, and what.
type Stored = Arc<Mutex<Vec<(usize, QueueOffset)>>>;

struct Consumer {
    group: &'static str,
    /// The number of its queue in the topic.
    queue: usize,
    target: Seat,
    next_at: Duration,
    /// Where it is connected to: seat, life of the node, term of its office.
    session: Option<(Seat, u64, u64)>,
    connection: u64,
    /// It goes on there; unknown before it has asked.
    position: Option<QueueOffset>,
    /// Everything before was consumed.
    consumed: QueueOffset,
    /// Everything before is acknowledged as stored.
    stored: QueueOffset,
    /// The term in which this offset was taken or told.
    told: (u64, QueueOffset),
}

/// See the module.
pub(super) struct Consumers {
    all: Vec<Consumer>,
    pub(super) seen: BTreeMap<At, String>,
    results: Stored,
    random: Random,
    connections: u64,
    pub(super) pulled: u64,
    pub(super) stored: u64,
}

impl Consumers {
    pub(super) fn new(seed: u64) -> Self {
        let of = |group: &'static str| {
            (0..TOPIC.1 as usize).map(move |queue| Consumer {
                group,
                queue,
                target: queue,
                next_at: Duration::ZERO,
                session: None,
                connection: 0,
                position: None,
                consumed: QueueOffset::ZERO,
                stored: QueueOffset::ZERO,
                told: (0, QueueOffset::ZERO),
            })
        };
        Self {
            all: GROUPS.into_iter().flat_map(of).collect(),
            seen: BTreeMap::new(),
            results: Stored::default(),
            random: Random::new(seed),
            connections: 0,
            pulled: 0,
            stored: 0,
        }
    }

    /// When the next one has something to do.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.all.iter().map(|consumer| consumer.next_at).min()
    }

    /// Lets one consumer do something. Says whether one did.
    pub(super) fn step(&mut self, nodes: &[Node], now: Duration) -> Result<bool, String> {
        for (nth, offset) in std::mem::take(&mut *self.results.lock()) {
            let consumer = &mut self.all[nth];
            consumer.stored = consumer.stored.max(offset);
            self.stored += 1;
        }
        let Some(nth) = self.all.iter().position(|consumer| consumer.next_at <= now) else { return Ok(false) };
        let consumer = &mut self.all[nth];
        consumer.next_at = now + Duration::from_millis(20 + self.random.below(180));
        let node = &nodes[consumer.target % nodes.len()];
        let desk = node.desk().filter(|desk| now >= node.paused_until && desk.office.is_held());
        let (Some(desk), Some(shard)) = (desk, node.shard()) else {
            consumer.target = (consumer.target + 1) % nodes.len();
            consumer.next_at = now + Duration::from_millis(5 + self.random.below(60));
            return Ok(true);
        };
        let Some(topic) = shard.topics().get(TOPIC.0) else { return Ok(true) };
        let queue = &topic.queues[consumer.queue];
        let session = Some((node.seat, node.life, node.term_led().unwrap_or(0)));
        if consumer.session != session {
            self.connections += 1;
            (consumer.session, consumer.connection, consumer.position) = (session, self.connections, None);
        }
        let group = consumer.group;
        let who = |what: String| format!("{group} at queue {} of node {}: {what}", queue.id, node.seat);
        match consumer.position {
            None => consumer.ask(desk, shard, queue).map_err(who)?,
            Some(position) => {
                let most = 1 + self.random.below(8) as usize;
                let (pulled, next) = pull(shard, queue, position, most).map_err(who)?;
                self.pulled += pulled.len() as u64;
                desk.offsets.pulled(consumer.group, queue.id, consumer.connection, position);
                for (offset, body) in pulled {
                    let known = self.seen.entry((queue.id, offset)).or_insert_with(|| body.clone());
                    if *known != body {
                        return Err(format!("offset {offset} of queue {} was {known}, and is {body}", queue.id));
                    }
                }
                consumer.position = Some(next);
                consumer.consumed = consumer.consumed.max(next);
                if self.random.below(2) == 0 {
                    consumer.commit(desk, shard, queue);
                    if self.random.below(3) == 0 {
                        let results = Arc::clone(&self.results);
                        let offset = consumer.position;
                        desk.offsets.when_stored(move |stored| {
                            if let (Ok(()), Some(offset)) = (stored, offset) {
                                results.lock().push((nth, offset));
                            }
                        });
                    }
                }
            }
        }
        Ok(true)
    }

    /// Whether each has consumed all of its queue, and that is stored.
    pub(super) fn are_done(&self, shard: &Shard) -> bool {
        let Some(topic) = shard.topics().get(TOPIC.0) else { return false };
        self.all.iter().all(|consumer| {
            let end = topic.queues[consumer.queue].max_offset();
            consumer.consumed == end && consumer.stored == end
        })
    }
}

impl Consumer {
    /// Asks how far its group has come.
    fn ask(&mut self, desk: &Desk, shard: &Shard, queue: &Queue) -> Result<(), String> {
        let newest = desk.offsets.newest(shard, self.group, queue.id).map_err(|error| error.to_string())?;
        let newest = newest.unwrap_or(QueueOffset::ZERO);
        let term = self.session.map_or(0, |(_, _, term)| term);
        let least = if self.told.0 == term { self.told.1.max(self.stored) } else { self.stored };
        if newest < least {
            return Err(format!("its offset is {newest}, and {least} was acknowledged"));
        }
        if newest > self.consumed {
            return Err(format!(
                "its offset is {newest}, and it has consumed up to {}: the rest is skipped",
                self.consumed
            ));
        }
        self.told = (term, newest);
        self.position = Some(newest);
        Ok(())
    }

    fn commit(&mut self, desk: &Desk, shard: &Shard, queue: &Queue) {
        let Some(offset) = self.position else { return };
        if desk.offsets.commit(shard, self.group, queue.id, offset, self.connection, || true).is_ok() {
            self.told = (self.session.map_or(0, |(_, _, term)| term), offset);
        } else {
            // It asks anew.
            self.position = None;
        }
    }
}

/// Messages by their offsets, and the offset that comes after what was looked at.
type Pulled = (Vec<(QueueOffset, String)>, QueueOffset);

/// The next messages of a queue.
fn pull(shard: &Shard, queue: &Queue, from: QueueOffset, most: usize) -> Result<Pulled, String> {
    if from > queue.max_offset() {
        return Err(format!("it ends at {}, and was consumed up to {from}", queue.max_offset()));
    }
    let found = shard.entries(queue, from, most, most, |_| true).map_err(|error| error.to_string())?;
    let mut messages = Vec::with_capacity(found.wanted.len());
    let first = from.max(queue.min_offset());
    for (expected, entry) in (first.get()..).zip(&found.wanted) {
        if entry.offset != QueueOffset(expected) {
            return Err(format!("offset {} follows where {expected} is due", entry.offset));
        }
        let mut unit = BytesMut::new();
        match shard.unit(queue, entry, &mut unit) {
            Ok(()) => {}
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error.to_string()),
        }
        let unit = MessageUnit::decode(&unit).map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(unit.body());
        // The beginning tells bodies apart.
        messages.push((entry.offset, body.split('-').next().unwrap_or_default().to_owned()));
    }
    Ok((messages, found.next_offset))
}
