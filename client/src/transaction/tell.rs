//! Telling the broker what the local transaction decided, and what it made of it.

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::EndTransactionHeader;
use escrowmq_common::message::TransactionType;
use tokio::time::Instant;

use super::{Decision, Half};
use crate::core::{Core, refused};
use crate::error::{RequestError, TransactionError, code_is_retryable};
use crate::heartbeat::{Force, greet};
use crate::queue::MessageQueue;

/// What became of a transactional message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The broker confirmed: consumers get the message.
    Committed {
        /// The queue it is in.
        queue: MessageQueue,
        /// Its number there, if the broker named it.
        queue_offset: Option<i64>,
    },
    /// The broker confirmed: nobody ever gets the message.
    RolledBack,
    /// The listener did not know; the broker will ask.
    Undecided,
    /// The decision was sent to a broker that confirms none. If it was lost on the way, the broker will ask.
    Unconfirmed,
}

/// How long a decision is tried, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecisionPolicy {
    /// The longest wait for one answer.
    pub(crate) attempt_timeout: Duration,
    /// The end of it all.
    pub(crate) deadline: Duration,
}

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The wire's number of a decision.
pub(super) fn wire_type(decision: Decision) -> i32 {
    match decision {
        Decision::Commit => TransactionType::Commit.bits(),
        Decision::Rollback => TransactionType::Rollback.bits(),
        Decision::Unknown => TransactionType::None.bits(),
    }
}

