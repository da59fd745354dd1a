//! Decisions on half messages, and looks at whether a message is visible. A half is a register that is written once:
//! open first, then committed or rolled back.
//!
//! Why the judgement is exact. A half changes at one moment `w` at most. If the answers show no decision, none need
//! have been made. If they show a commit and a rollback, there is no such moment. Else the decision is known, and each
//! answer bounds `w`, and bounds nothing else:
//!
//! | operation, called at `c`, returned at `r` | demands |
//! | --- | --- |
//! | the decision, told that it was the first | it is the one that decided, so `c <= w <= r` |
//! | the decision, confirmed; or told that it had been made | `w <= r` |
//! | the opposite decision, refused for this one | `w <= r` |
//! | the message is visible | `w <= r` |
//! | it is not visible, and the decision is a commit | `c <= w` |
//!
//! Besides one operation must have decided: the one that was the first, or any that was confirmed or whose outcome is
//! unknown and which was called by the least of these `r`. An operation of unknown outcome that asks for the opposite
//! came to nothing, which is always possible.

use serde::{Deserialize, Serialize};

use super::{Kind, Operation, TOLD_MAX, Verdict, Violation, Work, split};
use crate::history::Ending;

/// An operation on a half message. Whoever writes the history numbers the halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// A decision is sent, by its producer, as an answer to a check, or by an operator.
    Decide {
        /// The half.
        half: u64,
        /// The decision.
        ending: Ending,
        /// The answer.
        answer: Answer,
    },
    /// Somebody looks for the message, where consumers find it. A look that was not answered is no operation.
    See {
        /// The half.
        half: u64,
        /// Whether it was there.
        is_visible: bool,
    },
}

/// The answer to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was made now.
    First,
    /// The same one had been made before.
    Already,
    /// It holds; the answer does not say since when.
    Confirmed,
    /// The opposite had been made before.
    Conflict,
    /// It was refused for another reason, so it must never have an effect.
    Refused,
    /// Nobody knows. It may have its effect at any time, or never.
    Unknown,
}

impl Decision {
    fn half(&self) -> u64 {
        match self {
            Decision::Decide { half, .. } | Decision::See { half, .. } => *half,
        }
    }

    /// The decision that this operation shows.
    fn shown(&self) -> Option<Ending> {
        match self {
            Decision::Decide { ending, answer: Answer::First | Answer::Already | Answer::Confirmed, .. } => {
                Some(*ending)
            }
            Decision::Decide { ending: Ending::Commit, answer: Answer::Conflict, .. } => Some(Ending::Rollback),
            Decision::Decide { ending: Ending::Rollback, answer: Answer::Conflict, .. }
            | Decision::See { is_visible: true, .. } => Some(Ending::Commit),
            Decision::Decide { .. } | Decision::See { .. } => None,
        }
    }
}

/// Judges a history of decisions and looks, in any order.
pub fn judge_decisions(history: &[Operation<Decision>]) -> Verdict {
    let mut work = Work::default();
    let mut violations = Vec::new();
    for operations in split(history, &mut work, &mut violations, Decision::half) {
        let half = history[operations[0]].what.half();
        let mut judge = Judge { history, half, violations: Vec::new(), work: &mut work };
        judge.judge(&operations);
        judge.violations.truncate(TOLD_MAX);
        violations.append(&mut judge.violations);
    }
    let is_unknown = |what: &Decision| matches!(what, Decision::Decide { answer: Answer::Unknown, .. });
    let unknown = history.iter().filter(|operation| is_unknown(&operation.what)).count();
    Verdict { violations, operations: history.len(), unknown, steps: work.0 }
}

/// The judgement on one half.
struct Judge<'a> {
    history: &'a [Operation<Decision>],
    half: u64,
    violations: Vec<Violation>,
    work: &'a mut Work,
}

/// What the answers say of a half. Operations are named by their place in the history.
#[derive(Default)]
struct Facts {
    /// Of the operations that show a commit, the one that returned first.
    commit: Option<usize>,
    /// The same for a rollback.
    rollback: Option<usize>,
    /// Those that were told that they were the first.
    firsts: Vec<usize>,
    /// Of the looks that found nothing, the one that was called last.
    hidden: Option<usize>,
    /// Of the operations that may have committed, the one that was called first.
    committer: Option<usize>,
    /// The same for a rollback.
    roller_back: Option<usize>,
}

