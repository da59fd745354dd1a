//! Recovers what a power cut left, and judges it.

use std::sync::Arc;

use escrowmq_common::clock::Clock;
use parking_lot::Mutex;

use super::act::{Act, PRODUCERS};
use super::history::{History, places_from, read};
use super::life::{self, Rows, anew};
use super::model::Model;
use super::stepper::Stepped;
use super::view::{EntryView, View};
use crate::log::sim_disk::{Faults, Random, SimDisk};
use crate::log::{Disk, Flush, Log, LogReader};
use crate::raft::committed_entry;
use crate::shard::Shard;
use crate::storage::Parts;
use crate::terms::{Decision, Position, QueueOffset, Stamp, When};

/// The expected content of a disk.
pub(super) struct Expected<'a> {
    pub(super) history: &'a History,
    /// The least number of commands.
    pub(super) required: usize,
    /// The least number after one more power cut.
    pub(super) flushed: usize,
    pub(super) flush: Flush,
    /// The copy of the index that is kept beside it.
    pub(super) base: Option<&'a Rows>,
}

/// A shard that was recovered without raft: log, index, everything in the log applied. Cheap enough for each cut.
pub(super) struct Recovered {
    pub(super) shard: Shard,
    /// Commands in the log.
    pub(super) steps: usize,
}

/// Opens log and index, and applies what the log has beyond the index, in pieces of random size.
pub(super) fn recover(
    disk: &SimDisk,
    rows: Option<&Rows>,
    flush: Flush,
    history: &History,
    random: &mut Random,
) -> Result<Recovered, String> {
    let index = life::index_of(rows).map_err(|error| error.to_string())?;
    let clock = Clock::manual(0);
    let opened = Parts::open(Arc::new(disk.clone()), index, life::settings(flush), clock);
    let Parts { shard, applier, .. } = opened.map_err(|error| format!("does not open: {error}"))?;
    let steps = history.steps_in(shard.log())?;
    let applied = applier.applied();
    let next = applied.map_or(shard.log().first_index(), |applied| applied.index.next());
    let mut entries = Vec::new();
    for record in read(shard.log(), next.0)? {
        entries.push(committed_entry(record).map_err(|error| error.to_string())?);
        if random.below(4) == 0 {
            applier.apply(std::mem::take(&mut entries)).map_err(|error| format!("apply: {error}"))?;
        }
    }
    applier.apply(entries).map_err(|error| format!("apply: {error}"))?;
    Ok(Recovered { shard, steps })
}

