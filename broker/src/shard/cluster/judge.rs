//! The judgement of a run that has healed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::cuts::act::Act;
use super::super::cuts::view::View;
use super::clients::Op;
use super::world::World;
use crate::log::Record;
use crate::raft::kind;
use crate::shard::{Batch, Outcome, Shard, SubmitError};
use crate::terms::{Decision, Entered, HalfId, LogIndex, Position, QueueId, QueueOffset, Stamp};

/// A new leader may be so far ahead, in milliseconds.
const STEP_MS: u64 = 60_000;

/// A message that can be consumed.
struct Seen {
    queue: u32,
    offset: QueueOffset,
    position: Position,
    half: HalfId,
    committed: bool,
    since: Stamp,
}

/// Says how many entries the log has; an error says what is wrong.
pub(super) fn judge(world: &World) -> Result<u64, String> {
    let entries = logs_are_equal(world)?;
    let view = states_are_equal(world)?;
    time_goes_evenly(world)?;
    nothing_is_on_its_way(world)?;
    let seen = seen(&view)?;
    for op in &world.clients.ops {
        ledger_holds(op, &view, &seen)?;
    }
    nobody_else_wrote(world, &seen, &view)?;
    order_holds(world)?;
    consumed_is_there(world, &view, &seen)?;
    for half in &world.clients.halves {
        let decision = view.decisions.get(&half.id).map(|row| row.decision);
        if decision.is_none() || half.settled.is_some_and(|settled| Some(settled) != decision) {
            return Err(format!("half {} was told to be {:?}, and is {decision:?}", half.id, half.settled));
        }
    }
    for (queue, end) in &world.clients.ends {
        let found = view.queues.get(queue).map_or(0, |queue| queue.min.get() + queue.entries.len() as u64);
        if found < end.get() {
            return Err(format!("queue {queue} ends at {found}, and somebody knew it up to {end}"));
        }
    }
    Ok(entries)
}

fn records(shard: &Shard) -> Result<Vec<Record>, String> {
    let log = shard.log();
    let end = log.last().map_or(LogIndex::ZERO, |last| last.index.next());
    let mut records: Vec<Record> = Vec::new();
    let mut from = log.first_index();
    while from < end {
        let read = log.read_entries(from, end, 1 << 20).map_err(|error| error.to_string())?;
        from = read.last().ok_or_else(|| format!("entry {from} is missing"))?.index.next();
        records.extend(read);
    }
    Ok(records)
}

/// Logs are equal byte by byte where more than one node holds them.
fn logs_are_equal(world: &World) -> Result<u64, String> {
    let mut known: BTreeMap<LogIndex, (usize, Record)> = BTreeMap::new();
    for node in &world.nodes {
        for record in records(node.shard().ok_or("a node is down")?)? {
            match known.get(&record.index) {
                Some((seat, other)) if *other != record => {
                    return Err(format!(
                        "entry {} differs between nodes {seat} and {}: {:?} and {:?}",
                        record.index,
                        node.seat,
                        (other.term, other.position, other.crc),
                        (record.term, record.position, record.crc),
                    ));
                }
                Some(_) => {}
                None => drop(known.insert(record.index, (node.seat, record))),
            }
        }
    }
    Ok(known.len() as u64)
}

/// The group's time does not go back, and does not jump with the clock of a new leader.
fn time_goes_evenly(world: &World) -> Result<(), String> {
    let most = STEP_MS + world.now().as_millis() as u64;
    let mut last: Option<Stamp> = None;
    for record in records(world.nodes[0].shard().ok_or("a node is down")?)? {
        if record.kind != kind::BATCH {
            continue;
        }
        let stamp = Batch::decode(&record.payload).map_err(|error| error.to_string())?.stamp;
        if let Some(last) = last.filter(|last| stamp < *last || stamp.since(*last) > most) {
            return Err(format!("entry {} is of time {stamp}, and the one before of {last}", record.index));
        }
        last = Some(stamp);
    }
    Ok(())
}

