//! Histories as a long run leaves them: the work stays near n log n, and a fault among 100,000 operations is found.

use std::collections::HashMap;

use escrowmq_common::clock;

use super::random::Draw as _;
use super::reference::Model as _;
use super::*;
use crate::dice::Dice;
use crate::wait::since;

const OPERATIONS: u64 = 100_000;
const CLIENTS: u64 = 32;
const QUEUES: usize = 4;

/// Steps that a judgement may take per operation, times the logarithm of their number.
const STEPS_MAX: u64 = 4;

/// Appends of clients that overlap, a tenth of them of unknown outcome.
fn appends(dice: &mut Dice) -> Vec<Operation<Append>> {
    let mut queues: Vec<Vec<u64>> = vec![Vec::new(); QUEUES];
    (0..OPERATIONS)
        .map(|moment| {
            let queue = dice.below(QUEUES) as u32;
            let state = &mut queues[queue as usize];
            let offset = state.len().saturating_sub(dice.below(3)) as u64;
            let asked = if dice.one_in(3) {
                Append::Pull { queue, offset, found: Found::Nothing { end: 0 } }
            } else {
                Append::Send { queue, value: moment, outcome: Sent::Unknown }
            };
            let mut what = asked.answered(state);
            if matches!(what, Append::Send { .. }) {
                let is_unknown = dice.one_in(10);
                if !is_unknown || dice.one_in(2) {
                    state.push(moment);
                }
                if is_unknown {
                    what = asked;
                }
            }
            spread(dice, moment, what)
        })
        .collect()
}

/// Decisions on a tenth as many halves.
fn decisions(dice: &mut Dice) -> Vec<Operation<Decision>> {
    let mut halves: HashMap<u64, Option<Ending>> = HashMap::new();
    (0..OPERATIONS)
        .map(|moment| {
            let half = dice.below(OPERATIONS as usize / 10) as u64;
            let state = halves.entry(half).or_default();
            let what = match Decision::draw(dice) {
                Decision::Decide { ending, answer, .. } => Decision::Decide { half, ending, answer },
                Decision::See { is_visible, .. } => Decision::See { half, is_visible },
            };
            let what = if what.is_open() { what } else { what.answered(state) };
            *state = what.step(state).expect("the model gave the answer");
            spread(dice, moment, what)
        })
        .collect()
}

/// As many operations overlap as there are clients.
fn spread<W>(dice: &mut Dice, moment: u64, what: W) -> Operation<W> {
    let client = (moment % CLIENTS) as u32;
    let called = (moment * 10).saturating_sub(dice.below(10 * CLIENTS as usize) as u64);
    Operation { client, called, returned: moment * 10 + dice.below(10 * CLIENTS as usize) as u64, what }
}

fn assert_cheap(name: &str, verdict: &Verdict, began: std::time::Duration) {
    let bound = OPERATIONS * u64::from(OPERATIONS.ilog2()) * STEPS_MAX;
    println!("{name}: {} operations in {} steps and {:?}", verdict.operations, verdict.steps, since(began));
    assert!(verdict.steps < bound, "{} steps, {bound} are allowed", verdict.steps);
}

#[test]
fn a_long_history_of_appends_costs_n_log_n_and_hides_nothing() {
    let mut dice = Dice::new(3);
    let mut history = appends(&mut dice);
    // In an order that helps no sort.
    history.sort_by_cached_key(|_| dice.roll());
    let began = clock::monotonic();
    let verdict = judge_appends(&history);
    assert!(verdict.is_good(), "{verdict}");
    assert_cheap("appends", &verdict, began);
    assert!(verdict.unknown > 1_000);

    // Long after its answer a message is not there.
    let last = OPERATIONS * 10 + 1_000_000;
    let end = Found::Nothing { end: 5 };
    history.push(operation(0, last, last + 1, Append::Pull { queue: 2, offset: 5, found: end }));
    let began = clock::monotonic();
    let verdict = judge_appends(&history);
    assert!(verdict.has(Kind::Stale), "{verdict}");
    assert_cheap("appends with a fault", &verdict, began);
}

#[test]
fn a_long_history_of_decisions_costs_n_log_n_and_hides_nothing() {
    let mut dice = Dice::new(4);
    let mut history = decisions(&mut dice);
    history.sort_by_cached_key(|_| dice.roll());
    let began = clock::monotonic();
    let verdict = judge_decisions(&history);
    assert!(verdict.is_good(), "{verdict}");
    assert_cheap("decisions", &verdict, began);

    let visible = history.iter().find_map(|operation| match operation.what {
        Decision::See { half, is_visible: true } => Some(half),
        _ => None,
    });
    let (half, last) = (visible.expect("one of thousands"), OPERATIONS * 10 + 1_000_000);
    let rollback = Decision::Decide { half, ending: Ending::Rollback, answer: Answer::Confirmed };
    history.push(operation(0, last, last + 1, rollback));
    let began = clock::monotonic();
    let verdict = judge_decisions(&history);
    assert!(verdict.has(Kind::Flipped), "{verdict}");
    assert_cheap("decisions with a fault", &verdict, began);
}

#[test]
fn values_that_repeat_and_outcomes_that_are_all_unknown_cost_no_more() {
    let sends = (0..OPERATIONS / 2).map(|at| operation(0, at, at, send(at % 3, Sent::Unknown)));
    let reads = (0..OPERATIONS / 2).map(|at| operation(1, at, OPERATIONS, saw(at, at % 3)));
    let began = clock::monotonic();
    let verdict = judge_appends(&sends.chain(reads).collect::<Vec<_>>());
    assert!(verdict.is_good(), "{verdict}");
    assert_cheap("appends of unknown outcome", &verdict, began);
}

#[test]
fn histories_are_kept_as_json() {
    let history = in_turn([stored(1, 0), send(2, Sent::Unknown), saw(0, 1), nothing(3, 1)]);
    let kept = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Operation<Append>>>(&kept).unwrap(), history);
    let history = in_turn([decide(Ending::Commit, Answer::First), see(true)]);
    let kept = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Operation<Decision>>>(&kept).unwrap(), history);
}