impl Expected<'_> {
    /// Recovers and judges; how much is tried beyond that is up to `random`. Answers how many commands are there.
    pub(super) fn examine(
        &self,
        disk: &SimDisk,
        rows: Option<&Rows>,
        clock: &Clock,
        random: &mut Random,
    ) -> Result<usize, String> {
        let once = disk.fork();
        let operations = once.operations();
        let recovered = recover(&once, rows.or_else(|| self.left(&once, random)), self.flush, self.history, random)?;
        self.judge(&recovered)?;
        let steps = recovered.steps;
        let depth = random.below(60);
        if depth < 8 {
            // Opened again it is the same, and opening changes nothing.
            drop(recovered);
            let image = once.image();
            let again = recover(&once, self.left(&once, random), self.flush, self.history, random)?;
            self.judge(&again).map_err(|why| format!("recovered twice: {why}"))?;
            if again.steps != steps {
                return Err(format!("{steps} commands were recovered, the second time {}", again.steps));
            }
            drop(again);
            if once.image() != image {
                return Err("the second recovery changed something".to_owned());
            }
            if depth < 4 {
                self.crash_within(disk, operations, once.operations(), steps, random)?;
            }
        } else if depth == 8 {
            let kept = life::rows_of(recovered.shard.index())?;
            drop(recovered);
            self.live_on(&once, rows.or(self.base), clock, steps, random)?;
            let rebuilt = recover(disk, self.left(disk, random), self.flush, self.history, random)?;
            let rebuilt = life::rows_of(rebuilt.shard.index())?;
            same_rows(&kept, &rebuilt)?;
        }
        Ok(steps)
    }

    /// The rows that a lost index is built again from: the copy, or none while the log has all its records.
    fn left(&self, disk: &SimDisk, random: &mut Random) -> Option<&Rows> {
        let first = life::settings(self.flush).dir.join("log").join(format!("{:020}.log", 0));
        let whole = disk.open(&first).is_ok();
        self.base.filter(|_| !whole || random.below(2) == 0)
    }

    /// Whether the state is the one after some number of commands, and not fewer than were acknowledged.
    fn judge(&self, recovered: &Recovered) -> Result<(), String> {
        let Recovered { shard, steps, .. } = recovered;
        if *steps < self.required {
            return Err(format!("{} commands were acknowledged, {steps} are there", self.required));
        }
        judge_vote(shard.log())?;
        let model = &self.history.models[*steps];
        let differences = model.view.differences(&View::of(shard)?);
        if !differences.is_empty() {
            return Err(format!("{steps} commands are there, but:\n{differences}"));
        }
        judge_views_by_id(shard, model)
    }

    /// The power goes off again during recovery.
    fn crash_within(
        &self,
        disk: &SimDisk,
        from: u64,
        to: u64,
        steps: usize,
        random: &mut Random,
    ) -> Result<(), String> {
        for cut in from + 1..=to.min(from + 5) {
            let broken = disk.fork();
            broken.set_faults(Faults { power_off_at: Some(cut), ..Faults::default() });
            let settings = life::settings(self.flush).log;
            drop(Log::open(Arc::new(broken.clone()), &life::settings(self.flush).dir.join("log"), settings));
            let after = broken.crash(random.draw());
            let then = recover(&after, self.left(&after, random), self.flush, self.history, random)
                .map_err(|why| format!("after a power cut in recovery: {why}"))?;
            let expected = Expected { required: self.flushed, ..*self };
            expected.judge(&then).map_err(|why| format!("after a power cut in recovery: {why}"))?;
            if then.steps != steps && disk.is_settled() {
                return Err(format!("after a power cut in recovery {} commands are left of {steps}", then.steps));
            }
        }
        Ok(())
    }

    /// The shard is opened as a broker opens it, decides what is open, and goes on.
    fn live_on(
        &self,
        disk: &SimDisk,
        rows: Option<&Rows>,
        clock: &Clock,
        steps: usize,
        random: &mut Random,
    ) -> Result<(), String> {
        let opened = Stepped::open(disk, rows, self.flush, clock, random.draw())?;
        let Stepped { storage, stepper } = &opened;
        let mut model = self.history.models[steps].clone();
        let differences = model.view.differences(&View::of(&storage.shard)?);
        if !differences.is_empty() {
            return Err(format!("opened by a broker:\n{differences}"));
        }
        let mut acts: Vec<Act> = Vec::new();
        for (half, row) in &model.view.halves {
            let decision = if random.below(2) == 0 { Decision::Commit } else { Decision::Rollback };
            let below = if random.below(3) == 0 { Position::MAX } else { Position::ZERO };
            let rewritten = anew(&storage.shard, *half, below).map_err(|error| error.to_string())?;
            let rewritten = if decision == Decision::Commit { rewritten } else { Vec::new() };
            acts.push(Act::Settle {
                half: *half,
                counter: row.counter,
                group: PRODUCERS.to_owned(),
                decision,
                rewritten,
            });
        }
        for (half, row) in &model.view.decisions {
            let (half, counter, group) = (*half, row.counter, PRODUCERS.to_owned());
            acts.push(Act::Settle { half, counter, group, decision: row.decision, rewritten: Vec::new() });
        }
        for (queue, place) in &model.places {
            let (queue, place, bodies) = (*queue, place.clone(), vec![format!("after {queue}")]);
            acts.push(Act::Publish { queue, place, when: When::Now, bodies, once: false });
        }
        acts.push(Act::Fire { upto: Stamp(u64::MAX - 1), limit: 1000 });
        let now = storage.time.now();
        let next = storage.shard.log().last().map_or(0, |last| last.index.next().0);
        let answers = life::submit(&storage.shard, disk, 0, &acts, &Arc::new(Mutex::new(Vec::new())));
        let outcomes = life::collect(acts.len(), || stepper.until(|| answers.try_recv().ok()))?;
        let places = places_from(storage.shard.log(), next)?;
        for ((act, outcome), places) in acts.iter().zip(outcomes).zip(places) {
            let outcome = outcome.map_err(|error| format!("after the restart {act:?}: {error}"))?;
            let expected = model.apply(act, now, &outcome, &places);
            if expected != outcome {
                return Err(format!("after the restart {act:?} got\n  {outcome:?} instead of\n  {expected:?}"));
            }
        }
        let differences = model.view.differences(&View::of(&storage.shard)?);
        if !differences.is_empty() {
            return Err(format!("after the restart and more commands:\n{differences}"));
        }
        opened.close()
    }
}

