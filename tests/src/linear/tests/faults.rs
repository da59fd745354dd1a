//! Each fault by name, in a short history that has no other one.

use super::*;

fn found(history: &[Operation<Append>]) -> Vec<Kind> {
    let verdict = judge_appends(history);
    for violation in &verdict.violations {
        assert!(violation.what.starts_with("queue 0: "), "{violation}");
    }
    verdict.violations.iter().map(|violation| violation.kind).collect()
}

fn decided(history: &[Operation<Decision>]) -> Vec<Kind> {
    judge_decisions(history).violations.iter().map(|violation| violation.kind).collect()
}

#[test]
fn a_faithful_queue_passes() {
    let history = in_turn([
        nothing(0, 0),
        stored(7, 0),
        send(8, Sent::Unknown),
        saw(0, 7),
        send(9, Sent::Refused),
        stored(10, 2),
        saw(1, 8),
        nothing(5, 3),
    ]);
    let verdict = judge_appends(&history);
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!((verdict.operations, verdict.unknown), (8, 1));
}

#[test]
fn an_offset_given_twice() {
    assert_eq!(found(&in_turn([stored(1, 0), stored(2, 0)])), [Kind::OffsetTwice]);
}

#[test]
fn an_acknowledged_message_that_is_lost_and_its_offset_used_again() {
    assert_eq!(found(&in_turn([stored(1, 0), send(2, Sent::Unknown), saw(0, 2)])), [Kind::ValuesDiffer]);
}

#[test]
fn an_acknowledged_message_that_is_lost_at_the_end() {
    let history = in_turn([stored(1, 0), stored(2, 1), nothing(1, 1)]);
    let verdict = judge_appends(&history);
    assert_eq!(verdict.violations.len(), 1, "{verdict}");
    assert_eq!(
        verdict.violations[0].to_string(),
        "Stale: queue 0: client 0 sent 2, which got offset 1 by 15, so offset 1 was filled by then; but later, from 20 \
         on, client 0 found the queue's end at 1, and nothing at 1",
    );
    assert_eq!(verdict.violations[0].operations, [1, 2]);
}

#[test]
fn a_message_that_was_seen_and_is_gone() {
    let history = in_turn([send(1, Sent::Unknown), saw(0, 1), nothing(0, 0)]);
    assert_eq!(found(&history), [Kind::Stale]);
}

#[test]
fn a_deposed_leader_that_answers_a_pull() {
    // Two clients: the new leader's sends stand before the old leader's answer to another one.
    let history = [
        operation(0, 0, 5, stored(1, 0)),
        operation(1, 10, 15, stored(2, 1)),
        operation(1, 20, 25, stored(3, 2)),
        operation(0, 26, 30, nothing(1, 1)),
    ];
    assert_eq!(found(&history), [Kind::Stale]);
}

#[test]
fn a_read_that_overlaps_the_send_may_see_it_or_not() {
    for answer in [nothing(0, 0), saw(0, 1)] {
        assert_eq!(found(&[operation(0, 0, 10, stored(1, 0)), operation(1, 5, 7, answer)]), []);
    }
    // Not first so, and then otherwise.
    let history = [operation(0, 0, 20, stored(1, 0)), operation(1, 5, 7, saw(0, 1)), operation(2, 8, 9, nothing(0, 0))];
    assert_eq!(found(&history), [Kind::Stale]);
}

#[test]
fn an_end_that_goes_back() {
    let history = [
        operation(0, 0, 100, stored(1, 0)),
        operation(0, 0, 100, stored(2, 1)),
        operation(1, 10, 20, nothing(2, 2)),
        operation(2, 30, 40, nothing(2, 1)),
    ];
    assert_eq!(found(&history), [Kind::Stale]);
}

#[test]
fn sends_reordered_in_real_time() {
    assert_eq!(found(&in_turn([stored(1, 1), stored(2, 0)])), [Kind::Reordered]);
    // Overlapping ones may stand in any order.
    assert_eq!(found(&[operation(0, 0, 10, stored(1, 1)), operation(1, 5, 15, stored(2, 0))]), []);
}

