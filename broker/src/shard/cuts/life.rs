//! One life of a shard: opened on a disk that records, given random commands, closed.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock::Clock;
use parking_lot::Mutex;

use super::act::{Act, PRODUCERS, Place};
use super::history::History;
use super::model::Model;
use super::stepper::Stepped;
use super::view::View;
use crate::index::{Index, IndexBatch, IndexError, IndexReader};
use crate::log::sim_disk::{Random, SimDisk};
use crate::log::{Drive, Flush, LogSettings};
use crate::retention::{Rewritten, gather, gather_due, last_index_below, rewritten};
use crate::shard::{Admission, CheckedHalf, Outcome, ReadError, Shard, SubmitError};
use crate::storage::StorageSettings;
use crate::terms::{Decision, FEATURE_LEVEL, HalfId, ParkReason, Position, QueueOffset, Stamp, When};

/// All rows of an index.
pub(in crate::shard) type Rows = Arc<Vec<(Box<[u8]>, Box<[u8]>)>>;

/// The part of the machine's file system beside the log.
#[derive(Clone, Default)]
pub(super) struct Kept {
    pub(super) index: Option<Rows>,
    /// The copy from which a lost index is built again.
    pub(super) base: Option<Rows>,
}

/// The record of a life, besides its disk.
#[derive(Default)]
pub(super) struct Life {
    /// The number of commands that were answered, with the number of operations of the disk by then.
    answered: Vec<(usize, u64)>,
    /// The number of commands that were durable, whatever the flush mode, with the number of operations of the disk by
    /// then.
    durable: Vec<(usize, u64)>,
    /// The index as a flush left it, and the operations that were done by then.
    pub(super) snapshots: Vec<(u64, Rows)>,
    /// The copies that were kept before files of the log went, likewise.
    pub(super) bases: Vec<(u64, Rows)>,
    /// Times that files were asked to go.
    pub(super) purges: u64,
}

impl Life {
    /// The number of commands that must be there if the power goes off during this operation.
    pub(super) fn required(&self, cut: u64, flush: Flush) -> usize {
        let durable = most(&self.durable, cut);
        if flush == Flush::Sync { durable.max(most(&self.answered, cut)) } else { durable }
    }

    /// The number of commands that must be there if the process dies before this operation.
    pub(super) fn required_after_kill(&self, cut: u64) -> usize {
        most(&self.durable, cut).max(most(&self.answered, cut))
    }

    /// The index as the last flush before this operation left it.
    pub(super) fn snapshot(&self, cut: u64) -> Option<&Rows> {
        newest(&self.snapshots, cut)
    }

    /// The copy of it that was kept last before this operation.
    pub(super) fn base(&self, cut: u64) -> Option<&Rows> {
        newest(&self.bases, cut)
    }
}

fn newest(rows: &[(u64, Rows)], cut: u64) -> Option<&Rows> {
    rows.iter().rev().find(|(at, _)| *at < cut).map(|(_, rows)| rows)
}

fn most(counts: &[(usize, u64)], cut: u64) -> usize {
    counts.iter().filter(|(_, at)| *at < cut).map(|(count, _)| *count).max().unwrap_or(0)
}

pub(super) fn settings(flush: Flush) -> StorageSettings {
    let log = LogSettings {
        segment_bytes: 8 << 10,
        flush,
        tail_cache_bytes: 4 << 10,
        zero_ahead_bytes: 4 << 10,
        drive: Drive::Step { seed: 0 },
        ..LogSettings::default()
    };
    StorageSettings { dir: PathBuf::from("/shard"), log }
}

/// An index in memory with these rows.
pub(in crate::shard) fn index_of(rows: Option<&Rows>) -> Result<Index, IndexError> {
    let index = Index::in_memory()?;
    if let Some(rows) = rows {
        let mut batch = IndexBatch::default();
        for (key, value) in rows.iter() {
            batch.put(key, &**value);
        }
        index.write(batch);
    }
    Ok(index)
}

pub(in crate::shard) fn rows_of(index: &IndexReader) -> Result<Rows, String> {
    let rows: Result<Vec<_>, _> = index.scan(&[0], &[u8::MAX]).collect();
    rows.map(Arc::new).map_err(|error| error.to_string())
}

/// The number of a command, and its answer.
pub(super) type Answer = (usize, Result<Outcome, SubmitError>);
/// Answers in the order in which they came.
pub(super) type Answers = mpsc::Receiver<Answer>;