/// Views by position show what is in a queue, and nothing of what is undecided, rolled back, or waits for its time.
fn judge_views_by_id(shard: &Shard, model: &Model) -> Result<(), String> {
    let found = |position: Position| shard.unit_at(position).map_err(|error| error.to_string());
    for half in model.hidden() {
        if found(half.position())?.is_some() {
            return Err(format!("half {half} is shown by its position: {:?}", model.view.halves.get(&half)));
        }
    }
    for (_, position) in model.view.timers.keys() {
        if found(*position)?.is_some() {
            return Err(format!("message {position} is shown before its time"));
        }
    }
    for (queue, view) in &model.view.queues {
        // Decisions that were forgotten say no more where a message that waited is; bytes that were trimmed may be gone.
        let kept = |entry: &EntryView| !entry.committed && entry.position >= model.view.trimmed;
        for (offset, entry) in (view.min.0..).zip(&view.entries).filter(|(_, entry)| kept(entry)) {
            let shown = found(entry.position)?.map(|located| (located.queue.id.0, located.entry.offset));
            if shown != Some((*queue, QueueOffset(offset))) {
                return Err(format!("message {} of queue {queue}:{offset} is shown at {shown:?}", entry.position));
            }
        }
    }
    Ok(())
}

/// Whether two indexes say the same. Which entries share a page depends on how many were applied at once, the applied id
/// of a membership on its bytes, and which ended windows are still there on which files were merged; they are left away.
fn same_rows(one: &Rows, other: &Rows) -> Result<(), String> {
    let plain = |rows: &Rows| {
        let skipped = |key: &[u8]| matches!(key[0], b'Q' | b'R' | b'S') || key == b"Mmembership";
        rows.iter().filter(|(key, _)| !skipped(key)).cloned().collect::<Vec<_>>()
    };
    let (one, other) = (plain(one), plain(other));
    match one.iter().zip(&other).find(|(one, other)| one != other) {
        None if one.len() == other.len() => Ok(()),
        None => Err(format!("{} rows were kept, {} rebuilt", one.len(), other.len())),
        Some(((key, value), (other_key, other_value))) => Err(format!(
            "row {:?} = {value:?} was kept, {:?} = {other_value:?} rebuilt",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(other_key)
        )),
    }
}

/// A term that wrote records was voted for first, and the vote must not be forgotten.
fn judge_vote(log: &LogReader) -> Result<(), String> {
    let Some(last) = log.last().filter(|last| last.term > 0) else { return Ok(()) };
    let vote = log.vote().ok_or("there are records of a term, but no vote")?;
    let term = u64::from_be_bytes(vote[..8].try_into().map_err(|_| "a vote is too short")?);
    if term < last.term {
        return Err(format!("there are records of term {}, but the vote is for {term}", last.term));
    }
    Ok(())
}