#[test]
fn a_phantom() {
    let nobody = [operation(0, 0, 5, stored(1, 0)), operation(0, 0, 5, send(2, Sent::Unknown))];
    let mut history = nobody.to_vec();
    history.push(operation(1, 10, 15, saw(1, 99)));
    assert_eq!(found(&history), [Kind::Phantom]);
    assert!(judge_appends(&history).violations[0].what.contains("nobody sent 99"));
}

#[test]
fn a_refused_message_that_appears() {
    let history = in_turn([send(1, Sent::Unknown), send(2, Sent::Refused), saw(0, 2)]);
    assert_eq!(found(&history), [Kind::Phantom]);
}

#[test]
fn a_message_that_is_there_twice() {
    let known = in_turn([stored(1, 0), send(9, Sent::Unknown), saw(1, 1)]);
    assert_eq!(found(&known), [Kind::Phantom]);
    let unknown = in_turn([send(1, Sent::Unknown), send(9, Sent::Unknown), saw(0, 1), saw(1, 1)]);
    assert_eq!(found(&unknown), [Kind::Phantom]);
    let sent_twice = in_turn([send(1, Sent::Unknown), send(1, Sent::Unknown), saw(0, 1), saw(1, 1)]);
    assert_eq!(found(&sent_twice), []);
}

#[test]
fn a_queue_longer_than_all_that_was_sent() {
    assert_eq!(found(&in_turn([stored(1, 0), stored(2, 2)])), [Kind::TooLong]);
    assert_eq!(found(&in_turn([stored(1, 0), nothing(2, 2)])), [Kind::TooLong]);
    assert_eq!(found(&in_turn([stored(1, u64::MAX)])), [Kind::TooLong]);
}

#[test]
fn a_hole_that_only_a_later_send_could_fill() {
    let history = in_turn([stored(1, 1), send(2, Sent::Unknown)]);
    assert_eq!(found(&history), [Kind::Hole]);
    let history = in_turn([send(2, Sent::Unknown), stored(1, 1)]);
    assert_eq!(found(&history), []);
}

#[test]
fn a_known_value_leaves_older_sends_to_other_holes() {
    // Both of value 5 could be the one that was seen; offset 0 needs the older one.
    let history = [
        operation(0, 0, 1, send(5, Sent::Unknown)),
        operation(0, 20, 21, send(5, Sent::Unknown)),
        operation(1, 5, 10, stored(6, 1)),
        operation(1, 30, 40, saw(2, 5)),
    ];
    assert_eq!(found(&history), []);
}

#[test]
fn a_message_seen_before_it_was_sent() {
    let acknowledged = [operation(0, 0, 5, saw(0, 1)), operation(1, 10, 15, stored(1, 0))];
    assert_eq!(found(&acknowledged), [Kind::TooEarly]);
    let unknown = [operation(0, 0, 5, saw(0, 1)), operation(1, 10, 15, send(1, Sent::Unknown))];
    assert_eq!(found(&unknown), [Kind::TooEarly]);
}

#[test]
fn an_answer_that_contradicts_itself() {
    assert_eq!(found(&in_turn([stored(1, 0), stored(2, 1), nothing(0, 2)])), [Kind::Nonsense]);
    let backwards = [operation(0, 5, 3, stored(1, 0))];
    assert!(judge_appends(&backwards).has(Kind::Malformed) && !judge_appends(&backwards).is_good());
}

#[test]
fn queues_are_judged_apart() {
    let other = Append::Send { queue: 1, value: 1, outcome: Sent::Stored(0) };
    assert_eq!(judge_appends(&in_turn([stored(1, 0), other])).violations, []);
    let verdict =
        judge_appends(&in_turn([stored(1, 0), Append::Send { queue: 2, value: 1, outcome: Sent::Stored(1) }]));
    assert!(verdict.violations[0].what.starts_with("queue 2: "), "{verdict}");
}

