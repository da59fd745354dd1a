//! Sends to queues, and pulls from them. A queue is a list that only grows at its end, and starts empty.
//!
//! Why the judgement is exact. Give each filled offset `o` the moment `p(o)` at which it was filled. The list allows
//! exactly the moments that do not fall with `o`. Each answer bounds them, and bounds nothing else:
//!
//! | operation, called at `c`, returned at `r` | demands |
//! | --- | --- |
//! | send, stored at `o` | `c <= p(o) <= r` |
//! | send of unknown outcome, if it filled `o` | `c <= p(o)` |
//! | pull that found a value at `o` | `p(o) <= r`, and that value there |
//! | pull that found nothing, the end being `e` | `p(e - 1) <= r`, and `c <= p(e)` if `e` was filled ever |
//!
//! Among all moments that keep the upper bounds and do not fall, `latest(o)`, the least upper bound of `o` and all
//! offsets behind it, is the greatest at each offset. So whatever can keep the lower bounds is kept by `latest`, and it
//! is enough to compare each lower bound with `latest` at its offset.
//!
//! What is left is which send of unknown outcome filled which offset that no acknowledgement names (a *hole*): one that
//! was called by `latest` there, and that has the value if a pull saw one. The holes that a send can fill are those
//! behind a point, so going through holes in their order never has to take a choice back. Holes with a known value come
//! first and take the youngest send that fits, which leaves the oldest, and so the most useful ones, to holes without.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Operation, TOLD_MAX, Verdict, Violation, Work, split};

/// An operation on a queue. Whoever writes the history numbers queues and values.
///
/// A send that the client repeats by itself, under one unique id, is one operation from the first try to the last
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Append {
    /// A message is sent.
    Send {
        /// The queue.
        queue: u32,
        /// The message.
        value: u64,
        /// What became of it.
        outcome: Sent,
    },
    /// A message is asked for.
    Pull {
        /// The queue.
        queue: u32,
        /// The offset that was asked for.
        offset: u64,
        /// What was there.
        found: Found,
    },
}

/// The outcome of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sent {
    /// It was acknowledged at this offset.
    Stored(u64),
    /// It was refused, so it must never appear.
    Refused,
    /// Nobody knows. It may be stored at any time, or never.
    Unknown,
}

/// The answer to a pull. A pull that was not answered is no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// This message.
    Value(u64),
    /// None, as the queue ended here.
    Nothing {
        /// The offset that the next message will get.
        end: u64,
    },
}

impl Append {
    fn queue(&self) -> u32 {
        match self {
            Append::Send { queue, .. } | Append::Pull { queue, .. } => *queue,
        }
    }
}

/// Judges a history of sends and pulls, in any order.
pub fn judge_appends(history: &[Operation<Append>]) -> Verdict {
    let mut work = Work::default();
    let mut violations = Vec::new();
    let queues = split(history, &mut work, &mut violations, |what| u64::from(what.queue()));
    for operations in queues {
        let queue = history[operations[0]].what.queue();
        let mut judge = Judge { history, queue, operations, violations: Vec::new(), work: &mut work };
        judge.judge();
        violations.append(&mut judge.violations);
    }
    let is_unknown = |what: &Append| matches!(what, Append::Send { outcome: Sent::Unknown, .. });
    let unknown = history.iter().filter(|operation| is_unknown(&operation.what)).count();
    Verdict { violations, operations: history.len(), unknown, steps: work.0 }
}

/// A bound on a moment, and the operation that it comes from.
#[derive(Clone, Copy)]
struct Bound {
    moment: u64,
    by: usize,
}

/// What the answers say of an offset.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The value there, and the first operation that says so.
    value: Option<(u64, usize)>,
    /// The acknowledged send.
    sender: Option<usize>,
    /// It was filled at this moment or later.
    from: Option<Bound>,
    /// It was filled by this moment.
    by: Option<Bound>,
}

impl Slot {
    fn not_before(&mut self, moment: u64, by: usize) {
        if self.from.is_none_or(|from| from.moment < moment) {
            self.from = Some(Bound { moment, by });
        }
    }

    fn not_after(&mut self, moment: u64, by: usize) {
        if self.by.is_none_or(|earlier| moment < earlier.moment) {
            self.by = Some(Bound { moment, by });
        }
    }
}

/// The judgement on one queue.
struct Judge<'a> {
    history: &'a [Operation<Append>],
    queue: u32,
    operations: Vec<usize>,
    violations: Vec<Violation>,
    work: &'a mut Work,
}