impl Judge<'_> {
    fn judge(&mut self, operations: &[usize]) {
        let facts = self.gather(operations);
        if let (Some(commit), Some(rollback)) = (facts.commit, facts.rollback) {
            self.wrong(Kind::Flipped, &[commit, rollback], "");
        }
        if let [one, other, ..] = facts.firsts[..] {
            self.wrong(Kind::DecidedTwice, &[one, other], "");
        }
        if let Some(shown) = facts.commit {
            self.judge_ending(&facts, Ending::Commit, shown, facts.committer);
            self.judge_looks(&facts, shown);
        }
        if let Some(shown) = facts.rollback {
            self.judge_ending(&facts, Ending::Rollback, shown, facts.roller_back);
        }
    }

    fn wrong(&mut self, kind: Kind, operations: &[usize], more: &str) {
        let told: Vec<String> = operations.iter().map(|at| self.tell(*at)).collect();
        let what = format!("half {}: {}{more}", self.half, told.join("; but "));
        self.violations.push(Violation { kind, what, operations: operations.to_vec() });
    }

    fn gather(&mut self, operations: &[usize]) -> Facts {
        let history = self.history;
        let mut facts = Facts::default();
        let returned_first = |slot: &mut Option<usize>, at: usize| {
            if slot.is_none_or(|other| history[at].returned < history[other].returned) {
                *slot = Some(at);
            }
        };
        let called_first = |slot: &mut Option<usize>, at: usize| {
            if slot.is_none_or(|other| history[at].called < history[other].called) {
                *slot = Some(at);
            }
        };
        for at in operations.iter().copied() {
            self.work.step();
            let what = history[at].what;
            match what.shown() {
                Some(Ending::Commit) => returned_first(&mut facts.commit, at),
                Some(Ending::Rollback) => returned_first(&mut facts.rollback, at),
                None => {}
            }
            match what {
                Decision::Decide { ending, answer: Answer::First | Answer::Confirmed | Answer::Unknown, .. } => {
                    let slot = match ending {
                        Ending::Commit => &mut facts.committer,
                        Ending::Rollback => &mut facts.roller_back,
                    };
                    called_first(slot, at);
                }
                Decision::See { is_visible: false, .. } => {
                    if facts.hidden.is_none_or(|other| history[at].called > history[other].called) {
                        facts.hidden = Some(at);
                    }
                }
                Decision::Decide { .. } | Decision::See { .. } => {}
            }
            if matches!(what, Decision::Decide { answer: Answer::First, .. }) {
                facts.firsts.push(at);
            }
        }
        facts
    }

    /// Whether one operation can have made the decision that was shown by the end of `shown`.
    fn judge_ending(&mut self, facts: &Facts, ending: Ending, shown: usize, decider: Option<usize>) {
        let is_this =
            |at: &&usize| matches!(self.history[**at].what, Decision::Decide { ending: its, .. } if its == ending);
        let decider = facts.firsts.iter().find(is_this).copied().or(decider);
        match decider {
            None => self.wrong(Kind::Phantom, &[shown], "; but no decision can have done that"),
            Some(decider) if self.history[decider].called > self.history[shown].returned => {
                self.wrong(Kind::TooEarly, &[shown, decider], ", which is the earliest that can have decided");
            }
            Some(_) => {}
        }
    }

    fn judge_looks(&mut self, facts: &Facts, shown: usize) {
        if let Some(hidden) = facts.hidden
            && self.history[hidden].called > self.history[shown].returned
        {
            self.wrong(Kind::Stale, &[shown, hidden], "");
        }
    }

    /// An operation as a clause.
    fn tell(&self, at: usize) -> String {
        let Operation { client, called, returned, what } = self.history[at];
        let deed = match what {
            Decision::See { is_visible: true, .. } => "saw the message".to_owned(),
            Decision::See { is_visible: false, .. } => "did not see the message".to_owned(),
            Decision::Decide { ending, answer, .. } => {
                let decision = match ending {
                    Ending::Commit => "commit",
                    Ending::Rollback => "rollback",
                };
                let answer = match answer {
                    Answer::First => "was told that it was the first decision",
                    Answer::Already => "was told that it had been made",
                    Answer::Confirmed => "was confirmed",
                    Answer::Conflict => "was refused, as the opposite had been decided",
                    Answer::Refused => "was refused",
                    Answer::Unknown => "never heard its outcome",
                };
                format!("sent a {decision} and {answer}")
            }
        };
        format!("client {client} {deed}, between {called} and {returned}")
    }
}
