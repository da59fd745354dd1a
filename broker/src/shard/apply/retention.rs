//! Retention: what goes for good, and what is moved so that it need not.

use std::sync::Arc;

use super::publish::extent;
use super::staged::Staged;
use crate::index::meta::{self, Kept};
use crate::index::pin;
use crate::index::{self, IndexError};
use crate::planted::{Bug, planted};
use crate::shard::command::Roll;
use crate::shard::outcome::Outcome;
use crate::shard::shared::Shared;
use crate::shard::topic::Queue;
use crate::terms::{HalfId, PinOwner, Position};

/// Lets messages below `upto` go, but nothing that a half message or a waiting one needs. Cost: what goes, and a look in
/// memory at each queue.
pub(super) fn trim(shared: &Shared, staged: &mut Staged, upto: Position) -> Result<Outcome, IndexError> {
    let kept = meta::kept(&shared.index)?;
    let pinned = lowest_pin(shared)?.filter(|_| !planted(Bug::TrimUnpinned)).unwrap_or(Position::MAX);
    // Never its own record: from there on nothing is applied yet.
    let upto = upto.min(pinned).min(staged.position(0));
    if upto <= kept.trimmed {
        return Ok(Outcome::Done);
    }
    let queues: Vec<Arc<Queue>> = shared.topics.all().iter().flat_map(|topic| topic.queues.clone()).collect();
    for queue in queues {
        let (min, max) = (queue.min_offset(), queue.max_offset());
        if min == max || queue.oldest() >= upto {
            continue;
        }
        let left = index::queue::trim(&shared.index, &mut staged.rows, queue.id, (min, max), upto)?;
        if left.min != min {
            meta::put_ends(&mut staged.rows, queue.id, left.min, max);
        }
        staged.trimmed.push((queue, left.min, left.oldest.unwrap_or(upto)));
    }
    index::timer::forget_fired(&mut staged.rows, upto);
    meta::put_kept(&mut staged.rows, Kept { trimmed: upto, ..kept });
    staged.kept = Some(upto);
    Ok(Outcome::Done)
}

/// The lowest log position whose bytes must be kept. Begins after the halves that are decided and gone, of which the
/// index may still hold tombstones.
pub(in crate::shard) fn lowest_pin(shared: &Shared) -> Result<Option<Position>, IndexError> {
    let kept = meta::kept(&shared.index)?;
    // Halves that are applied after this look have higher ids.
    let applied = shared.counters.applied_end();
    let (mut first, mut lowest) = (None, None);
    index::half::scan(&shared.index, shared.counters.halves_from(), |row| {
        first = Some(row.half);
        false
    })?;
    let first = first.unwrap_or(HalfId::at(applied));
    shared.counters.halves_decided(first);
    index::half::scan(&shared.index, first.max(kept.moved_halves), |row| {
        // One that was moved has a pin of its own.
        lowest = (row.position == row.half.position()).then_some(row.position);
        lowest.is_none()
    })?;
    pin::scan(&shared.index, kept.trimmed, Position::MAX, |position, _| {
        lowest = Some(lowest.map_or(position, |half: Position| half.min(position)));
        false
    })?;
    Ok(lowest)
}

/// Bytes that must be kept lie in this command now; what was decided or has fired meanwhile is left alone.
pub(super) fn roll(shared: &Shared, staged: &mut Staged, roll: &Roll<'_>) -> Result<Outcome, IndexError> {
    let mut moved = 0;
    for each in &roll.moved {
        let (position, length) = extent(staged, &each.message);
        match each.owner {
            PinOwner::Half { half } => {
                let row = staged.half(&shared.index, half)?;
                let Some(old) = row.filter(|row| row.position == each.from) else { continue };
                let mut row = old.clone();
                if row.position != row.half.position() {
                    pin::delete(&mut staged.rows, row.position);
                }
                (row.position, row.length) = (position, length);
                if !planted(Bug::MovedUnpinned) {
                    pin::put(&mut staged.rows, position, each.owner);
                }
                staged.replace_half(Some(&old), Some(row));
            }
            PinOwner::Timer { due } => {
                let Some(mut row) = index::timer::get(&shared.index, due, each.from)? else { continue };
                row.delete(&mut staged.rows);
                (row.position, row.length) = (position, length);
                row.put(&mut staged.rows);
            }
        }
        moved += 1;
    }
    let kept = meta::kept(&shared.index)?;
    if roll.halves_upto > kept.moved_halves {
        meta::put_kept(&mut staged.rows, Kept { moved_halves: roll.halves_upto, ..kept });
    }
    Ok(Outcome::Handled(moved))
}