impl Judge<'_> {
    fn judge(&mut self) {
        let mut slots = self.slots();
        self.compare_bounds(&mut slots);
        self.fill_holes(&slots);
    }

    fn wrong(&mut self, kind: Kind, what: &str, operations: Vec<usize>) {
        if self.violations.len() < TOLD_MAX {
            self.violations.push(Violation { kind, what: format!("queue {}: {what}", self.queue), operations });
        }
    }

    /// The offsets up to the last one that must have been filled.
    fn slots(&mut self) -> Vec<Slot> {
        let may_store = |outcome: &Sent| !matches!(outcome, Sent::Refused);
        let sends = self
            .operations
            .iter()
            .filter(|at| matches!(&self.history[**at].what, Append::Send { outcome, .. } if may_store(outcome)));
        // No offset beyond is ever looked at, so that a wild one costs no memory.
        let length_max = sends.count() as u64;
        let mut slots: Vec<Slot> = Vec::new();
        let mut lower = Vec::new();
        for place in 0..self.operations.len() {
            self.work.step();
            let at = self.operations[place];
            let Operation { called, returned, what, .. } = self.history[at];
            let length = match what {
                Append::Send { outcome: Sent::Stored(offset), .. }
                | Append::Pull { offset, found: Found::Value(_), .. } => offset.saturating_add(1),
                Append::Pull { offset, found: Found::Nothing { end }, .. } => {
                    if end > offset {
                        let text = format!("{}, which is below that end", self.tell(at));
                        self.wrong(Kind::Nonsense, &text, vec![at]);
                    }
                    lower.push((end, Bound { moment: called, by: at }));
                    end
                }
                Append::Send { .. } => 0,
            };
            if length > length_max {
                let text = format!("{}, but no more than {length_max} sends can have been stored", self.tell(at));
                self.wrong(Kind::TooLong, &text, vec![at]);
                continue;
            }
            let Some(last) = length.checked_sub(1) else { continue };
            let last = last as usize;
            if slots.len() <= last {
                slots.resize(last + 1, Slot::default());
            }
            match what {
                Append::Send { value, .. } => {
                    if let Some(other) = slots[last].sender {
                        let text = format!("{}, and {}", self.tell(other), self.tell(at));
                        self.wrong(Kind::OffsetTwice, &text, vec![other, at]);
                        continue;
                    }
                    slots[last].sender = Some(at);
                    slots[last].not_before(called, at);
                    self.note_value(&mut slots[last], value, at);
                }
                Append::Pull { found: Found::Value(value), .. } => self.note_value(&mut slots[last], value, at),
                Append::Pull { .. } => {}
            }
            slots[last].not_after(returned, at);
        }
        for (end, bound) in lower {
            self.work.step();
            if let Some(slot) = slots.get_mut(end as usize) {
                slot.not_before(bound.moment, bound.by);
            }
        }
        slots
    }

    fn note_value(&mut self, slot: &mut Slot, value: u64, at: usize) {
        match slot.value {
            Some((other, by)) if other != value => {
                let text = format!("{}, and {}", self.tell(by), self.tell(at));
                self.wrong(Kind::ValuesDiffer, &text, vec![by, at]);
            }
            Some(_) => {}
            None => slot.value = Some((value, at)),
        }
    }

    /// Makes each upper bound the least of those from there on, and compares the lower ones with it.
    fn compare_bounds(&mut self, slots: &mut [Slot]) {
        let mut least: Option<Bound> = None;
        // A pair is told once, not at each offset that lies between the two.
        let mut last_told = None;
        for offset in (0..slots.len()).rev() {
            self.work.step();
            if let Some(later) = least {
                slots[offset].not_after(later.moment, later.by);
            }
            least = slots[offset].by;
            let (Some(from), Some(by)) = (slots[offset].from, slots[offset].by) else { continue };
            if from.moment > by.moment && last_told != Some(by.by) {
                last_told = Some(by.by);
                self.contradict(offset, from, by);
            }
        }
    }

    fn contradict(&mut self, offset: usize, from: Bound, by: Bound) {
        let late = self.tell(from.by);
        let is_send = |at: usize| matches!(self.history[at].what, Append::Send { .. });
        let kind = match (is_send(from.by), is_send(by.by)) {
            (false, _) => Kind::Stale,
            (true, true) => Kind::Reordered,
            (true, false) => Kind::TooEarly,
        };
        let text = format!(
            "{} by {}, so offset {offset} was filled by then; but later, from {} on, {late}",
            self.tell(by.by),
            by.moment,
            from.moment,
        );
        self.wrong(kind, &text, vec![by.by, from.by]);
    }

    /// Looks for sends of unknown outcome that fill the offsets of which no acknowledgement is known.
    fn fill_holes(&mut self, slots: &[Slot]) {
        let mut unknown = Vec::new();
        for at in &self.operations {
            self.work.step();
            if let Append::Send { value, outcome: Sent::Unknown, .. } = self.history[*at].what {
                unknown.push((value, *at));
            }
        }
        let history = self.history;
        self.work.sort(&mut unknown, |one, other| history[one.1].called.cmp(&history[other.1].called));
        let mut by_value: HashMap<u64, Stock> = HashMap::new();
        for (place, (value, at)) in unknown.iter().enumerate() {
            self.work.step();
            by_value.entry(*value).or_default().waiting.push((history[*at].called, place));
        }
        let mut is_used = vec![false; unknown.len()];
        for (offset, slot) in slots.iter().enumerate() {
            self.work.step();
            let (None, Some((value, by)), Some(latest)) = (slot.sender, slot.value, slot.by) else { continue };
            let found = by_value.get_mut(&value).and_then(|stock| stock.youngest(latest.moment, self.work));
            match found {
                Some(place) => is_used[place] = true,
                None => self.phantom(offset, value, by, latest),
            }
        }
        let left = unknown.iter().zip(is_used).filter(|(_, is_used)| !is_used);
        let mut left = left.map(|((_, at), _)| history[*at].called).peekable();
        for (offset, slot) in slots.iter().enumerate() {
            self.work.step();
            let (None, None, Some(latest)) = (slot.sender, slot.value, slot.by) else { continue };
            if left.next_if(|called| *called <= latest.moment).is_none() {
                let text = format!(
                    "{} by {}, but no send that was called by then and whose outcome is unknown is left for offset \
                     {offset}",
                    self.tell(latest.by),
                    latest.moment,
                );
                self.wrong(Kind::Hole, &text, vec![latest.by]);
            }
        }
    }

    fn phantom(&mut self, offset: usize, value: u64, by: usize, latest: Bound) {
        if self.violations.len() >= TOLD_MAX {
            return;
        }
        let sends: Vec<usize> = self
            .operations
            .iter()
            .copied()
            .filter(|at| matches!(self.history[*at].what, Append::Send { value: sent, .. } if sent == value))
            .collect();
        let is_open = |at: &&usize| matches!(self.history[**at].what, Append::Send { outcome: Sent::Unknown, .. });
        let late = sends.iter().filter(is_open).find(|at| self.history[**at].called > latest.moment);
        let mut operations = vec![by];
        let seen = self.tell(by);
        let (kind, text) = if let Some(late) = late {
            operations.extend([latest.by, *late]);
            let Operation { client, called, .. } = self.history[*late];
            let text = format!(
                "{seen}, and that offset was filled by {}, when {}; but only from {called} on client {client} sent it",
                latest.moment,
                self.tell(latest.by),
            );
            (Kind::TooEarly, text)
        } else if let Some(first) = sends.first() {
            operations.push(*first);
            let text = format!("{seen}, but of {} sends of it none can be there: {}", sends.len(), self.tell(*first));
            (Kind::Phantom, text)
        } else {
            (Kind::Phantom, format!("{seen}, but nobody sent {value} (offset {offset})"))
        };
        self.wrong(kind, &text, operations);
    }

    /// An operation as a clause.
    fn tell(&self, at: usize) -> String {
        let client = self.history[at].client;
        match self.history[at].what {
            Append::Send { value, outcome: Sent::Stored(offset), .. } => {
                format!("client {client} sent {value}, which got offset {offset}")
            }
            Append::Send { value, outcome: Sent::Refused, .. } => format!("client {client} sent {value}, in vain"),
            Append::Send { value, outcome: Sent::Unknown, .. } => {
                format!("client {client} sent {value}, with unknown outcome")
            }
            Append::Pull { offset, found: Found::Value(value), .. } => {
                format!("client {client} saw {value} at offset {offset}")
            }
            Append::Pull { offset, found: Found::Nothing { end }, .. } => {
                format!("client {client} found the queue's end at {end}, and nothing at {offset}")
            }
        }
    }
}

/// Sends of one value and of unknown outcome.
#[derive(Default)]
struct Stock {
    /// When each was called, rising, and its place among all of unknown outcome.
    waiting: Vec<(u64, usize)>,
    /// How many of these were called by the moment that was asked for last.
    reached: usize,
    /// The places of those that are not used.
    free: Vec<usize>,
}

impl Stock {
    /// Uses the one that was called last by `moment`, which does not fall from call to call.
    fn youngest(&mut self, moment: u64, work: &mut Work) -> Option<usize> {
        while let Some((called, place)) = self.waiting.get(self.reached).copied()
            && called <= moment
        {
            work.step();
            self.free.push(place);
            self.reached += 1;
        }
        self.free.pop()
    }
}
