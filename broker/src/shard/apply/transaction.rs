//! The life of a half message: prepared, checked, parked, resumed, settled.
//!
//! A half is in the `half` table while nothing is decided, and in `decision` afterwards, never in both: the row moves in
//! the same write that makes a committed message visible. That one write is why a transaction settles once.

use std::sync::atomic::Ordering;

use super::publish::{Place, extent};
use super::staged::Staged;
use crate::index::half::{Repeat, RepeatKey, repeat_key};
use crate::index::{self, DecisionRow, EntryFlags, HalfRow, IndexError};
use crate::planted::{Bug, planted};
use crate::shard::command::{Checked, Decision, Park, ParkReason, Prepare, Resume, Settle};
use crate::shard::handle::Shared;
use crate::shard::outcome::{Outcome, Prepared, Refusal, Settled};

pub(super) fn prepare(shared: &Shared, staged: &mut Staged, prepare: &Prepare<'_>) -> Result<Outcome, IndexError> {
    let Some(queue) = shared.topics.queue(prepare.queue) else {
        return Ok(Outcome::Refused(Refusal::NoSuchQueue(prepare.queue)));
    };
    let repeat_key =
        (!prepare.unique_id.is_empty()).then(|| repeat_key(prepare.group, &queue.topic, prepare.unique_id));
    if let Some(key) = repeat_key
        && let Some(repeat) = repeated(shared, staged, key, prepare.body_crc)?
    {
        return Ok(repeat);
    }
    let (position, length) = extent(staged, &prepare.message);
    if planted(Bug::HalfInQueue) {
        let (tag_hash, flags) = (prepare.message.tag_hash as i32, EntryFlags::COMMITTED);
        Place { queue: &queue, position, length, tag_hash, flags, half: position }.enter_now(staged);
    }
    let counter = staged.sequences.next_half;
    let stamp = staged.stamp();
    let next_due = prepare.immunity.map_or(0, |immunity| stamp.saturating_add(immunity));
    staged.sequences.next_half += 1;
    staged.sequences.open_halves += 1;
    if next_due != 0 {
        index::half::put_due(&mut staged.rows, next_due, position);
    }
    if let Some(key) = repeat_key {
        staged.put_repeat(key, Repeat { half: position, body_crc: prepare.body_crc, ends: 0 });
    }
    staged.put_new_half(HalfRow {
        half: position,
        counter,
        position,
        length,
        queue: prepare.queue,
        tag_hash: prepare.message.tag_hash as i32,
        when: prepare.when,
        immunity: prepare.immunity,
        first_half: prepare.first_half,
        prepared_at: stamp,
        next_due,
        checks: 0,
        parked: None,
        duplicate_window: prepare.duplicate_window,
        body_crc: prepare.body_crc,
        group: prepare.group.to_owned(),
        client: prepare.client.to_owned(),
        unique_id: prepare.unique_id.to_owned(),
        parked_by: String::new(),
    });
    Ok(Outcome::Prepared(Prepared { half: position, counter, stamp, repeated: false }))
}

/// What a send under a unique id that is already known gets: the first one's identity, or a refusal.
fn repeated(
    shared: &Shared,
    staged: &mut Staged,
    key: RepeatKey,
    body_crc: u32,
) -> Result<Option<Outcome>, IndexError> {
    let Some(first) = staged.repeat(&shared.index, key)? else { return Ok(None) };
    let half = first.half;
    if first.body_crc != body_crc {
        return Ok(Some(Outcome::Refused(Refusal::UniqueIdTaken(half))));
    }
    let (counter, stamp) = if let Some(row) = staged.half(&shared.index, half)? {
        (row.counter, row.prepared_at)
    } else if let Some(row) = staged.decision(&shared.index, half)? {
        // A producer repeats a half before its local transaction has run; with a half that a check has rolled back
        // meanwhile it would run in vain, because its commit could not count any more.
        if row.decision == Decision::Rollback {
            return Ok(None);
        }
        (row.counter, row.at)
    } else {
        // Its decision is forgotten already.
        return Ok(None);
    };
    shared.counters.repeated_halves.fetch_add(1, Ordering::Relaxed);
    Ok(Some(Outcome::Prepared(Prepared { half, counter, stamp, repeated: true })))
}