/// Sends the decision and, where the broker confirms, waits until it is certain. Repeating it is safe: the broker keeps
/// the first decision and answers a repeat with the first one's outcome.
pub(super) async fn tell(
    core: &Core,
    group: &str,
    half: &Half,
    decision: Decision,
    remark: Option<String>,
    policy: DecisionPolicy,
) -> Result<Outcome, TransactionError> {
    let ends = Instant::now() + policy.deadline;
    let mut pause = PAUSE_FIRST;
    loop {
        let failure = match attempt(core, group, half, decision, remark.clone(), policy.attempt_timeout).await {
            Ok(answered) => return answered,
            Err(failure) => failure,
        };
        tracing::debug!(id = %half.transaction_id, ?decision, %failure, "decision not confirmed yet");
        let again = Instant::now() + pause;
        if decision == Decision::Unknown || again >= ends {
            let transaction_id = half.transaction_id.clone();
            return Err(TransactionError::OutcomeUnknown { transaction_id, decision, last: failure });
        }
        if !matches!(failure, RequestError::TimedOut { .. }) {
            // The broker may have moved; a failed refresh leaves what is known.
            let _ = core.routes.refresh(half.queue.topic(), false).await;
        }
        tokio::time::sleep_until(again).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One attempt; `Err` is worth another.
async fn attempt(
    core: &Core,
    group: &str,
    half: &Half,
    decision: Decision,
    remark: Option<String>,
    timeout: Duration,
) -> Result<Result<Outcome, TransactionError>, RequestError> {
    let addr = core.master_of(half.queue.broker(), half.queue.topic()).await?;
    let abilities = greet(core, &addr, Force::IfNeeded).await?;
    let header = EndTransactionHeader {
        producer_group: group,
        tran_state_table_offset: half.table_offset,
        commit_log_offset: half.position,
        commit_or_rollback: wire_type(decision),
        from_transaction_check: false,
        msg_id: Some(&half.message_id),
        transaction_id: Some(&half.transaction_id),
        topic: Some(half.queue.topic()),
        broker_name: Some(half.queue.broker()),
    };
    let mut end = Frame::request(request::END_TRANSACTION).with_header(&header);
    end.remark = remark;
    // "Don't know" settles nothing, so there is nothing to wait for.
    if decision == Decision::Unknown || !abilities.confirms_decisions {
        core.oneway(&addr, end).await?;
        return Ok(Ok(match decision {
            Decision::Unknown => Outcome::Undecided,
            Decision::Commit | Decision::Rollback => Outcome::Unconfirmed,
        }));
    }
    let answer = core.call(&addr, end, timeout).await?;
    judge(&addr, half, decision, answer)
}

/// Reads the answer to an awaited decision.
fn judge(
    addr: &str,
    half: &Half,
    decision: Decision,
    answer: Frame,
) -> Result<Result<Outcome, TransactionError>, RequestError> {
    let transaction_id = || half.transaction_id.clone();
    match answer.code {
        response::SUCCESS => Ok(Ok(match decision {
            Decision::Commit => Outcome::Committed {
                queue: committed_queue(half, &answer),
                queue_offset: number(&answer, "queueOffset"),
            },
            Decision::Rollback => Outcome::RolledBack,
            Decision::Unknown => Outcome::Undecided,
        })),
        response::ILLEGAL_OPERATION => Ok(Err(TransactionError::OppositeDecision {
            transaction_id: transaction_id(),
            decision,
            settled: settled(&answer),
            remark: answer.remark.unwrap_or_default(),
        })),
        code if is_passing(code, answer.remark.as_deref().unwrap_or_default()) => Err(refused(addr, answer)),
        code => Ok(Err(TransactionError::DecisionRefused {
            transaction_id: transaction_id(),
            decision,
            code,
            remark: answer.remark.unwrap_or_default(),
        })),
    }
}

/// How brokers say that there is nothing to decide: no such half message, or not this group's.
const REFUSALS: [&str; 4] = [
    "Find prepared transaction message failed",
    "The producer group wrong",
    "The transaction state table offset wrong",
    "The commit log offset wrong",
];

/// Whether an answer says nothing about the half message, so that the decision is worth repeating.
fn is_passing(code: i32, remark: &str) -> bool {
    match code {
        // Everything that a broker did not expect, a lost leader among it, except where it says what is wrong.
        response::SYSTEM_ERROR => !REFUSALS.iter().any(|refusal| remark.starts_with(refusal)),
        // A broker that does not lead any more, or not yet.
        response::SLAVE_NOT_AVAILABLE => true,
        response::NO_PERMISSION | response::TOPIC_NOT_EXIST => false,
        code => code_is_retryable(code),
    }
}

fn committed_queue(half: &Half, answer: &Frame) -> MessageQueue {
    let id = number(answer, "queueId").and_then(|id| i32::try_from(id).ok()).unwrap_or(half.queue.id());
    let topic: Arc<str> = answer.fields.get("topic").unwrap_or(half.queue.topic()).into();
    MessageQueue::new(topic, half.queue.broker_shared(), id)
}

fn number(answer: &Frame, field: &str) -> Option<i64> {
    answer.fields.get(field)?.parse().ok()
}

fn settled(answer: &Frame) -> Option<Decision> {
    match answer.fields.get("decision")? {
        "commit" => Some(Decision::Commit),
        "rollback" => Some(Decision::Rollback),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half() -> Half {
        Half {
            transaction_id: "t".into(),
            message_id: "t".into(),
            queue: MessageQueue::new("T", "a", 1),
            position: 7,
            table_offset: 3,
        }
    }

    fn answer(code: i32) -> Frame {
        Frame::response(&Frame::request(request::END_TRANSACTION), code)
    }

    fn judged(decision: Decision, answer: Frame) -> Result<Result<Outcome, TransactionError>, RequestError> {
        judge("h:1", &half(), decision, answer)
    }

    #[test]
    fn a_confirmed_commit_names_its_place() {
        let settled = answer(0).with_field("queueOffset", 42).with_field("queueId", 2).with_field("topic", "T");
        let outcome = judged(Decision::Commit, settled).expect("final").expect("settled");
        let queue = MessageQueue::new("T", "a", 2);
        assert_eq!(outcome, Outcome::Committed { queue, queue_offset: Some(42) });
        let bare = judged(Decision::Commit, answer(0)).expect("final").expect("settled");
        let queue = MessageQueue::new("T", "a", 1);
        assert_eq!(bare, Outcome::Committed { queue, queue_offset: None });
        assert_eq!(judged(Decision::Rollback, answer(0)).expect("final").expect("settled"), Outcome::RolledBack);
    }

    #[test]
    fn the_opposite_decision_is_told_with_what_stands() {
        let opposite = answer(604).with_remark("committed before").with_field("decision", "commit");
        let error = judged(Decision::Rollback, opposite).expect("final").expect_err("opposite");
        let TransactionError::OppositeDecision { settled, .. } = error else { panic!("{error}") };
        assert_eq!(settled, Some(Decision::Commit));
    }

    #[test]
    fn passing_codes_are_repeated_and_others_are_not() {
        for code in
            [response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE, response::SLAVE_NOT_AVAILABLE, response::GO_AWAY]
        {
            assert!(judged(Decision::Commit, answer(code)).is_err(), "{code}");
        }
        for code in [response::NO_PERMISSION, response::TOPIC_NOT_EXIST, response::REQUEST_CODE_NOT_SUPPORTED] {
            let error = judged(Decision::Commit, answer(code)).expect("final").expect_err("refused");
            assert!(matches!(error, TransactionError::DecisionRefused { .. }), "{code}");
        }
    }

    #[test]
    fn a_system_error_is_final_only_where_it_says_why() {
        let unknown = answer(response::SYSTEM_ERROR).with_remark("the outcome is unknown");
        assert!(judged(Decision::Commit, unknown).is_err());
        let refused = answer(response::SYSTEM_ERROR).with_remark("The producer group wrong, want A, is B");
        let error = judged(Decision::Commit, refused).expect("final").expect_err("refused");
        assert!(matches!(error, TransactionError::DecisionRefused { .. }), "{error}");
    }
}
