//! An operator's word on a transaction.

use std::fmt;

use escrowmq_common::body::TransactionAction;
use escrowmq_common::code::{request, response, word};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::DecideTransactionHeader;
use escrowmq_common::limits::{OPERATOR_BYTES_MAX, REASON_BYTES_MAX};

use super::{Admin, bounded};
use crate::core::refused;
use crate::error::RequestError;
use crate::transaction::Decision;

/// The broker did what the operator asked for, or had done so before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Whether the same decision had been made before, by whomever: nothing was changed then.
    pub repeated: bool,
    /// When it was decided, in milliseconds since 1970; a broker names it for commits and rollbacks.
    pub decided_at: Option<i64>,
    /// How safe the decision is: `appended`, `flushed` or `replicated`.
    pub store_level: Option<String>,
    /// Where the message is that was sent first, if it was committed.
    pub place: Option<MessagePlace>,
    /// The other messages of a transaction of several: half id and place.
    pub members: Vec<(u64, MessagePlace)>,
}

/// Where consumers find a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessagePlace {
    /// Topic.
    pub topic: String,
    /// Queue of the topic at this broker.
    pub queue_id: i32,
    /// Its number there; `None` while it waits for a delay.
    pub queue_offset: Option<i64>,
}

impl fmt::Display for MessagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, queue {}, ", self.topic, self.queue_id)?;
        match self.queue_offset {
            Some(offset) => write!(f, "offset {offset}"),
            None => f.write_str("waits for its delay"),
        }
    }
}

/// The broker did not do what the operator asked for, or nobody knows.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The transaction was decided before, and differently. The first decision stands whoever made it.
    #[error("{action} of half message {half_id} came after a {} that stands", name_of(*.settled))]
    AlreadyDecided {
        /// The half message.
        half_id: u64,
        /// The action that was asked for.
        action: TransactionAction,
        /// The decision that stands.
        settled: Decision,
        /// When that was decided, in milliseconds since 1970, if the broker said so.
        decided_at: Option<i64>,
    },
    /// The transaction is not in a state that allows this: it is not parked, or parked already.
    #[error("{action} of half message {half_id} is not possible now: {remark}")]
    NotPossible {
        /// The half message.
        half_id: u64,
        /// The action that was asked for.
        action: TransactionAction,
        /// The broker's own words.
        remark: String,
    },
    /// The broker knows no half message with this id.
    #[error("the broker knows no half message {half_id}, or has forgotten how it was decided")]
    NotFound {
        /// The half message.
        half_id: u64,
    },
    /// The request did not end well.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl DecideError {
    /// Whether the same call may succeed later. It never does harm: a decision that was made already is not made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            DecideError::Request(error) => error.is_retryable(),
            DecideError::AlreadyDecided { .. } | DecideError::NotPossible { .. } | DecideError::NotFound { .. } => {
                false
            }
        }
    }

    /// Whether the broker may have done what was asked.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            DecideError::Request(error) => error.outcome_unknown(),
            DecideError::AlreadyDecided { .. } | DecideError::NotPossible { .. } | DecideError::NotFound { .. } => {
                false
            }
        }
    }
}

fn name_of(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => word::COMMIT,
        Decision::Rollback => word::ROLLBACK,
        Decision::Unknown | Decision::InProgress { .. } => "decision",
    }
}

impl Admin {
    /// Commits, rolls back, resumes or parks a transaction of the broker at `addr`. The broker keeps `operator` (at most
    /// 255 bytes) and `reason` (at most 1024 bytes) with it; neither may be empty.
    pub async fn decide_transaction(
        &self,
        addr: &str,
        half_id: u64,
        action: TransactionAction,
        operator: &str,
        reason: &str,
    ) -> Result<Decided, DecideError> {
        let core = self.client.core();
        for (field, text, max) in [("operator", operator, OPERATOR_BYTES_MAX), ("reason", reason, REASON_BYTES_MAX)] {
            if text.trim().is_empty() {
                return Err(RequestError::invalid(format!("{field} is empty")).into());
            }
            bounded(field, text, max)?;
        }
        let header =
            DecideTransactionHeader { half_id: half_id_on_the_wire(half_id)?, action: action.name(), operator, reason };
        let ask = Frame::request(request::DECIDE_TRANSACTION).with_header(&header);
        let answer = core.call(addr, ask, core.settings.request_timeout).await?;
        judge(addr, half_id, action, answer)
    }
}

/// The protocol has signed numbers alone.
pub(super) fn half_id_on_the_wire(half_id: u64) -> Result<i64, RequestError> {
    i64::try_from(half_id).map_err(|_| RequestError::invalid(format!("no half id is as large as {half_id}")))
}

