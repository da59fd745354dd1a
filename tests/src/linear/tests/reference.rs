//! The definition of linearizability as a program (Wing and Gong): does any order of the operations that respects their
//! times give the answers that were given? It knows nothing of bounds or holes. Its work grows with the factorial of
//! the operations, so it is for small histories.

use std::collections::HashSet;
use std::hash::Hash;

use super::{Answer, Append, Decision, Found, Operation, Sent};
use crate::history::Ending;

/// A sequential object.
pub(super) trait Model {
    type State: Clone + Eq + Hash + Default;

    /// The state after the operation, if it can give its answer in this state.
    fn step(&self, state: &Self::State) -> Option<Self::State>;

    /// Whether the outcome is unknown: then it may also never happen.
    fn is_open(&self) -> bool;
}

pub(super) fn is_linearizable<W: Model>(history: &[Operation<W>]) -> bool {
    if history.iter().any(|operation| operation.returned < operation.called) {
        return false;
    }
    search(history, 0, &W::State::default(), &mut HashSet::new())
}

/// `done` has a bit for each operation that has had its moment.
fn search<W: Model>(
    history: &[Operation<W>],
    done: u32,
    state: &W::State,
    tried: &mut HashSet<(u32, W::State)>,
) -> bool {
    let is_left = |at: &usize| done & (1 << at) == 0;
    let left: Vec<usize> = (0..history.len()).filter(is_left).collect();
    if left.iter().all(|at| history[*at].what.is_open()) {
        return true;
    }
    if !tried.insert((done, state.clone())) {
        return false;
    }
    // The next one must have been called before any other one that is left had returned.
    let first_return = left
        .iter()
        .filter(|at| !history[**at].what.is_open())
        .map(|at| history[*at].returned)
        .min()
        .unwrap_or(u64::MAX);
    left.iter().filter(|at| history[**at].called <= first_return).any(|at| {
        let next = history[*at].what.step(state);
        next.is_some_and(|next| search(history, done | (1 << at), &next, tried))
    })
}

impl Model for Append {
    type State = Vec<u64>;

    fn step(&self, state: &Vec<u64>) -> Option<Vec<u64>> {
        let length = state.len() as u64;
        match self {
            Append::Send { value, outcome, .. } => {
                let mut after = state.clone();
                match outcome {
                    Sent::Refused => return Some(after),
                    Sent::Stored(offset) if *offset != length => return None,
                    Sent::Stored(_) | Sent::Unknown => after.push(*value),
                }
                Some(after)
            }
            Append::Pull { offset, found, .. } => {
                let answer = match state.get(*offset as usize) {
                    Some(value) => Found::Value(*value),
                    None => Found::Nothing { end: length },
                };
                (answer == *found).then(|| state.clone())
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Append::Send { outcome: Sent::Unknown, .. })
    }
}

impl Model for Decision {
    type State = Option<Ending>;

    fn step(&self, state: &Option<Ending>) -> Option<Option<Ending>> {
        match self {
            Decision::See { is_visible, .. } => (*is_visible == (*state == Some(Ending::Commit))).then_some(*state),
            Decision::Decide { ending, answer, .. } => {
                let after = state.or(Some(*ending));
                let is_told_right = match answer {
                    Answer::First => state.is_none(),
                    Answer::Already => *state == Some(*ending),
                    Answer::Confirmed => after == Some(*ending),
                    Answer::Conflict => state.is_some_and(|made| made != *ending),
                    Answer::Refused => return Some(*state),
                    Answer::Unknown => true,
                };
                is_told_right.then_some(after)
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Decision::Decide { answer: Answer::Unknown, .. })
    }
}
