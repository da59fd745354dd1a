//! Producers' answers to checks that decided nothing. An operator who looks at a transaction wants to know whether its producer
//! is silent or does not know.
//!
//! Remembered by this process, for the transactions that answered last: an answer that decides nothing changes nothing, and is
//! not worth a log entry each. Answers that decide are kept with the decision, by [`DECIDED_BY_ANSWER`].

use std::collections::{HashMap, VecDeque};

use crate::terms::{HalfId, Stamp};

/// The reason of a decision that answered a check. Those that producers make by themselves have none.
pub(crate) const DECIDED_BY_ANSWER: &str = "answer to a check";

/// The most transactions that are remembered, and the most answers of each.
const HALVES_MAX: usize = 16_384;
const ANSWERS_MAX: usize = crate::index::history::ASKED_MAX;

/// An answer that decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The producer does not know.
    Unknown,
    /// It knows that the local transaction still runs; the check does not count.
    InProgress,
}

impl Answer {
    /// As operators' tools name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InProgress => "inProgress",
        }
    }
}

/// The last answers of the transactions that answered last.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By first half: times and answers; the latest last.
    by_half: HashMap<HalfId, VecDeque<(Stamp, Answer)>>,
    /// The halves, the one that is forgotten next in front.
    order: VecDeque<HalfId>,
}

impl Answers {
    /// An instance answered a check about a half at `at`.
    pub(crate) fn note(&mut self, half: HalfId, at: Stamp, answer: Answer) {
        let answers = self.by_half.entry(half).or_insert_with(|| {
            self.order.push_back(half);
            VecDeque::new()
        });
        if answers.len() == ANSWERS_MAX {
            answers.pop_front();
        }
        answers.push_back((at, answer));
        if self.order.len() > HALVES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_half.remove(&oldest);
        }
    }

    /// For each time at which a check went out, in their order, what came back before the next one went.
    pub(crate) fn to(&self, half: HalfId, asked: &[Stamp]) -> Vec<Option<Answer>> {
        let empty = VecDeque::new();
        let answers = self.by_half.get(&half).unwrap_or(&empty);
        let next = asked.iter().skip(1).copied().chain([Stamp::MAX]);
        let of = |(from, before): (&Stamp, Stamp)| {
            let mut within = answers.iter().filter(|(at, _)| (*from..before).contains(at));
            within.next_back().map(|(_, answer)| *answer)
        };
        asked.iter().zip(next).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asking_has_the_answer_that_came_before_the_next_one() {
        let mut answers = Answers::default();
        for (at, answer) in [(12, Answer::Unknown), (35, Answer::Unknown), (36, Answer::InProgress)] {
            answers.note(HalfId(7), Stamp(at), answer);
        }
        let to = |asked: &[Stamp]| answers.to(HalfId(7), asked);
        assert_eq!(to(&[Stamp(10), Stamp(20), Stamp(30)]), [Some(Answer::Unknown), None, Some(Answer::InProgress)]);
        assert_eq!(to(&[]), []);
        assert_eq!(answers.to(HalfId(8), &[Stamp(10)]), [None], "of another transaction");
        assert_eq!(to(&[Stamp(40)]), [None], "older than the question");
    }

    #[test]
    fn memory_is_bounded() {
        let mut answers = Answers::default();
        for half in 0..=HALVES_MAX as u64 {
            answers.note(HalfId(half), Stamp(1), Answer::Unknown);
        }
        assert_eq!((answers.by_half.len(), answers.order.len()), (HALVES_MAX, HALVES_MAX));
        assert_eq!(
            (answers.to(HalfId::ZERO, &[Stamp(1)]), answers.to(HalfId(1), &[Stamp(1)])),
            (vec![None], vec![Some(Answer::Unknown)])
        );
        for at in 0..100 {
            answers.note(HalfId(1), Stamp(at), Answer::Unknown);
        }
        assert_eq!(answers.by_half[&HalfId(1)].len(), ANSWERS_MAX);
    }
}