/// Submits commands at once, without waiting, and notes when they are answered.
pub(super) fn submit(
    shard: &Shard,
    disk: &SimDisk,
    first: usize,
    acts: &[Act],
    answered: &Arc<Mutex<Vec<(usize, u64)>>>,
) -> Answers {
    let (sender, answers) = mpsc::channel();
    for (nth, act) in acts.iter().enumerate() {
        let (sender, disk, answered) = (sender.clone(), disk.clone(), Arc::clone(answered));
        let refused = sender.clone();
        let completion = Box::new(move |result: Result<Outcome, SubmitError>| {
            if result.is_ok() {
                answered.lock().push((first + nth + 1, disk.operations()));
            }
            // The receiver may have given up.
            let _ = sender.send((nth, result));
        });
        act.with_command(|command| {
            if let Err((error, _)) = shard.submit(command, Admission::Reserved, completion) {
                let _ = refused.send((nth, Err(error)));
            }
        });
    }
    answers
}

/// The answers to all of `count` commands. `next` waits for one of them.
pub(super) fn collect(
    count: usize,
    mut next: impl FnMut() -> Result<Answer, String>,
) -> Result<Vec<Result<Outcome, SubmitError>>, String> {
    let mut all: Vec<Option<Result<Outcome, SubmitError>>> = vec![None; count];
    for _ in 0..count {
        let (nth, result) = next()?;
        if all[nth].replace(result).is_some() {
            return Err("a command was answered twice".to_owned());
        }
    }
    Ok(all.into_iter().map(|answer| answer.expect("each was answered once")).collect())
}

/// Lives once: `bursts` bursts of random commands. `recording` disks are replayed by the caller.
pub(super) fn live(
    history: &mut History,
    disk: &SimDisk,
    kept: Kept,
    flush: Flush,
    clock: &Clock,
    random: &mut Random,
    bursts: usize,
) -> Result<Life, String> {
    let mut life = Life::default();
    let before = history.steps.len();
    life.durable.push((before, 0));
    // A lost index comes back from the copy.
    let rows = kept.index.or_else(|| kept.base.clone());
    life.snapshots.extend(rows.iter().map(|rows| (0, Arc::clone(rows))));
    life.bases.extend(kept.base.map(|rows| (0, rows)));
    let opened = Stepped::open(disk, rows.as_ref(), flush, clock, random.draw())?;
    let Stepped { storage, stepper } = &opened;
    let shard = &storage.shard;
    let differences = history.model().view.differences(&View::of(shard)?);
    if !differences.is_empty() {
        return Err(format!("opened with {before} commands in the log:\n{differences}"));
    }
    let answered = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..bursts {
        clock.advance(Duration::from_millis(random.below(700)));
        let now = storage.time.now();
        let mut acts = Vec::new();
        for _ in 0..=random.below(5) {
            let act = act(history.model(), shard, &acts, now, random);
            acts.push(act);
        }
        stepper.dawdle();
        let answers = submit(shard, disk, history.steps.len(), &acts, &answered);
        stepper.dawdle();
        let outcomes = collect(acts.len(), || stepper.until(|| answers.try_recv().ok()))?;
        let mut places = history.new_places(shard.log())?;
        for (act, outcome) in acts.into_iter().zip(outcomes) {
            let outcome = outcome.map_err(|error| format!("{act:?} was refused: {error}"))?;
            history.push(act, now, &outcome, &places.pop_front().unwrap_or_default())?;
        }
        history.note_records(shard.log())?;
        match random.below(6) {
            0 => {
                sync(shard)?;
                life.durable.push((history.steps.len(), disk.operations()));
            }
            1 => {
                storage.applier().flush().map_err(|error| error.to_string())?;
                life.snapshots.push((disk.operations(), rows_of(shard.index())?));
            }
            2 | 3 => purge(&opened, disk, &mut life, random)?,
            _ => {}
        }
    }
    let shard = shard.clone();
    opened.close()?;
    life.durable.push((history.steps.len(), disk.operations()));
    life.snapshots.push((disk.operations(), rows_of(shard.index())?));
    history.note_records(shard.log())?;
    history.trace(&disk.digest());
    history.trace(&format!("{:?}", View::of(&shard)?));
    life.answered = std::mem::take(&mut *answered.lock());
    Ok(life)
}

fn sync(shard: &Shard) -> Result<(), String> {
    shard.shared.log.sync_wait().map_err(|error| error.to_string())
}

/// Lets files go as retention does: the index is made durable beyond them and copied, and then they are asked to go. The
/// workload goes on meanwhile, or waits.
fn purge(opened: &Stepped, disk: &SimDisk, life: &mut Life, random: &mut Random) -> Result<(), String> {
    let Stepped { storage, stepper } = opened;
    let log = storage.shard.log();
    let Some(last) = last_index_below(&log.segments(), storage.shard.counters().trimmed()) else { return Ok(()) };
    let mut copy = Ok(Rows::default());
    let copied = storage.applier().copy(|index| {
        copy = rows_of(index);
        Ok(())
    });
    copied.map_err(|error| error.to_string())?;
    let copy = copy?;
    life.snapshots.push((disk.operations(), Arc::clone(&copy)));
    life.bases.push((disk.operations(), copy));
    let waits = random.below(2) == 0;
    if waits {
        // A file stays while the next one is not on disk by name: until the next flush, and the next purge.
        sync(&storage.shard)?;
    }
    storage.purger().purge(last);
    life.purges += 1;
    if waits {
        let gone = || log.purged().is_some_and(|purged| purged.index >= last).then_some(());
        stepper.until(gone).map_err(|why| format!("files never went: {why}"))?;
    }
    Ok(())
}