fn states_are_equal(world: &World) -> Result<View, String> {
    let mut first: Option<View> = None;
    for node in &world.nodes {
        let view = View::of(node.shard().ok_or("a node is down")?)?;
        match &first {
            None => first = Some(view),
            Some(expected) => {
                let differences = expected.differences(&view);
                if !differences.is_empty() {
                    return Err(format!("the state of node {} differs from that of node 0:\n{differences}", node.seat));
                }
            }
        }
    }
    first.ok_or_else(|| "there is no node".to_owned())
}

fn nothing_is_on_its_way(world: &World) -> Result<(), String> {
    for node in &world.nodes {
        let intake = node.shard().ok_or("a node is down")?.intake();
        let (bytes, entries) = (intake.bytes(), intake.entries());
        if (bytes, entries) != (0, 0) {
            return Err(format!(
                "node {} counts {entries} entries of {bytes} bytes on their way, and is idle",
                node.seat
            ));
        }
    }
    Ok(())
}

/// All messages that can be consumed, by their bodies, which are like no others.
fn seen(view: &View) -> Result<BTreeMap<&str, Seen>, String> {
    let mut seen = BTreeMap::new();
    for (queue, content) in &view.queues {
        for (nth, entry) in content.entries.iter().enumerate() {
            // The bytes of a half that was committed late may go before its place in the queue does.
            if entry.body.is_empty() {
                continue;
            }
            let offset = QueueOffset(content.min.get() + nth as u64);
            let (position, half, committed) = (entry.position, entry.half, entry.committed);
            let found = Seen { queue: *queue, offset, position, half, committed, since: entry.store_time };
            if seen.insert(entry.body.as_str(), found).is_some() {
                return Err(format!("message {} is there twice", name(&entry.body)));
            }
        }
    }
    Ok(seen)
}

/// The beginning of a body.
fn name(body: &str) -> &str {
    body.split('-').next().unwrap_or(body)
}

/// What one client was told is so.
fn ledger_holds(op: &Op, view: &View, seen: &BTreeMap<&str, Seen>) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{:?} was answered with {:?}: {what}", op.act, op.result));
    let stored = !matches!(&op.result, Some(Err(error)) if !error.outcome_unknown());
    match (&op.act, &op.result) {
        (Act::Publish { queue, bodies, .. }, Some(Ok(Outcome::Published(published)))) => {
            for (nth, body) in bodies.iter().enumerate() {
                let position = if nth == 0 { published.position } else { published.more_positions[nth - 1] };
                let found = seen.get(body.as_str());
                let is_right = |found: &&Seen| match published.entered {
                    Entered::Queue(first) => found.offset == QueueOffset(first.get() + nth as u64),
                    Entered::Waits { due, .. } => found.since >= due,
                };
                let found_at = found.map(|found| (found.queue, found.offset, found.position, found.since));
                if found.is_none() && position < view.trimmed {
                    continue;
                }
                if found.filter(is_right).is_none_or(|found| (found.queue, found.position) != (*queue, position)) {
                    return wrong(format!("message {} is at {found_at:?}", name(body)));
                }
            }
        }
        (Act::Publish { bodies, .. }, _) => {
            let there = bodies.iter().filter(|body| seen.contains_key(body.as_str())).count();
            if there > 0 && !stored {
                return wrong(format!("message {} is there", name(&bodies[0])));
            }
            if there > 0 && there < bodies.len() {
                return wrong(format!("{there} of its {} messages are there", bodies.len()));
            }
        }
        (Act::Prepare { .. }, Some(Ok(Outcome::Prepared(half)))) if !view.decisions.contains_key(&half.half) => {
            return wrong("its half is lost".to_owned());
        }
        (Act::Prepare { body, .. }, _) if !stored && seen.contains_key(body.as_str()) => {
            return wrong("its message is there".to_owned());
        }
        (Act::Settings { values, .. }, Some(Ok(Outcome::Done)))
            if values.iter().any(|(key, _)| !view.agreed.settings.contains_key(key)) =>
        {
            return wrong(format!("a setting is lost: {:?}", view.agreed));
        }
        (Act::Feature(level), Some(Ok(Outcome::Done))) if view.agreed.level < *level => {
            return wrong(format!("the level fell: {:?}", view.agreed));
        }
        (Act::Settle { .. }, Some(Err(SubmitError::TooLong(_) | SubmitError::Unencodable))) => {
            return wrong("that is a fault of the shard".to_owned());
        }
        _ => {}
    }
    Ok(())
}