pub(super) fn settle(shared: &Shared, staged: &mut Staged, settle: &Settle<'_>) -> Result<Outcome, IndexError> {
    let Some(row) = staged.half(&shared.index, settle.half)? else {
        return settled_before(shared, staged, settle);
    };
    if let Some(refusal) = stranger(settle, &row.group, row.counter) {
        return Ok(Outcome::Refused(refusal));
    }
    let Some(queue) = shared.topics.queue(row.queue) else {
        if settle.decision == Decision::Commit {
            return Ok(Outcome::Refused(Refusal::NoSuchQueue(row.queue)));
        }
        unpin(staged, &row);
        return Ok(decide(staged, settle, &row, None, None));
    };
    if settle.decision == Decision::Rollback {
        unpin(staged, &row);
        return Ok(decide(staged, settle, &row, None, Some(&queue.topic)));
    }
    let (position, length) = match &settle.rewritten {
        Some(message) => extent(staged, message),
        None if planted(Bug::SettledAtOldPlace) => (row.half, row.length),
        None => (row.position, row.length),
    };
    let place =
        Place { queue: &queue, position, length, tag_hash: row.tag_hash, flags: EntryFlags::COMMITTED, half: row.half };
    // Before the message enters: it may wait for its time, and is pinned then where it lies.
    unpin(staged, &row);
    let (number, due) = place.enter(staged, row.when);
    let offset = due.is_none().then_some(number);
    Ok(decide(staged, settle, &row, offset, Some(&queue.topic)))
}

/// A half that was moved has a pin of its own, which goes with the decision.
fn unpin(staged: &mut Staged, row: &HalfRow) {
    if row.position != row.half {
        index::pin::delete(&mut staged.rows, row.position);
    }
}

/// Why this sender may not decide, if so.
fn stranger(settle: &Settle<'_>, group: &str, counter: u64) -> Option<Refusal> {
    if settle.group.is_some_and(|by| by != group) {
        return Some(Refusal::WrongGroup(group.to_owned()));
    }
    settle.counter.filter(|named| *named != counter).map(|_| Refusal::WrongCounter(counter))
}

/// Moves the half from undecided to decided.
fn decide(
    staged: &mut Staged,
    settle: &Settle<'_>,
    row: &HalfRow,
    offset: Option<u64>,
    topic: Option<&str>,
) -> Outcome {
    let at = staged.stamp();
    if row.next_due != 0 && row.parked.is_none() {
        index::half::delete_due(&mut staged.rows, row.next_due, row.half);
    }
    if row.parked.is_some() {
        staged.sequences.parked_halves -= 1;
    } else {
        staged.sequences.open_halves -= 1;
    }
    match settle.decision {
        Decision::Commit => staged.sequences.committed += 1,
        Decision::Rollback => staged.sequences.rolled_back += 1,
    }
    if let Some(topic) = topic.filter(|_| !row.unique_id.is_empty()) {
        let ends = at.saturating_add(row.duplicate_window).max(1);
        let key = repeat_key(&row.group, topic, &row.unique_id);
        staged.put_repeat(key, Repeat { half: row.half, body_crc: row.body_crc, ends });
    }
    let kept = match settle.decision {
        Decision::Commit => planted(Bug::DoubleSettle),
        Decision::Rollback => planted(Bug::CommitAfterRollback),
    };
    if !kept {
        staged.remove_half(row.half);
    }
    let decision = DecisionRow {
        decision: settle.decision,
        queue: row.queue,
        offset,
        counter: row.counter,
        at,
        group: row.group.clone(),
        by: settle.by.to_owned(),
        reason: settle.reason.to_owned(),
    };
    staged.sequences.decided_at = at;
    staged.put_decision(row.half, decision);
    Outcome::Settled(Settled { decision: settle.decision, queue: row.queue, offset, at, first: true })
}

