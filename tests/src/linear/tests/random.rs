//! Random histories: of a faithful queue and register, with clients that overlap, and changed ones.

use super::reference::Model;
use super::{Answer, Append, Decision, Found, Operation, Sent};
use crate::dice::Dice;
use crate::history::Ending;

/// Something random of which histories are made.
pub(super) trait Draw: Model + Copy {
    /// What this operation answers in this state.
    fn answered(self, state: &Self::State) -> Self;

    /// The operation with the outcome that nobody knows, if it has such a one.
    fn unknown(self) -> Option<Self>;

    /// The operation refused, if it can be.
    fn refused(self) -> Option<Self>;

    /// An operation with any answer.
    fn draw(dice: &mut Dice) -> Self;
}

/// A history that is linearizable: each operation has its moment, at which the model answers, and a call and return
/// around it.
pub(super) fn faithful<W: Draw>(dice: &mut Dice, count: usize) -> Vec<Operation<W>> {
    let mut state = W::State::default();
    // Few moments, so that many are equal and many operations overlap.
    let width = dice.between(1, 8);
    (0..count as u64)
        .map(|moment| {
            let mut what = W::draw(dice).answered(&state);
            let mut has_effect = true;
            if dice.one_in(8)
                && let Some(refused) = what.refused()
            {
                (what, has_effect) = (refused, false);
            } else if dice.one_in(4)
                && let Some(unknown) = what.unknown()
            {
                (what, has_effect) = (unknown, !dice.one_in(3));
            }
            if has_effect {
                state = what.step(&state).expect("the model gave the answer");
            }
            let called = moment.saturating_sub(dice.below(width) as u64);
            // An unknown one has its moment after the client gave up, sometimes.
            let returned = if what.is_open() { called } else { moment + dice.below(width) as u64 };
            Operation { client: dice.below(3) as u32, called, returned, what }
        })
        .collect()
}

/// Changes an answer, a time or an operation, mostly to something that cannot be.
pub(super) fn change<W: Draw>(dice: &mut Dice, history: &mut [Operation<W>]) {
    let at = dice.below(history.len());
    let other = dice.below(history.len());
    match dice.below(4) {
        0 => history[at].what = W::draw(dice),
        1 => {
            let what = history[at].what;
            history[at].what = history[other].what;
            history[other].what = what;
        }
        2 => {
            let (called, returned) = (dice.below(8) as u64, dice.below(8) as u64);
            history[at].called = called.min(returned);
            history[at].returned = called.max(returned);
        }
        _ => {
            // Such an answer as another moment would have given.
            let mut state = W::State::default();
            for operation in &history[..other] {
                state = operation.what.step(&state).unwrap_or(state);
            }
            history[at].what = history[at].what.answered(&state);
        }
    }
}

/// A history without any plan.
pub(super) fn any<W: Draw>(dice: &mut Dice, count: usize) -> Vec<Operation<W>> {
    (0..count)
        .map(|_| {
            let (one, other) = (dice.below(10) as u64, dice.below(10) as u64);
            let what = W::draw(dice);
            Operation { client: dice.below(3) as u32, called: one.min(other), returned: one.max(other), what }
        })
        .collect()
}

impl Draw for Append {
    fn answered(self, state: &Vec<u64>) -> Append {
        let end = state.len() as u64;
        match self {
            Append::Send { queue, value, .. } => Append::Send { queue, value, outcome: Sent::Stored(end) },
            Append::Pull { queue, offset, .. } => {
                let found = state.get(offset as usize).map_or(Found::Nothing { end }, |value| Found::Value(*value));
                Append::Pull { queue, offset, found }
            }
        }
    }

    fn unknown(self) -> Option<Append> {
        match self {
            Append::Send { queue, value, .. } => Some(Append::Send { queue, value, outcome: Sent::Unknown }),
            Append::Pull { .. } => None,
        }
    }

    fn refused(self) -> Option<Append> {
        match self {
            Append::Send { queue, value, .. } => Some(Append::Send { queue, value, outcome: Sent::Refused }),
            Append::Pull { .. } => None,
        }
    }

    fn draw(dice: &mut Dice) -> Append {
        let (value, offset) = (dice.below(4) as u64, dice.below(4) as u64);
        if dice.one_in(2) {
            let outcome = *dice.pick(&[Sent::Stored(offset), Sent::Stored(offset), Sent::Unknown, Sent::Refused]);
            Append::Send { queue: 0, value, outcome }
        } else {
            let end = dice.below(4) as u64;
            let found = *dice.pick(&[Found::Value(value), Found::Nothing { end: offset }, Found::Nothing { end }]);
            Append::Pull { queue: 0, offset, found }
        }
    }
}

impl Draw for Decision {
    fn answered(self, state: &Option<Ending>) -> Decision {
        match self {
            Decision::Decide { half, ending, answer } => {
                let answer = match state {
                    None if answer == Answer::Confirmed => Answer::Confirmed,
                    None => Answer::First,
                    Some(made) if *made != ending => Answer::Conflict,
                    Some(_) if answer == Answer::Confirmed => Answer::Confirmed,
                    Some(_) => Answer::Already,
                };
                Decision::Decide { half, ending, answer }
            }
            Decision::See { half, .. } => Decision::See { half, is_visible: *state == Some(Ending::Commit) },
        }
    }

    fn unknown(self) -> Option<Decision> {
        match self {
            Decision::Decide { half, ending, .. } => Some(Decision::Decide { half, ending, answer: Answer::Unknown }),
            Decision::See { .. } => None,
        }
    }

    fn refused(self) -> Option<Decision> {
        match self {
            Decision::Decide { half, ending, .. } => Some(Decision::Decide { half, ending, answer: Answer::Refused }),
            Decision::See { .. } => None,
        }
    }

    fn draw(dice: &mut Dice) -> Decision {
        if dice.one_in(2) {
            return Decision::See { half: 0, is_visible: dice.one_in(2) };
        }
        let ending = *dice.pick(&[Ending::Commit, Ending::Commit, Ending::Rollback]);
        let answers =
            [Answer::First, Answer::Already, Answer::Confirmed, Answer::Conflict, Answer::Refused, Answer::Unknown];
        Decision::Decide { half: 0, ending, answer: *dice.pick(&answers) }
    }
}
