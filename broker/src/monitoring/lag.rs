//! How far consumer groups are behind: in messages, and by the age of the oldest message that waits.
//!
//! The number of messages follows from offsets that are in memory, mostly. The age needs the queue entry of the oldest one, which
//! may be in a file. So a look has a budget of time: when it is used up, the next look goes on with the groups that come next, and
//! those that were not looked at show what the last look found. An entry that was read once is not read again while it stays the
//! oldest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::client_registry::ClientRegistry;
use crate::delivery::Delivery;
use crate::index::IndexError;
use crate::shard::{Queue, Shard};
use crate::terms::{QueueId, QueueOffset, Stamp};

/// Time that a look may take.
const BUDGET: Duration = Duration::from_millis(200);

/// A group in a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// Messages that it has not consumed.
    pub(super) messages: u64,
    /// When the oldest of these entered its queue.
    pub(super) oldest: Option<Stamp>,
}

/// A group at its last look.
#[derive(Debug)]
struct Looked {
    at: Stamp,
    by_topic: BTreeMap<Arc<str>, Lag>,
    /// The first entry that was not consumed, and when it entered the queue.
    heads: HashMap<QueueId, (QueueOffset, Stamp)>,
}

impl Looked {
    fn new(at: Stamp) -> Self {
        Self { at, by_topic: BTreeMap::new(), heads: HashMap::new() }
    }
}

/// The lags of all groups.
#[derive(Debug, Default)]
pub(super) struct Lags {
    by_group: BTreeMap<Arc<str>, Looked>,
    /// The group that the last look ended with, if it had no time for all.
    last: Option<Arc<str>>,
}

/// Where lags are read.
pub(super) struct Reader<'a> {
    pub(super) shard: &'a Shard,
    pub(super) delivery: &'a Delivery,
    pub(super) clients: &'a ClientRegistry,
}

impl Lags {
    /// Looks at the groups that there are now, or at as many as time allows. `clock` is monotonic.
    pub(super) fn look(&mut self, reader: &Reader<'_>, now: Stamp, clock: impl Fn() -> Duration) {
        let mut names: Vec<Arc<str>> =
            reader.shard.groups().all().iter().map(|group| Arc::from(group.name.as_str())).collect();
        names.sort_unstable();
        self.by_group.retain(|name, _| names.binary_search(name).is_ok());
        let first = self.last.take().map_or(0, |last| names.partition_point(|name| *name <= last));
        let deadline = clock() + BUDGET;
        for (nth, name) in names[first..].iter().chain(&names[..first]).enumerate() {
            // At least one, so that each gets its turn.
            if nth > 0 && clock() >= deadline {
                break;
            }
            let before = self.by_group.remove(name).unwrap_or_else(|| Looked::new(now));
            match reader.look(name, &before, now) {
                Ok(looked) => drop(self.by_group.insert(Arc::clone(name), looked)),
                Err(error) => tracing::warn!(group = &**name, %error, "cannot read offsets for metrics"),
            }
            self.last = Some(Arc::clone(name));
            if nth + 1 == names.len() {
                self.last = None;
            }
        }
        // Those that have not had their turn are as old as the first look.
        for name in names {
            self.by_group.entry(name).or_insert_with(|| Looked::new(now));
        }
    }

    /// How old the oldest figure is, in milliseconds.
    pub(super) fn age(&self, now: Stamp) -> u64 {
        self.by_group.values().map(|looked| now.since(looked.at)).max().unwrap_or_default()
    }

    /// All lags, by group and topic.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Lag)> {
        self.by_group
            .iter()
            .flat_map(|(group, looked)| looked.by_topic.iter().map(move |(topic, lag)| (group, topic, *lag)))
    }

    /// Forgets all: this member does not lead.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Reader<'_> {
    fn look(&self, group: &str, before: &Looked, now: Stamp) -> Result<Looked, IndexError> {
        let mut looked = Looked::new(now);
        let offsets: HashMap<QueueId, QueueOffset> =
            self.delivery.offsets.all_of(self.shard, group)?.into_iter().collect();
        // What the connected members do not want does not wait for them.
        let view = self.clients.consumer_group(group).filter(|view| !view.subscriptions.is_empty());
        let is_wanted =
            |topic: &str| view.as_ref().is_none_or(|view| view.subscriptions.iter().any(|one| one.data.topic == topic));
        for queue in offsets.keys() {
            let Some(queue) = self.shard.topics().queue(*queue) else { continue };
            if looked.by_topic.contains_key(&queue.topic) || !is_wanted(&queue.topic) {
                continue;
            }
            let Some(topic) = self.shard.topics().get(&queue.topic) else { continue };
            let mut lag = Lag::default();
            for queue in topic.queues.iter().take(topic.settings.read_queues as usize) {
                let consumed = offsets.get(&queue.id).copied().unwrap_or(QueueOffset::ZERO).max(queue.min_offset());
                let waiting = queue.max_offset().get().saturating_sub(consumed.get());
                if waiting == 0 {
                    continue;
                }
                lag.messages += waiting;
                let known = before.heads.get(&queue.id).filter(|(offset, _)| *offset == consumed).map(|(_, at)| *at);
                if let Some(at) = known.or_else(|| self.entered_at(queue, consumed)) {
                    looked.heads.insert(queue.id, (consumed, at));
                    lag.oldest = Some(lag.oldest.map_or(at, |oldest| oldest.min(at)));
                }
            }
            looked.by_topic.insert(Arc::clone(&queue.topic), lag);
        }
        Ok(looked)
    }

    fn entered_at(&self, queue: &Queue, offset: QueueOffset) -> Option<Stamp> {
        let entry = self.shard.entry(queue, offset).inspect_err(|error| {
            tracing::warn!(topic = &*queue.topic, queue = queue.index, %offset, %error, "cannot read an entry for metrics");
        });
        entry.ok()?.map(|entry| entry.store_time)
    }
}