/// A random command of retention: a trim, or a rewrite of bytes that it would take or that are due.
fn keep(shard: &Shard, now: Stamp, random: &mut Random) -> Result<Act, ReadError> {
    // Those that a purge may be taking just now are none: a seed does the same each time.
    let trimmed = shard.counters().trimmed();
    let starts = shard.log().segments().into_iter().map(|segment| segment.start);
    let cuts: Vec<Position> = starts.filter(|start| *start > trimmed).collect();
    let end = shard.log().end().get();
    let cut = match cuts.len() as u64 {
        0 => Position(random.below(end.max(1))),
        _ if random.below(6) == 0 => Position(random.below(end)),
        count => cuts[random.below(count) as usize],
    };
    let load = match random.below(5) {
        0 | 1 => Some(gather(shard, cut)?),
        2 => Some(gather_due(shard, now + 1000, cut, 3)?),
        _ => None,
    };
    // With nothing to move nothing is proposed.
    let load = load.filter(|load| !load.is_empty());
    Ok(load.map_or(Act::Trim { upto: cut }, |load| Act::roll(&load)))
}

/// The messages that a commit brings once more.
pub(super) fn anew(shard: &Shard, half: HalfId, below: Position) -> Result<Vec<(HalfId, i32, Bytes)>, ReadError> {
    match rewritten(shard, half, below)? {
        Rewritten::Anew(messages) => Ok(messages),
        Rewritten::Move(_) => unreachable!("messages of this test are small"),
    }
}