fn judge(addr: &str, half_id: u64, action: TransactionAction, answer: Frame) -> Result<Decided, DecideError> {
    // A rollback is answered with the queue as well, which its message never enters.
    let is_commit = action == TransactionAction::Commit;
    match answer.code {
        response::SUCCESS => Ok(Decided {
            repeated: answer.fields.get("repeated") == Some("true"),
            decided_at: number(&answer, "decidedAt"),
            store_level: answer.fields.get("storeLevel").map(str::to_owned),
            place: place(&answer).filter(|_| is_commit),
            members: answer.fields.get("members").filter(|_| is_commit).map(members).unwrap_or_default(),
        }),
        response::ILLEGAL_OPERATION => Err(match settled(&answer) {
            Some(settled) => {
                DecideError::AlreadyDecided { half_id, action, settled, decided_at: number(&answer, "decidedAt") }
            }
            None => DecideError::NotPossible { half_id, action, remark: answer.remark.unwrap_or_default() },
        }),
        response::QUERY_NOT_FOUND => Err(DecideError::NotFound { half_id }),
        _ => Err(refused(addr, answer).into()),
    }
}

fn place(answer: &Frame) -> Option<MessagePlace> {
    let topic = answer.fields.get("topic")?.to_owned();
    let queue_id = answer.fields.get("queueId")?.parse().ok()?;
    Some(MessagePlace { topic, queue_id, queue_offset: number(answer, "queueOffset") })
}

/// `halfId:topic:queueId:queueOffset`, several joined by `;`. An unreadable one is left out: the decision was made.
fn members(text: &str) -> Vec<(u64, MessagePlace)> {
    let member = |text: &str| {
        let mut parts = text.split(':');
        let half_id = parts.next()?.parse().ok()?;
        let topic = parts.next()?.to_owned();
        let queue_id = parts.next()?.parse().ok()?;
        let queue_offset = parts.next()?.parse().ok();
        Some((half_id, MessagePlace { topic, queue_id, queue_offset }))
    };
    text.split(';').filter_map(member).collect()
}

fn number(answer: &Frame, field: &str) -> Option<i64> {
    answer.fields.get(field)?.parse().ok()
}

fn settled(answer: &Frame) -> Option<Decision> {
    match answer.fields.get("decision")? {
        word::COMMIT => Some(Decision::Commit),
        word::ROLLBACK => Some(Decision::Rollback),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32) -> Frame {
        Frame::response(&Frame::request(request::DECIDE_TRANSACTION), code)
    }

    fn judged(answer: Frame) -> Result<Decided, DecideError> {
        judge("h:1", 7, TransactionAction::Commit, answer)
    }

    #[test]
    fn a_commit_names_the_place_of_every_message() {
        let answer = answer(response::SUCCESS)
            .with_field("outcome", "committed")
            .with_field("repeated", "true")
            .with_field("decidedAt", 99)
            .with_field("storeLevel", "flushed")
            .with_field("topic", "T")
            .with_field("queueId", 2)
            .with_field("queueOffset", 17)
            .with_field("members", "8:T:3:5;9:U:0:;nonsense");
        let decided = judged(answer).unwrap();
        let place =
            |topic: &str, queue_id, queue_offset| MessagePlace { topic: topic.to_owned(), queue_id, queue_offset };
        assert_eq!(
            decided,
            Decided {
                repeated: true,
                decided_at: Some(99),
                store_level: Some("flushed".to_owned()),
                place: Some(place("T", 2, Some(17))),
                members: vec![(8, place("T", 3, Some(5))), (9, place("U", 0, None))],
            }
        );
    }

    #[test]
    fn a_rollback_names_no_place() {
        let answer =
            answer(response::SUCCESS).with_field("topic", "T").with_field("queueId", 2).with_field("members", "8:T:3:");
        let decided = judge("h:1", 7, TransactionAction::Rollback, answer).unwrap();
        assert_eq!(decided, Decided::default());
    }

    #[test]
    fn the_first_decision_is_told_apart_from_a_state_that_does_not_allow_it() {
        let first = answer(response::ILLEGAL_OPERATION).with_field("decision", "rollback").with_field("decidedAt", 5);
        let error = judged(first).unwrap_err();
        assert!(!error.is_retryable() && !error.outcome_unknown());
        assert_eq!(error.to_string(), "commit of half message 7 came after a rollback that stands");
        let DecideError::AlreadyDecided { settled: Decision::Rollback, decided_at: Some(5), .. } = error else {
            panic!("{error:?}");
        };
        let state = judged(answer(response::ILLEGAL_OPERATION).with_remark("it is not parked")).unwrap_err();
        assert!(matches!(&state, DecideError::NotPossible { remark, .. } if remark == "it is not parked"), "{state:?}");
        let unknown = judged(answer(response::QUERY_NOT_FOUND)).unwrap_err();
        assert!(matches!(unknown, DecideError::NotFound { half_id: 7 }));
        let busy = judged(answer(response::SYSTEM_BUSY)).unwrap_err();
        assert!(busy.is_retryable() && !busy.outcome_unknown());
    }
}