/// A decision on what is decided already, or on nothing.
fn settled_before(shared: &Shared, staged: &Staged, settle: &Settle<'_>) -> Result<Outcome, IndexError> {
    let Some(first) = staged.decision(&shared.index, settle.half)? else {
        return Ok(Outcome::Refused(Refusal::NoSuchHalf(settle.half)));
    };
    if let Some(refusal) = stranger(settle, &first.group, first.counter) {
        return Ok(Outcome::Refused(refusal));
    }
    let settled =
        Settled { decision: first.decision, queue: first.queue, offset: first.offset, at: first.at, first: false };
    if first.decision == settle.decision {
        return Ok(Outcome::Settled(settled));
    }
    shared.counters.refused_opposites.fetch_add(1, Ordering::Relaxed);
    Ok(Outcome::Refused(Refusal::AlreadyDecided(settled)))
}

pub(super) fn checked(shared: &Shared, staged: &mut Staged, checked: &Checked) -> Result<Outcome, IndexError> {
    let mut handled = 0;
    for each in &checked.halves {
        // Decided or parked while the check was on its way: nothing to move.
        let Some(mut row) = staged.half(&shared.index, each.half)?.filter(|row| row.parked.is_none()) else {
            continue;
        };
        if row.next_due != 0 {
            index::half::delete_due(&mut staged.rows, row.next_due, row.half);
        }
        row.next_due = each.next_due;
        row.checks += u32::from(each.counts);
        index::half::put_due(&mut staged.rows, row.next_due, row.half);
        staged.put_half(row);
        handled += 1;
    }
    staged.sequences.first_checked = staged.sequences.first_checked.max(checked.first_checked_upto);
    Ok(Outcome::Handled(handled))
}

pub(super) fn park(shared: &Shared, staged: &mut Staged, park: &Park<'_>) -> Result<Outcome, IndexError> {
    let Some(row) = staged.half(&shared.index, park.half)? else {
        return Ok(Outcome::Refused(Refusal::NoSuchHalf(park.half)));
    };
    if row.parked.is_none() {
        park_row(staged, row, park.reason, park.by);
    }
    Ok(Outcome::Done)
}

/// Takes an open half out of the checks.
pub(super) fn park_row(staged: &mut Staged, mut row: HalfRow, reason: ParkReason, by: &str) {
    if row.next_due != 0 {
        index::half::delete_due(&mut staged.rows, row.next_due, row.half);
    }
    row.parked = Some((reason, staged.stamp()));
    by.clone_into(&mut row.parked_by);
    staged.sequences.open_halves -= 1;
    staged.sequences.parked_halves += 1;
    staged.put_half(row);
}

pub(super) fn resume(shared: &Shared, staged: &mut Staged, resume: &Resume<'_>) -> Result<Outcome, IndexError> {
    let Some(mut row) = staged.half(&shared.index, resume.half)? else {
        return Ok(Outcome::Refused(Refusal::NoSuchHalf(resume.half)));
    };
    let reason = row.parked.map(|(reason, _)| reason);
    if reason.is_none() || resume.only_if.is_some_and(|only| reason != Some(only)) {
        return Ok(Outcome::Refused(Refusal::NotParked(reason)));
    }
    row.parked = None;
    resume.by.clone_into(&mut row.parked_by);
    row.checks = 0;
    row.next_due = staged.stamp();
    index::half::put_due(&mut staged.rows, row.next_due, row.half);
    staged.sequences.parked_halves -= 1;
    staged.sequences.open_halves += 1;
    staged.put_half(row);
    Ok(Outcome::Done)
}