/// A random command that fits the state, or nearly does. `others` were made for the same moment.
pub(super) fn act(model: &Model, shard: &Shard, others: &[Act], now: Stamp, random: &mut Random) -> Act {
    let view = &model.view;
    let queues: Vec<(u32, Place)> = model.places.iter().map(|(id, place)| (*id, place.clone())).collect();
    let queue = match queues.len() as u64 {
        0 => return Act::PutTopic { name: "topic-0".into(), queues: 2 },
        count => queues[random.below(count) as usize].clone(),
    };
    let halves: Vec<HalfId> = view.halves.keys().copied().collect();
    let decided: Vec<HalfId> = view.decisions.keys().copied().collect();
    let pick = |from: &[HalfId], random: &mut Random| {
        if from.is_empty() { HalfId(12_345) } else { from[random.below(from.len() as u64) as usize] }
    };
    let group = |random: &mut Random| format!("group-{}", random.below(3));
    if random.below(7) == 0 {
        return keep(shard, now, random).expect("the index is readable");
    }
    match random.below(106) {
        0..24 => {
            let bodies = (0..=random.below(3)).map(|_| body(random)).collect();
            let once = random.below(4) == 0;
            if let Some(repeat) = others.iter().find(|other| matches!(other, Act::Publish { once: true, .. }))
                && once
            {
                return repeat.clone();
            }
            Act::Publish { queue: queue.0, place: queue.1, when: when(now, random), bodies, once }
        }
        24..42 => {
            let repeat = others.iter().find(|other| matches!(other, Act::Prepare { .. }));
            if let Some(repeat) = repeat.filter(|_| random.below(4) == 0) {
                return repeat.clone();
            }
            let open = view.halves.values().find(|half| half.counter % 5 == random.below(5));
            if let Some(open) = open.filter(|_| random.below(6) == 0)
                && let Some(place) = model.places.get(&open.queue)
            {
                let body = if random.below(3) == 0 { body(random) } else { open.body.clone() };
                let (place, unique_id) = (place.clone(), open.unique_id.clone());
                let first_half = if random.below(8) == 0 { Some(pick(&halves, random)) } else { open.first_half };
                return Act::Prepare { queue: open.queue, place, when: open.when, unique_id, body, first_half };
            }
            let unique_id = format!("unique-{}", random.draw());
            let body = body(random);
            // Often a half that was decided, or is no first one.
            let first_half = match random.below(8) {
                0 => Some(pick(&decided, random)),
                1..4 => Some(pick(&halves, random)),
                _ => None,
            };
            Act::Prepare { queue: queue.0, place: queue.1, when: when(now, random), unique_id, body, first_half }
        }
        42..66 => {
            // Repeated and opposite decisions are a third of all.
            let half = if random.below(3) == 0 { pick(&decided, random) } else { pick(&halves, random) };
            let counter = view.halves.get(&half).map(|row| row.counter);
            let counter = counter.or(view.decisions.get(&half).map(|row| row.counter)).unwrap_or(0);
            let decision = if random.below(3) == 0 { Decision::Rollback } else { Decision::Commit };
            let counter = counter + u64::from(random.below(20) == 0);
            let group = if random.below(20) == 0 { "strangers" } else { PRODUCERS }.to_owned();
            let old = decision == Decision::Commit && random.below(4) == 0;
            let rewritten = old.then(|| anew(shard, half, Position::MAX).expect("all is readable"));
            let rewritten = rewritten.unwrap_or_default();
            Act::Settle { half, counter, group, decision, rewritten }
        }
        66..75 => {
            let count = 1 + random.below(3);
            let commits = (0..count).map(|_| {
                let queue = queues[random.below(queues.len() as u64) as usize].0;
                (group(random), queue, QueueOffset(random.below(50)))
            });
            let mut commits: Vec<_> = commits.collect();
            if random.below(2) == 0 {
                let (group, queue, offset) = commits[0].clone();
                commits.push((group, queue, offset + 3));
            }
            Act::Offsets(commits)
        }
        75..80 => Act::Fire { upto: now + 1000 * random.below(2), limit: 1 + random.below(3) as u32 },
        80..83 => Act::PutTopic { name: format!("topic-{}", random.below(4)), queues: 1 + random.below(3) as u32 },
        83..85 if random.below(4) == 0 => Act::DeleteTopic { name: format!("topic-{}", random.below(4)) },
        83..85 => Act::DeleteTopic { name: queue.1.0 },
        85 => Act::PutGroup { name: group(random) },
        86 => Act::DeleteGroup { name: group(random), offsets: random.below(2) == 0 },
        87..90 => {
            let halves = (0..=random.below(2)).map(|_| CheckedHalf {
                half: pick(&halves, random),
                next_due: now + random.below(5000),
                counts: random.below(2) == 0,
                asked: ["", "client-7"][random.below(2) as usize],
            });
            Act::Checked { halves: halves.collect() }
        }
        90..92 => Act::Park { half: pick(&halves, random) },
        92..94 => {
            let only_if = (random.below(2) == 0).then_some(ParkReason::Operator);
            Act::Resume { half: pick(&halves, random), only_if }
        }
        94..96 => {
            let waiting: Vec<(Stamp, Position)> = view.timers.keys().copied().collect();
            let (due, position) = match waiting.len() as u64 {
                0 => (now, Position(1)),
                count => waiting[random.below(count) as usize],
            };
            Act::Cancel { due, position }
        }
        96 => Act::Expire { decided_before: now.saturating_sub(random.below(20_000)) },
        97..99 => {
            let (group, client, life) = (group(random), format!("client-{}", random.below(2)), random.below(2000));
            let queues = (0..=random.below(2)).map(|_| queues[random.below(queues.len() as u64) as usize].0);
            Act::Lock { group, client, life, queues: queues.collect() }
        }
        99..101 => {
            let (group, client) = (group(random), format!("client-{}", random.below(2)));
            Act::Unlock { group, client, queues: vec![queue.0] }
        }
        101 | 102 => {
            let half = if random.below(4) == 0 { pick(&decided, random) } else { pick(&halves, random) };
            let counter = view.halves.get(&half).map(|row| row.counter);
            let counter = counter.or(view.decisions.get(&half).map(|row| row.counter)).unwrap_or(0);
            let (until, is_answer) = (now + random.below(5000), random.below(2) == 0);
            Act::Extend { half, counter: counter + u64::from(random.below(20) == 0), until, is_answer }
        }
        103 => {
            let from = Position(random.below(2000));
            Act::GiveUp { positions: from..from.advance(1 + random.below(50)), messages: random.below(9) }
        }
        _ if random.below(8) == 0 => Act::Feature(FEATURE_LEVEL),
        _ => change_settings(random),
    }
}

/// A change of settings of the group.
pub(in crate::shard) fn change_settings(random: &mut Random) -> Act {
    let values = (0..=random.below(3)).map(|_| (format!("setting-{}", random.below(4)), random.below(9).to_string()));
    let values = values.collect();
    Act::Settings { only_missing: random.below(3) == 0, values }
}

fn when(now: Stamp, random: &mut Random) -> When {
    match random.below(6) {
        0 => When::After(random.below(3000)),
        1 => When::At(now.saturating_sub(500) + random.below(3000)),
        _ => When::Now,
    }
}

/// A body like no other.
fn body(random: &mut Random) -> String {
    let length = if random.below(30) == 0 { 5000 } else { random.below(500) as usize };
    let number = random.draw();
    let letter = (b'a' + (number % 26) as u8) as char;
    format!("{number}-{}", letter.to_string().repeat(length))
}