#[test]
fn one_fault_is_not_told_for_ever() {
    let all = (0..1_000).map(|value| stored(value, 0));
    assert_eq!(judge_appends(&in_turn(all)).violations.len(), TOLD_MAX);
}

#[test]
fn a_faithful_half_passes() {
    let committed = in_turn([
        see(false),
        decide(Ending::Commit, Answer::First),
        see(true),
        decide(Ending::Commit, Answer::Already),
        decide(Ending::Rollback, Answer::Conflict),
        decide(Ending::Commit, Answer::Confirmed),
        decide(Ending::Rollback, Answer::Unknown),
        see(true),
    ]);
    assert_eq!(decided(&committed), []);
    let rolled_back = in_turn([
        decide(Ending::Commit, Answer::Refused),
        decide(Ending::Rollback, Answer::Unknown),
        decide(Ending::Commit, Answer::Conflict),
        see(false),
        decide(Ending::Rollback, Answer::Already),
    ]);
    assert_eq!(decided(&rolled_back), []);
}

#[test]
fn a_decision_flipped() {
    let flipped = in_turn([decide(Ending::Commit, Answer::First), decide(Ending::Rollback, Answer::Confirmed)]);
    assert_eq!(decided(&flipped), [Kind::Flipped]);
    assert_eq!(
        judge_decisions(&flipped).violations[0].what,
        "half 0: client 0 sent a commit and was told that it was the first decision, between 0 and 5; but client 0 sent \
         a rollback and was confirmed, between 10 and 15",
    );
    let shown = in_turn([decide(Ending::Rollback, Answer::First), decide(Ending::Commit, Answer::Unknown), see(true)]);
    assert_eq!(decided(&shown), [Kind::Flipped]);
}

#[test]
fn a_conflict_with_what_was_never_decided() {
    let history = in_turn([decide(Ending::Commit, Answer::Unknown), decide(Ending::Commit, Answer::Conflict)]);
    assert_eq!(decided(&history), [Kind::Phantom]);
}

#[test]
fn a_message_visible_before_its_commit() {
    let history = in_turn([see(true), decide(Ending::Commit, Answer::First)]);
    assert_eq!(decided(&history), [Kind::TooEarly]);
    let unknown = in_turn([see(true), decide(Ending::Commit, Answer::Unknown)]);
    assert_eq!(decided(&unknown), [Kind::TooEarly]);
}

#[test]
fn a_message_visible_without_a_commit() {
    assert_eq!(decided(&in_turn([see(true)])), [Kind::Phantom]);
    assert_eq!(decided(&in_turn([decide(Ending::Commit, Answer::Refused), see(true)])), [Kind::Phantom]);
}

#[test]
fn a_commit_that_is_lost() {
    let history = in_turn([decide(Ending::Commit, Answer::Confirmed), see(false)]);
    assert_eq!(decided(&history), [Kind::Stale]);
    let seen = in_turn([decide(Ending::Commit, Answer::Unknown), see(true), see(false)]);
    assert_eq!(decided(&seen), [Kind::Stale]);
}

#[test]
fn a_half_decided_twice() {
    let history = in_turn([decide(Ending::Commit, Answer::First), decide(Ending::Commit, Answer::First)]);
    assert_eq!(decided(&history), [Kind::DecidedTwice]);
}

#[test]
fn a_decision_that_was_first_after_it_had_been_made() {
    let history = [
        operation(0, 0, 5, decide(Ending::Commit, Answer::Unknown)),
        operation(1, 10, 15, decide(Ending::Commit, Answer::Already)),
        operation(2, 20, 25, decide(Ending::Commit, Answer::First)),
    ];
    assert_eq!(decided(&history), [Kind::TooEarly]);
}

#[test]
fn halves_are_judged_apart() {
    let other = Decision::Decide { half: 1, ending: Ending::Rollback, answer: Answer::First };
    assert_eq!(judge_decisions(&in_turn([decide(Ending::Commit, Answer::First), other])).violations, []);
}