/// Each message that can be consumed was sent, and if it was half a message it was committed.
fn nobody_else_wrote(world: &World, seen: &BTreeMap<&str, Seen>, view: &View) -> Result<(), String> {
    let mut sent: BTreeMap<&str, bool> = BTreeMap::new();
    for op in &world.clients.ops {
        match &op.act {
            Act::Publish { bodies, .. } => {
                for body in bodies {
                    sent.insert(body, false);
                }
            }
            Act::Prepare { body, .. } => {
                sent.insert(body, true);
            }
            _ => {}
        }
    }
    for (body, found) in seen {
        let Some(is_half) = sent.get(body) else { return Err(format!("nobody sent message {}", name(body))) };
        let committed = view.decisions.get(&found.half).is_some_and(|row| row.decision == Decision::Commit);
        if *is_half != found.committed || *is_half && !committed {
            return Err(format!("half message {} can be consumed, and was not committed", name(body)));
        }
    }
    Ok(())
}

/// A message that was sent after another one of the same queue was acknowledged comes after it.
fn order_holds(world: &World) -> Result<(), String> {
    let mut by_queue: BTreeMap<u32, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for op in &world.clients.ops {
        if let (Act::Publish { queue, .. }, Some(Ok(Outcome::Published(published))), Some(answered)) =
            (&op.act, &op.result, op.answered)
            && let Entered::Queue(offset) = published.entered
        {
            by_queue.entry(*queue).or_default().push((op.invoked, answered, offset.get()));
        }
    }
    for (queue, mut sent) in by_queue {
        sent.sort_unstable();
        // The highest offset of those that were answered before this one was sent.
        let mut answered: Vec<(u64, u64)> = sent.iter().map(|(_, answered, offset)| (*answered, *offset)).collect();
        answered.sort_unstable();
        let (mut next, mut highest) = (0, None);
        for (invoked, _, offset) in sent {
            while next < answered.len() && answered[next].0 < invoked {
                highest = highest.max(Some(answered[next].1));
                next += 1;
            }
            if Some(offset) <= highest {
                return Err(format!("offset {offset} of queue {queue} was given after {highest:?}"));
            }
        }
    }
    Ok(())
}

/// Consumers got each message of their queues, and no other. Retention may have taken some of them since.
fn consumed_is_there(world: &World, view: &View, seen: &BTreeMap<&str, Seen>) -> Result<(), String> {
    let consumed = &world.consumers.seen;
    for (body, found) in seen {
        match consumed.get(&(QueueId(found.queue), found.offset)) {
            Some(got) if *got == name(body) => {}
            got => return Err(format!("message {} was consumed as {got:?}", name(body))),
        }
    }
    let there: BTreeSet<(u32, QueueOffset)> = seen.values().map(|found| (found.queue, found.offset)).collect();
    for (QueueId(queue), offset) in consumed.keys().filter(|(queue, offset)| !there.contains(&(queue.0, *offset))) {
        let content = view.queues.get(queue).ok_or_else(|| format!("queue {queue} was consumed, and is not there"))?;
        let entry = offset.get().checked_sub(content.min.get()).map(|nth| content.entries.get(nth as usize));
        let is_gone = entry.is_none_or(|entry| entry.is_some_and(|entry| entry.position < view.trimmed));
        if !is_gone {
            return Err(format!("offset {offset} of queue {queue} was consumed, and is not there"));
        }
    }
    Ok(())
}
