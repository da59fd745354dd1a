//! Decisions on half messages, and what operators ask and decide.

use escrowmq_common::code::request;

use super::draft::Draft;
use super::scene::Scene;
use super::values::filled;
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 12, ..valid(request::END_TRANSACTION, Target::Broker, Accepts::DECIDED, end) },
    Generator { weight: 2, ..valid(request::RESUME_CHECK_HALF_MESSAGE, Target::Broker, Accepts::DECIDED, resume) },
    Generator { weight: 2, ..valid(request::LIST_TRANSACTIONS, Target::Broker, &[0], list) },
    Generator { weight: 2, ..valid(request::GET_TRANSACTION, Target::Broker, Accepts::FOUND, get) },
    Generator { weight: 1, ..valid(request::COUNT_TRANSACTIONS, Target::Broker, &[0], count) },
    Generator { weight: 5, ..valid(request::DECIDE_TRANSACTION, Target::Broker, Accepts::DECIDED, decide) },
];

/// Commit, rollback, or neither, with a lease or not.
fn end(scene: &mut Scene<'_>) -> Draft {
    let half = scene.half();
    let decision = *scene.dice.pick(&[8, 8, 12, 12, 0]);
    // A decision of a group that was never seen, as long as anything.
    let group = if scene.dice.one_in(12) { filled(&mut scene.dice, 70_000) } else { half.group };
    let draft = Draft::new(request::END_TRANSACTION)
        .with("producerGroup", group)
        .with_number("tranStateTableOffset", half.counter)
        .with_number("commitLogOffset", half.position)
        .with_number("commitOrRollback", decision)
        .with("fromTransactionCheck", *scene.dice.pick(&["false", "true"]))
        .with("msgId", &half.unique_id)
        .with("transactionId", half.unique_id)
        .with("topic", half.topic)
        .with("bname", "broker-a");
    if decision == 0 && !scene.dice.one_in(4) {
        return draft.with_number("retryAfterMillis", *scene.dice.pick(&[1, 1000, 60_000, -1]));
    }
    draft
}

fn resume(scene: &mut Scene<'_>) -> Draft {
    let half = scene.half();
    Draft::new(request::RESUME_CHECK_HALF_MESSAGE).with("topic", half.topic).with("msgId", half.message_id)
}

fn list(scene: &mut Scene<'_>) -> Draft {
    let mut draft = Draft::new(request::LIST_TRANSACTIONS);
    if scene.dice.one_in(2) {
        draft = draft.with("producerGroup", scene.half().group);
    }
    if scene.dice.one_in(3) {
        draft = draft.with("topic", scene.topic());
    }
    if scene.dice.one_in(2) {
        draft = draft.with("state", *scene.dice.pick(&["open", "parked"]));
    }
    draft
        .with_number("olderThanMillis", *scene.dice.pick(&[0, 1000]))
        .with_number("limit", *scene.dice.pick(&[1, 100, i32::MAX]))
        .with_number("after", *scene.dice.pick(&[0, 1 << 20]))
}

fn get(scene: &mut Scene<'_>) -> Draft {
    let half = scene.half();
    let draft = Draft::new(request::GET_TRANSACTION);
    if scene.dice.one_in(2) { draft.with_number("halfId", half.position) } else { draft.with("msgId", half.message_id) }
}

fn count(scene: &mut Scene<'_>) -> Draft {
    let draft = Draft::new(request::COUNT_TRANSACTIONS);
    if scene.dice.one_in(2) { draft.with("producerGroup", scene.half().group) } else { draft }
}

fn decide(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::DECIDE_TRANSACTION)
        .with_number("halfId", scene.half().position)
        .with("action", *scene.dice.pick(&["commit", "rollback", "resume", "park", "park"]))
        .with("operator", "evil")
        .with("reason", "because")
}
