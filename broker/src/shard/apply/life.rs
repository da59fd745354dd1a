//! The life of a half message: prepared, checked, parked, resumed, settled.
//!
//! A half is undecided or decided, never both: its row is replaced by its decision in the same step in which a committed
//! message enters its queue. That step is one write of the index, which is why a transaction settles once. The halves of a
//! transaction of several are settled, parked and resumed in one step too; the first of them stands for all.

use crate::index::half::{First, Repeat, RepeatKey, repeat_key};
use crate::index::history::{ACTS_MAX, ASKED_MAX, Act, Asked};
use crate::index::{DecisionRow, HalfRow};
use crate::planted::{Bug, planted};
use crate::shard::{
    Checked, Extend, Outcome, Park, Prepare, Prepared, Refusal, Resume, Settle, Settled, SettledMember,
};
use crate::terms::{Decision, HalfId, ParkReason, Position, QueueId, QueueOffset, Stamp, TRANSACTION_HALVES_MAX};

/// Where a message's unit lies: log position and length.
pub(crate) type Extent = (Position, u32);

/// A topic as a half needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopicRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// The id of its first queue.
    pub id: QueueId,
}

/// An event besides the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// A repeated send got the first one's identity.
    RepeatedHalf,
    /// A decision came after its opposite.
    RefusedOpposite,
}

/// The state that a step reads and changes. Each step sees the changes of the steps before it.
pub(crate) trait Rows {
    /// Why a row cannot be read.
    type Error;

    /// The time of the step.
    fn now(&self) -> Stamp;

    /// An undecided half.
    fn half(&self, half: HalfId) -> Result<Option<HalfRow>, Self::Error>;

    /// Moves a half from one state to another, with all that follows from its row. An `old` of `None`: it is new; a
    /// `new` of `None`: it is not undecided any more.
    fn replace(&mut self, old: Option<&HalfRow>, new: Option<HalfRow>);

    /// How a half was decided, if it was and that is remembered.
    fn decision(&self, half: HalfId) -> Result<Option<DecisionRow>, Self::Error>;

    /// Remembers how a half was decided.
    fn put_decision(&mut self, half: HalfId, row: DecisionRow);

    /// The send that a half with this key would repeat, unless its time has ended.
    fn repeat(&self, key: RepeatKey) -> Result<Option<Repeat>, Self::Error>;

    /// Remembers by what a repeated send is recognised.
    fn put_repeat(&mut self, key: RepeatKey, repeat: Repeat);

    /// The counter of a new half.
    fn next_counter(&mut self) -> u64;

    /// The number of a producer group, which gets one if it has none.
    fn group_id(&mut self, group: &str) -> u32;

