//! Messages enter their queue, now or at their time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::staged::Staged;
use crate::index::half::{First, Repeat, RepeatKey, RepeatPlace, repeat_key};
use crate::index::{EntryFlags, IndexError, QueueEntry, TimerRow, timer};
use crate::shard::command::{Once, Publish};
use crate::shard::message::{Message, Unit};
use crate::shard::outcome::{Outcome, Published, Refusal};
use crate::shard::shared::Shared;
use crate::shard::topic::Queue;
use crate::terms::to_u32;
use crate::terms::{Entered, HalfId, Position, QueueOffset, Stamp, When};

pub(super) fn publish(shared: &Shared, staged: &mut Staged, publish: &Publish<'_>) -> Result<Outcome, IndexError> {
    let Some(queue) = shared.topics.queue(publish.queue) else {
        return Ok(Outcome::Refused(Refusal::NoSuchQueue(publish.queue)));
    };
    // The topic shrank while the message was on its way: its sender tries another queue.
    if queue.is_given_up() {
        return Ok(Outcome::Refused(Refusal::NoSuchQueue(publish.queue)));
    }
    let once = publish.once.map(|once| (once, once_key(&queue.topic, &once)));
    if let Some((_, key)) = once
        && let Some(first) = repeated(shared, staged, key)?
    {
        return Ok(first);
    }
    let mut published: Option<Published> = None;
    for message in publish.messages.stored() {
        let (position, length) = extent(staged, &message);
        let place = Place {
            queue: &queue,
            position,
            length,
            tag_hash: message.tag_hash,
            flags: EntryFlags::PLAIN,
            half: HalfId::at(position),
        };
        let entered = place.enter(staged, publish.when);
        match &mut published {
            None => {
                let (stamp, more_positions) = (staged.stamp(), Vec::new());
                published = Some(Published { entered, position, more_positions, stamp, repeats: None });
            }
            Some(first) => first.more_positions.push(position),
        }
    }
    if let Some((once, key)) = once
        && let Some(first) = &published
    {
        let Published { position, entered, stamp, .. } = *first;
        let place = RepeatPlace { position, queue: queue.id, entered, stamp };
        let ends = Some(stamp.saturating_add(once.window));
        staged.put_repeat(key, Repeat { first: First::Message(place), ends });
    }
    Ok(published.map_or(Outcome::Done, Outcome::Published))
}

/// No producer group has this name, so that a plain message never repeats a half.
fn once_key(topic: &str, once: &Once<'_>) -> RepeatKey {
    repeat_key("", topic, once.unique_id, once.content)
}

/// A message that was sent before gets the first one's place. `None` if it was not sent before.
fn repeated(shared: &Shared, staged: &Staged, key: RepeatKey) -> Result<Option<Outcome>, IndexError> {
    let Some(First::Message(place)) = staged.repeat(&shared.index, key)?.map(|known| known.first) else {
        return Ok(None);
    };
    // Its topic may have been deleted, and created again.
    if shared.topics.queue(place.queue).is_none() {
        return Ok(None);
    }
    shared.counters.repeated_messages.fetch_add(1, Ordering::Relaxed);
    Ok(Some(Outcome::Published(Published {
        entered: place.entered,
        position: place.position,
        more_positions: Vec::new(),
        stamp: place.stamp,
        repeats: Some(place.queue),
    })))
}

/// Log position and length of a message's unit.
pub(super) fn extent(staged: &Staged, message: &Message<'_>) -> (Position, u32) {
    let Unit::Stored { at, bytes, .. } = message.unit else {
        unreachable!("only decoded commands are applied");
    };
    (staged.position(at), to_u32(bytes.len()))
}

/// The time that a message waits for; `None` if that is now or has passed.
pub(super) fn due(staged: &Staged, when: When) -> Option<Stamp> {
    let now = staged.stamp();
    let due = match when {
        When::Now => None,
        When::After(millis) => Some(now.saturating_add(millis)),
        When::At(time) => Some(time),
    };
    due.filter(|due| *due > now)
}

/// A message about to enter a queue.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) queue: &'a Arc<Queue>,
    pub(super) position: Position,
    pub(super) length: u32,
    pub(super) tag_hash: i32,
    pub(super) flags: EntryFlags,
    pub(super) half: HalfId,
}

impl Place<'_> {
    /// Enters the queue, or waits.
    pub(super) fn enter(&self, staged: &mut Staged, when: When) -> Entered {
        match due(staged, when) {
            None => Entered::Queue(self.enter_now(staged)),
            Some(due) => Entered::Waits { number: self.wait(staged, due), due },
        }
    }

    /// Waits for its time. Says the number among the waiting ones.
    pub(super) fn wait(&self, staged: &mut Staged, due: Stamp) -> u64 {
        TimerRow {
            due,
            position: self.position,
            queue: self.queue.id,
            length: self.length,
            tag_hash: self.tag_hash,
            flags: self.flags,
            half: self.half,
        }
        .put(&mut staged.rows);
        let number = staged.sequences.next_timer;
        staged.count(|sequences| &mut sequences.next_timer, 1);
        staged.count(|sequences| &mut sequences.timers, 1);
        staged.timers_changed = true;
        number
    }

    /// A message that nobody has seen yet becomes visible: enters its queue, or the one that consumers read instead since the
    /// topic has shrunk. Says which one and the offset.
    pub(super) fn enter_seen(&self, shared: &Shared, staged: &mut Staged) -> (Arc<Queue>, QueueOffset) {
        let queue = shared.topics.entered(self.queue);
        let offset = Place { queue: &queue, ..*self }.enter_now(staged);
        if queue.id != self.queue.id {
            // Its bytes name the queue that it was sent to: looking it up needs to know.
            timer::put_moved(&mut staged.rows, self.position, offset, queue.id);
        }
        (queue, offset)
    }

    /// Enters the queue and says the offset.
    pub(super) fn enter_now(&self, staged: &mut Staged) -> QueueOffset {
        let entry = QueueEntry {
            offset: QueueOffset::ZERO,
            position: self.position,
            length: self.length,
            tag_hash: self.tag_hash,
            store_time: staged.stamp(),
            flags: self.flags,
            half: self.half,
        };
        staged.push(self.queue, &entry)
    }
}
