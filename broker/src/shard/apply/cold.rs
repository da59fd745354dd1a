//! Commands that come rarely or move whole tables: topics, groups, offsets, locks, timers that are due, expiry, settings.

use std::sync::Arc;

use escrowmq_common::limits;

use super::half_rows::forget_producers;
use super::publish::Place;
use super::staged::{RegistryChange, Staged};
use crate::index::meta::{self, TopicRow};
use crate::index::offset::LockRow;
use crate::index::{self, EntryFlags, IndexError};
use crate::planted::{Bug, planted};
use crate::shard::command::{GiveUp, Lock, OffsetCommit, Settings};
use crate::shard::outcome::{Outcome, Refusal};
use crate::shard::shared::Shared;
use crate::shard::topic::{Queue, Topic};
use crate::terms::to_u32;
use crate::terms::{GroupSettings, HalfId, LostRange, Position, QueueId, Stamp, TopicSettings, decode_cold};

pub(super) fn commit_offsets(
    shared: &Shared,
    staged: &mut Staged,
    commits: &[OffsetCommit<'_>],
) -> Result<Outcome, IndexError> {
    for (nth, commit) in commits.iter().enumerate() {
        let same = |other: &OffsetCommit<'_>| (other.group, other.queue) == (commit.group, commit.queue);
        if planted(Bug::OffsetBack) && commits[..nth].iter().any(same) {
            continue;
        }
        // A queue that was deleted meanwhile keeps no offsets, and neither does a group that was deleted with its own.
        let is_kept = || -> Result<bool, IndexError> {
            Ok(shared.groups.get(commit.group).is_some()
                || index::offset::get(&shared.index, commit.group, commit.queue)?.is_some())
        };
        if shared.topics.queue(commit.queue).is_some() && is_kept()? {
            index::offset::put(&mut staged.rows, commit.group, commit.queue, commit.offset);
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn put_topic(shared: &Shared, staged: &mut Staged, settings: &[u8]) -> Outcome {
    let Ok(settings) = decode_cold::<TopicSettings>(settings) else {
        return Outcome::Refused(Refusal::MalformedSettings);
    };
    if settings.queue_count() > limits::QUEUES_MAX {
        return Outcome::Refused(Refusal::TooManyQueues(settings.queue_count()));
    }
    let name: Arc<str> = Arc::from(settings.name.as_str());
    let mut queues = shared.topics.get(&name).map(|topic| topic.queues.clone()).unwrap_or_default();
    while (queues.len() as u64) < u64::from(settings.queue_count()) {
        let Some(next) = staged.sequences.next_queue.checked_add(1) else {
            return Outcome::Refused(Refusal::QueueIdsExhausted);
        };
        let id = QueueId(staged.sequences.next_queue);
        staged.sequences.next_queue = next;
        let topic_id = queues.first().map_or(id, |first| first.id);
        queues.push(Arc::new(Queue::new(id, topic_id, Arc::clone(&name), to_u32(queues.len()))));
    }
    let row = TopicRow { settings: settings.clone(), queues: queues.iter().map(|queue| queue.id.0).collect() };
    meta::put_topic(&mut staged.rows, &row);
    staged.registry.push(RegistryChange::PutTopic(Topic { settings, queues }));
    Outcome::Done
}

pub(super) fn delete_topic(shared: &Shared, staged: &mut Staged, name: &str) -> Result<Outcome, IndexError> {
    let Some(topic) = shared.topics.get(name) else {
        return Ok(Outcome::Refused(Refusal::NoSuchTopic(name.to_owned())));
    };
    // Its open halves are not touched, however many they are: they cannot be committed any more, and the check-back parks
    // them.
    if planted(Bug::HalfDroppedWithTopic) {
        let mut orphans = Vec::new();
        index::half::scan(&shared.index, HalfId::ZERO, |row| {
            orphans.extend(topic.queues.iter().any(|queue| queue.id == row.queue).then_some(row));
            true
        })?;
        for row in orphans {
            staged.replace_half(Some(&row), None);
        }
    }
    for queue in &topic.queues {
        index::queue::delete_all(&mut staged.rows, queue.id);
        meta::delete_ends(&mut staged.rows, queue.id);
        staged.drop_page(queue.id);
    }
    meta::delete_topic(&mut staged.rows, name);
    staged.registry.push(RegistryChange::RemoveTopic(name.to_owned()));
    Ok(Outcome::Done)
}

pub(super) fn put_group(staged: &mut Staged, settings: &[u8]) -> Outcome {
    let Ok(settings) = decode_cold::<GroupSettings>(settings) else {
        return Outcome::Refused(Refusal::MalformedSettings);
    };
    meta::put_group(&mut staged.rows, &settings);
    staged.registry.push(RegistryChange::PutGroup(settings));
    Outcome::Done
}

pub(super) fn delete_group(shared: &Shared, staged: &mut Staged, group: &str, offsets: bool) -> Outcome {
    if offsets {
        index::offset::delete_group(&mut staged.rows, group);
    }
    if shared.groups.get(group).is_none() {
        return Outcome::Refused(Refusal::NoSuchGroup(group.to_owned()));
    }
    meta::delete_group(&mut staged.rows, group);
    staged.registry.push(RegistryChange::RemoveGroup(group.to_owned()));
    Outcome::Done
}

pub(super) fn fire(shared: &Shared, staged: &mut Staged, upto: Stamp, limit: u32) -> Result<Outcome, IndexError> {
    // Timers that fired before left nothing but tombstones: the look begins after them.
    let due = index::timer::due(&shared.index, shared.counters.timers_from(), upto, limit as usize)?;
    let fired = to_u32(due.len());
    // Timers that are stored from now on are due after this entry's stamp.
    let all_until = upto.min(staged.stamp()).saturating_add(1);
    let from = if fired < limit { Some(all_until) } else { due.last().map(|row| row.due.min(all_until)) };
    from.inspect(|from| shared.counters.timers_fired(*from));
    for row in due {
        staged.count(|sequences| &mut sequences.timers, -1);
        let Some(queue) = shared.topics.queue(row.queue) else {
            // Its topic was deleted, and its messages with it.
            row.delete(&mut staged.rows);
            continue;
        };
        let place = Place {
            queue: &queue,
            position: row.position,
            length: row.length,
            tag_hash: row.tag_hash,
            flags: row.flags.with(EntryFlags::FIRED),
            half: row.half,
        };
        let (entered, offset) = place.enter_seen(shared, staged);
        if !planted(Bug::TimerTwice) {
            row.fired(&mut staged.rows, offset, entered.id);
        }
        if row.flags.is_committed()
            && let Some(mut decision) = staged.decision(&shared.index, row.half)?
        {
            (decision.offset, decision.queue) = (Some(offset), entered.id);
            staged.put_decision(row.half, decision);
        }
    }
    Ok(Outcome::Handled(fired))
}

/// Says how many were forgotten: one, or none if it is not waiting any more. A committed message is not forgotten: its
/// transaction has ended with its delivery.
pub(super) fn cancel(
    shared: &Shared,
    staged: &mut Staged,
    due: Stamp,
    position: Position,
) -> Result<Outcome, IndexError> {
    let Some(row) = index::timer::get(&shared.index, due, position)?.filter(|row| !row.flags.is_committed()) else {
        return Ok(Outcome::Handled(0));
    };
    row.delete(&mut staged.rows);
    staged.count(|sequences| &mut sequences.timers, -1);
    Ok(Outcome::Handled(1))
}

pub(super) fn lock(shared: &Shared, staged: &mut Staged, lock: &Lock<'_>) -> Result<Outcome, IndexError> {
    let now = staged.stamp();
    let mut held = Vec::new();
    for queue in &lock.queues {
        let taken = index::offset::get_lock(&shared.index, lock.group, *queue)?
            .is_some_and(|row| row.until > now && row.client != lock.client);
        if !taken {
            let row = LockRow { client: lock.client.to_owned(), until: now.saturating_add(lock.life) };
            index::offset::put_lock(&mut staged.rows, lock.group, *queue, &row);
            held.push(*queue);
        }
    }
    Ok(Outcome::Locked(held))
}

pub(super) fn unlock(shared: &Shared, staged: &mut Staged, lock: &Lock<'_>) -> Result<Outcome, IndexError> {
    for queue in &lock.queues {
        if index::offset::get_lock(&shared.index, lock.group, *queue)?.is_some_and(|row| row.client == lock.client) {
            index::offset::delete_lock(&mut staged.rows, lock.group, *queue);
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn give_up(staged: &mut Staged, given: &GiveUp<'_>) -> Outcome {
    let range = LostRange {
        positions: given.positions.clone(),
        messages: given.messages,
        at: staged.stamp(),
        by: given.by.to_owned(),
        why: given.why.to_owned(),
    };
    meta::put_lost(&mut staged.rows, &range);
    staged.registry.push(RegistryChange::GiveUp(range));
    Outcome::Done
}

/// Settings of the group.
pub(super) fn settings(shared: &Shared, staged: &mut Staged, settings: &Settings<'_>) -> Outcome {
    let agreed = shared.agreement.now();
    let is_wanted = |key: &str| !settings.only_missing || !agreed.settings.contains_key(key);
    let values = settings.values.iter().filter(|(key, _)| is_wanted(key));
    let values: Vec<_> = values.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    for (key, value) in &values {
        meta::put_setting(&mut staged.rows, key, value);
    }
    staged.registry.push(RegistryChange::Settings(values));
    Outcome::Done
}

/// The level never falls.
pub(super) fn feature(shared: &Shared, staged: &mut Staged, level: u32) -> Outcome {
    let level = level.max(shared.agreement.now().level);
    meta::put_level(&mut staged.rows, level);
    staged.registry.push(RegistryChange::Level(level));
    Outcome::Done
}

/// Decisions made before a time are not seen any more. Costs nothing: their bytes go when files are merged.
pub(super) fn expire(shared: &Shared, staged: &mut Staged, decided_before: Stamp) -> Result<Outcome, IndexError> {
    if Some(decided_before) > meta::forgotten(&shared.index)? {
        meta::put_forgotten(&mut staged.rows, decided_before);
        forget_producers(shared, staged, decided_before);
    }
    Ok(Outcome::Done)
}