    /// Calls `with` with the topic of a queue; `None` if it was deleted.
    fn with_topic<T>(&self, queue: QueueId, with: impl FnOnce(TopicRef<'_>) -> T) -> Option<T>;

    /// Lets go of the place where a half's bytes were moved to.
    fn release(&mut self, row: &HalfRow);

    /// Whether retention has let the bytes of a half go: it could not be read any more when it was to be moved.
    fn is_gone(&self, row: &HalfRow) -> bool;

    /// The message of a half enters its queue, or that which consumers read instead, or waits for its time; queue and offset,
    /// if it has them.
    fn deliver(&mut self, row: &HalfRow, unit: Extent) -> Option<(QueueId, QueueOffset)>;

    /// Counts something.
    fn note(&mut self, noted: Noted);
}

/// Keeps a half message, or gives a repeated send the first one's identity. `unit` is where the message lies.
pub(crate) fn prepare<R: Rows>(rows: &mut R, prepare: &Prepare<'_>, unit: Extent) -> Result<Outcome, R::Error> {
    let key_of = |topic: TopicRef<'_>| {
        let key = (!prepare.unique_id.is_empty())
            .then(|| repeat_key(prepare.group, topic.name, prepare.unique_id, prepare.content));
        (topic.id, key)
    };
    let Some((topic, key)) = rows.with_topic(prepare.queue, key_of) else {
        return Ok(Outcome::Refused(Refusal::NoSuchQueue(prepare.queue)));
    };
    if let Some(key) = key
        && let Some(repeat) = repeated(rows, prepare, key)?
    {
        return Ok(repeat);
    }
    let (position, length) = unit;
    let half = HalfId::at(position);
    if let Some(first) = prepare.first_half
        && let Some(refusal) = join(rows, prepare.group, first, half)?
    {
        return Ok(Outcome::Refused(refusal));
    }
    let (now, counter) = (rows.now(), rows.next_counter());
    let next_due = prepare.immunity.filter(|_| prepare.first_half.is_none());
    if let Some(key) = key {
        rows.put_repeat(key, Repeat { first: First::Half(half), ends: None });
    }
    let row = HalfRow {
        half,
        counter,
        position,
        length,
        queue: prepare.queue,
        topic,
        tag_hash: prepare.message.tag_hash,
        when: prepare.when,
        immunity: prepare.immunity,
        first_half: prepare.first_half,
        members: Vec::new(),
        prepared_at: now,
        next_due: next_due.map(|immunity| now.saturating_add(immunity)),
        checks: 0,
        asked: Vec::new(),
        parked: None,
        acts: Vec::new(),
        duplicate_window: prepare.duplicate_window,
        content: prepare.content,
        group_id: rows.group_id(prepare.group),
        group: prepare.group.to_owned(),
        client: prepare.client.to_owned(),
        unique_id: prepare.unique_id.to_owned(),
    };
    rows.replace(None, Some(row));
    Ok(Outcome::Prepared(Prepared { half, counter, stamp: now, repeated: false }))
}

/// The answer to a send under a unique id that is already known: the first one's identity, or a refusal.
fn repeated<R: Rows>(rows: &mut R, prepare: &Prepare<'_>, key: RepeatKey) -> Result<Option<Outcome>, R::Error> {
    let Some(First::Half(half)) = rows.repeat(key)?.map(|known| known.first) else { return Ok(None) };
    let (counter, stamp, first_half) = if let Some(row) = rows.half(half)? {
        // The topic was deleted meanwhile, and made again: a half of the old one can never be committed.
        if rows.with_topic(row.queue, |_| ()).is_none() {
            return Ok(None);
        }
        (row.counter, row.prepared_at, row.first_half)
    } else if let Some(row) = rows.decision(half)? {
        // A producer repeats a half before its local transaction has run; with a half that a check has rolled back
        // meanwhile it would run in vain, because its commit could not count any more.
        if row.decision == Decision::Rollback {
            return Ok(None);
        }
        (row.counter, row.at, row.first_half)
    } else {
        // Its decision is forgotten already.
        return Ok(None);
    };
    if first_half != prepare.first_half {
        // The message belongs to one transaction and cannot be settled with another.
        return Ok(Some(Outcome::Refused(Refusal::UniqueIdTaken(half))));
    }
    rows.note(Noted::RepeatedHalf);
    Ok(Some(Outcome::Prepared(Prepared { half, counter, stamp, repeated: true })))
}

/// Adds a half to the transaction that `first` stands for, or says why not.
fn join<R: Rows>(rows: &mut R, group: &str, first: HalfId, half: HalfId) -> Result<Option<Refusal>, R::Error> {
    let Some(row) = rows.half(first)? else {
        return Ok(Some(match rows.decision(first)? {
            Some(decision) if decision.group == group => Refusal::AlreadyDecided(settled(rows, first, &decision)?),
            _ => Refusal::NoSuchHalf(first),
        }));
    };
    Ok(if row.group != group {
        Some(Refusal::WrongGroup(row.group))
    } else if let Some(its_first) = row.first_half {
        Some(Refusal::NotFirstHalf(first, its_first))
    } else if row.members.len() + 1 >= TRANSACTION_HALVES_MAX {
        Some(Refusal::TransactionFull(TRANSACTION_HALVES_MAX))
    } else if let Some((reason, _)) = row.parked {
        Some(Refusal::NotOpen(reason))
    } else {
        let mut joined = row.clone();
        joined.members.push(half);
        rows.replace(Some(&row), Some(joined));
        None
    })
}

/// Decides a transaction. `rewritten` says where the messages of halves lie that the decision brings once more.
pub(crate) fn settle<R: Rows>(
    rows: &mut R,
    settle: &Settle<'_>,
    rewritten: &[(HalfId, Extent)],
) -> Result<Outcome, R::Error> {
    let Some(named) = rows.half(settle.half)? else {
        return settled_before(rows, settle);
    };
    if let Some(refusal) = stranger(settle.group, settle.counter, &named.group, named.counter) {
        return Ok(Outcome::Refused(refusal));
    }
    let whole = whole(rows, named)?;
    if settle.decision == Decision::Commit
        && let Some(gone) = whole.iter().find(|row| rows.with_topic(row.queue, |_| ()).is_none())
    {
        return Ok(Outcome::Refused(Refusal::NoSuchQueue(gone.queue)));
    }
    let is_brought = |row: &HalfRow| rewritten.iter().any(|(half, _)| *half == row.half);
    if settle.decision == Decision::Commit
        && let Some(gone) = whole.iter().find(|row| rows.is_gone(row) && !is_brought(row))
    {
        return Ok(Outcome::Refused(Refusal::BytesGone(gone.half)));
    }
    let at = rows.now();
    let mut outcome: Option<Settled> = None;
    for row in &whole {
        // Before the message enters: it may wait for its time, and is pinned then where it lies.
        rows.release(row);
        let place = if settle.decision == Decision::Commit {
            let unit = match rewritten.iter().find(|(half, _)| *half == row.half) {
                Some((_, unit)) => *unit,
                None if planted(Bug::SettledAtOldPlace) => (row.half.position(), row.length),
                None => (row.position, row.length),
            };
            rows.deliver(row, unit)
        } else {
            None
        };
        let (queue, offset) = place.map_or((row.queue, None), |(queue, offset)| (queue, Some(offset)));
        decide(rows, settle, row, (queue, offset));
        if let Some(first) = &mut outcome {
            first.members.push(SettledMember { half: row.half, queue, offset });
        } else {
            let decision = settle.decision;
            outcome = Some(Settled { decision, queue, offset, at, first: true, members: Vec::new() });
        }
    }
    Ok(Outcome::Settled(outcome.expect("a transaction has a first half")))
}

/// All halves of a transaction that one of them names, the first one in front.
fn whole<R: Rows>(rows: &R, named: HalfRow) -> Result<Vec<HalfRow>, R::Error> {
    let first = match named.first_half {
        // They are settled together, so the first one is there as long as this one is.
        Some(first) => rows.half(first)?.unwrap_or(named),
        None => named,
    };
    let mut whole = Vec::with_capacity(1 + first.members.len());
    for member in &first.members {
        whole.extend(rows.half(*member)?);
    }
    whole.insert(0, first);
    Ok(whole)
}

/// Why this sender may not decide, if so. A sender that names no group is an operator.
fn stranger(by: Option<&str>, named: Option<u64>, group: &str, counter: u64) -> Option<Refusal> {
    if by.is_some_and(|by| by != group) {
        return Some(Refusal::WrongGroup(group.to_owned()));
    }
    named.filter(|named| *named != counter).map(|_| Refusal::WrongCounter(counter))
}

/// Moves a half from undecided to decided.
fn decide<R: Rows>(rows: &mut R, settle: &Settle<'_>, row: &HalfRow, (queue, offset): (QueueId, Option<QueueOffset>)) {
    let at = rows.now();
    if !row.unique_id.is_empty()
        && let Some(key) =
            rows.with_topic(row.queue, |topic| repeat_key(&row.group, topic.name, &row.unique_id, row.content))
    {
        let ends = Some(at.saturating_add(row.duplicate_window));
        rows.put_repeat(key, Repeat { first: First::Half(row.half), ends });
    }
    let kept = match settle.decision {
        Decision::Commit => planted(Bug::DoubleSettle),
        Decision::Rollback => planted(Bug::CommitAfterRollback),
    };
    if !kept {
        rows.replace(Some(row), None);
    }
    let decision = DecisionRow {
        decision: settle.decision,
        queue,
        offset,
        counter: row.counter,
        at,
        group: row.group.clone(),
        by: settle.by.to_owned(),
        reason: settle.reason.to_owned(),
        checks: row.checks,
        asked: row.asked.clone(),
        acts: row.acts.clone(),
        first_half: row.first_half,
        members: row.members.clone(),
    };
    rows.put_decision(row.half, decision);
}

/// A decision on what is decided already, or on nothing.
fn settled_before<R: Rows>(rows: &mut R, settle: &Settle<'_>) -> Result<Outcome, R::Error> {
    let Some(known) = rows.decision(settle.half)? else {
        return Ok(Outcome::Refused(Refusal::NoSuchHalf(settle.half)));
    };
    if let Some(refusal) = stranger(settle.group, settle.counter, &known.group, known.counter) {
        return Ok(Outcome::Refused(refusal));
    }
    let settled = settled(rows, settle.half, &known)?;
    if known.decision == settle.decision {
        return Ok(Outcome::Settled(settled));
    }
    rows.note(Noted::RefusedOpposite);
    Ok(Outcome::Refused(Refusal::AlreadyDecided(settled)))
}

/// The known outcome of a decided transaction, for a sender that comes later.
fn settled<R: Rows>(rows: &R, named: HalfId, known: &DecisionRow) -> Result<Settled, R::Error> {
    let of_first = match known.first_half {
        Some(first) if first != named => rows.decision(first)?,
        _ => None,
    };
    let first = of_first.as_ref().unwrap_or(known);
    let mut members = Vec::with_capacity(first.members.len());
    for half in &first.members {
        let member = rows.decision(*half)?;
        members.extend(member.map(|row| SettledMember { half: *half, queue: row.queue, offset: row.offset }));
    }
    let (decision, queue, offset, at) = (known.decision, first.queue, first.offset, known.at);
    Ok(Settled { decision, queue, offset, at, first: false, members })
}

/// Records checks, and says how many halves it found open. A half that was decided or parked meanwhile is left alone.
pub(crate) fn checked<R: Rows>(rows: &mut R, checked: &Checked<'_>) -> Result<Outcome, R::Error> {
    let mut handled = 0;
    for each in &checked.halves {
        let open = |row: &HalfRow| row.parked.is_none() && row.first_half.is_none();
        let Some(old) = rows.half(each.half)?.filter(open) else { continue };
        let mut row = old.clone();
        row.next_due = Some(each.next_due);
        row.checks = row.checks.saturating_add(u32::from(each.counts));
        if !each.asked.is_empty() {
            let at = rows.now();
            push_bounded(&mut row.asked, Asked { at, client: each.asked.to_owned() }, ASKED_MAX);
        }
        rows.replace(Some(&old), Some(row));
        handled += 1;
    }
    Ok(Outcome::Handled(handled))
}

/// The local transaction still runs: the next check waits. A parked half stays parked.
pub(crate) fn extend<R: Rows>(rows: &mut R, extend: &Extend<'_>) -> Result<Outcome, R::Error> {
    let (by, counter) = (Some(extend.group), Some(extend.counter));
    let Some(named) = rows.half(extend.half)? else {
        return Ok(Outcome::Refused(match rows.decision(extend.half)? {
            Some(known) => match stranger(by, counter, &known.group, known.counter) {
                Some(refusal) => refusal,
                None => Refusal::AlreadyDecided(settled(rows, extend.half, &known)?),
            },
            None => Refusal::NoSuchHalf(extend.half),
        }));
    };
    if let Some(refusal) = stranger(by, counter, &named.group, named.counter) {
        return Ok(Outcome::Refused(refusal));
    }
    let old = match named.first_half {
        Some(first) => rows.half(first)?.unwrap_or(named),
        None => named,
    };
    if old.parked.is_none() {
        let mut row = old.clone();
        let until = Some(extend.until);
        if extend.is_answer {
            row.next_due = until;
            row.checks = row.checks.saturating_sub(1);
        } else {
            row.next_due = row.next_due.max(until);
        }
        rows.replace(Some(&old), Some(row));
    }
    Ok(Outcome::Done)
}

/// Takes an open transaction out of the checks.
pub(crate) fn park<R: Rows>(rows: &mut R, park: &Park<'_>) -> Result<Outcome, R::Error> {
    let Some(named) = rows.half(park.half)? else {
        return Ok(Outcome::Refused(Refusal::NoSuchHalf(park.half)));
    };
    let at = rows.now();
    for old in whole(rows, named)? {
        if old.parked.is_some() {
            continue;
        }
        let mut row = old.clone();
        row.parked = Some((park.reason, at));
        note_act(&mut row, at, true, park.by, park.why);
        rows.replace(Some(&old), Some(row));
    }
    Ok(Outcome::Done)
}

/// Puts a parked transaction back into the checks, its count at 0 and due at once.
pub(crate) fn resume<R: Rows>(rows: &mut R, resume: &Resume<'_>) -> Result<Outcome, R::Error> {
    let Some(named) = rows.half(resume.half)? else {
        return Ok(Outcome::Refused(Refusal::NoSuchHalf(resume.half)));
    };
    let reason = named.parked.map(|(reason, _)| reason);
    if reason.is_none() || resume.only_if.is_some_and(|only: ParkReason| reason != Some(only)) {
        return Ok(Outcome::Refused(Refusal::NotParked(reason)));
    }
    let at = rows.now();
    for old in whole(rows, named)? {
        let mut row = old.clone();
        row.parked = None;
        row.checks = 0;
        row.next_due = Some(at);
        note_act(&mut row, at, false, resume.by, resume.why);
        rows.replace(Some(&old), Some(row));
    }
    Ok(Outcome::Done)
}

/// Remembers what an operator did; what the broker does by itself has a reason of its own.
fn note_act(row: &mut HalfRow, at: Stamp, parked: bool, by: &str, why: &str) {
    if !by.is_empty() {
        let act = Act { at, parked, by: by.to_owned(), why: why.to_owned() };
        push_bounded(&mut row.acts, act, ACTS_MAX);
    }
}

fn push_bounded<T>(list: &mut Vec<T>, item: T, max: usize) {
    if list.len() >= max {
        list.remove(0);
    }
    list.push(item);
}
