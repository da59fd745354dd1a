//! On small histories the judges and the search of all orders must agree, on thousands of good ones and of bad ones.

use std::fmt::Debug;

use super::random::{Draw, any, change, faithful};
use super::reference::is_linearizable;
use super::{Answer, Ending, Kind, Operation, Sent, Verdict, decide, judge_appends, judge_decisions, operation, send};
use crate::dice::Dice;

/// Histories of each sort.
const HISTORIES: u64 = 40_000;
const OPERATIONS_MAX: usize = 7;
/// Of good and of bad ones so many must have been among them.
const EACH_MIN: u32 = 20_000;

fn agree<W: Draw + Debug>(judge: impl Fn(&[Operation<W>]) -> Verdict) {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..HISTORIES {
        let mut dice = Dice::of_step(14, seed);
        let count = dice.between(1, OPERATIONS_MAX + 1);
        let mut history = faithful::<W>(&mut dice, count);
        assert!(is_linearizable(&history), "seed {seed}: the generator is wrong: {history:#?}");
        let mut histories = vec![history.clone()];
        for _ in 0..2 {
            change(&mut dice, &mut history);
            histories.push(history.clone());
        }
        histories.push(any(&mut dice, count));
        for history in histories {
            let expected = is_linearizable(&history);
            let verdict = judge(&history);
            assert_eq!(verdict.is_good(), expected, "seed {seed}: {verdict}{history:#?}");
            for violation in &verdict.violations {
                assert!(violation.operations.iter().all(|at| *at < history.len()), "{violation:?}");
            }
            *(if expected { &mut good } else { &mut bad }) += 1;
        }
    }
    println!("{good} good and {bad} bad histories judged alike by the search of all orders");
    assert!(good >= EACH_MIN && bad >= EACH_MIN, "{good} good, {bad} bad");
}

#[test]
fn appends_are_judged_as_by_a_search_of_all_orders() {
    agree(judge_appends);
}

#[test]
fn decisions_are_judged_as_by_a_search_of_all_orders() {
    agree(judge_decisions);
}

/// The two operations that a contradiction names contradict each other, whatever else may have happened, and neither
/// one is wrong by itself.
#[test]
fn the_operations_of_a_contradiction_contradict_each_other() {
    // Whatever an operation needs to have happened before it.
    let unknown = [0, 1, 2, 3].map(|value| operation(9, 0, 0, send(value, Sent::Unknown)));
    let unknown = unknown.iter().cycle().take(16).cloned().collect::<Vec<_>>();
    let undecided =
        [Ending::Commit, Ending::Rollback].map(|ending| operation(9, 0, 0, decide(ending, Answer::Unknown)));
    let mut tried = [0, 0];
    for seed in 0..HISTORIES {
        let mut dice = Dice::of_step(15, seed);
        let count = dice.between(2, OPERATIONS_MAX + 1);
        tried[0] += contradictions(&any(&mut dice, count), &unknown, judge_appends);
        tried[1] += contradictions(&any(&mut dice, count), &undecided, judge_decisions);
    }
    assert!(tried.iter().all(|tried| *tried > 1_000), "{tried:?}");
}

fn contradictions<W: Clone>(
    history: &[Operation<W>],
    before: &[Operation<W>],
    judge: impl Fn(&[Operation<W>]) -> Verdict,
) -> u32 {
    let with = |operations: &[usize]| {
        let named = operations.iter().map(|at| history[*at].clone());
        judge(&before.iter().cloned().chain(named).collect::<Vec<_>>())
    };
    let mut tried = 0;
    for violation in judge(history).violations {
        let [one, other] = violation.operations[..] else { continue };
        // These two say that nothing else has happened that could explain it.
        let is_of_all = matches!(violation.kind, Kind::Phantom | Kind::TooEarly);
        if is_of_all || [one, other].iter().any(|at| with(&[*at]).has(Kind::Nonsense)) {
            continue;
        }
        let both = with(&[one, other]);
        assert!(!both.is_good(), "{violation}");
        for alone in [one, other] {
            assert!(with(&[alone]).is_good(), "{violation}, but {alone} is wrong alone");
        }
        tried += 1;
    }
    tried
}
