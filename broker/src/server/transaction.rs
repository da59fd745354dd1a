//! Decisions on half messages, and resuming parked ones.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{EndTransactionHeader, ResumeCheckHalfMessageHeader};
use escrowmq_common::message::OffsetMessageId;

use super::Reply;
use super::reply::{code_of, code_of_refusal};
use crate::broker::Broker;
use crate::retention;
use crate::shard::{Admission, Command, Decision, Message, Outcome, Refusal, Resume, Settle, Settled, SubmitError};

/// The protocol's numbers for a producer's answer.
const COMMIT: i32 = 8;
const ROLLBACK: i32 = 12;
const UNKNOWN: i32 = 0;

/// `END_TRANSACTION`: the first decision wins, a repeat gets the first one's result, the opposite is refused.
pub(super) fn end(broker: &Arc<Broker>, request: &Frame, reply: Reply) {
    let header: EndTransactionHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.error(response::SYSTEM_ERROR, &error.to_string()),
    };
    let (Ok(half), Ok(counter)) =
        (u64::try_from(header.commit_log_offset), u64::try_from(header.tran_state_table_offset))
    else {
        return reply.error(response::SYSTEM_ERROR, "Find prepared transaction message failed: negative offset");
    };
    if header.from_transaction_check {
        broker.transactions.answered(reply.connection().id(), half);
    }
    let decision = match header.commit_or_rollback {
        COMMIT => Decision::Commit,
        ROLLBACK => Decision::Rollback,
        // An answered check, and no decision: the next check asks again.
        UNKNOWN => return reply.ok(),
        other => {
            return reply.error(
                response::SYSTEM_ERROR,
                &format!("commitOrRollback {other} is neither commit (8), rollback (12) nor unknown (0)"),
            );
        }
    };
    let settle = Settle {
        half,
        counter: Some(counter),
        decision,
        group: Some(header.producer_group),
        by: "",
        reason: "",
        rewritten: None,
    };
    if decision == Decision::Commit && half < broker.retention.rewrite_below() {
        return commit_old(broker, &settle, reply);
    }
    submit(broker, settle, reply);
}

/// Commits a half whose bytes may be too old to stay for long from now on: they are read, and written anew.
fn commit_old(broker: &Arc<Broker>, settle: &Settle<'_>, reply: Reply) {
    let (half, counter) = (settle.half, settle.counter);
    let group = settle.group.unwrap_or_default().to_owned();
    let broker = Arc::clone(broker);
    let tasks = broker.tasks.clone();
    tasks.spawn("old commit", async move {
        let reader = Arc::clone(&broker);
        let read = move || retention::rewritten(&reader.shard, half, reader.retention.rewrite_below());
        let read = broker.tasks.spawn_blocking("old commit", read).await;
        let message = match read {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return reply.error(response::SYSTEM_ERROR, &error.to_string()),
            _ => return reply.not_done(&SubmitError::Stopping),
        };
        let rewritten = message.as_ref().map(|(tag_hash, unit)| Message::new(*tag_hash, unit));
        let decision = Decision::Commit;
        let settle = Settle { half, counter, decision, group: Some(&group), by: "", reason: "", rewritten };
        submit(&broker, settle, reply);
    });
}

fn submit(broker: &Arc<Broker>, settle: Settle<'_>, reply: Reply) {
    let settle = Command::Settle(settle);
    let answer = {
        let (broker, reply) = (Arc::clone(broker), reply.clone());
        Box::new(move |result| answer(&broker, reply, result))
    };
    if let Err((error, _)) = broker.shard.submit(&settle, Admission::Reserved, answer) {
        reply.not_done(&error);
    }
}

fn answer(broker: &Broker, reply: Reply, result: Result<Outcome, SubmitError>) {
    match result {
        Ok(Outcome::Settled(settled)) => {
            broker.metrics.decisions.record(response::SUCCESS);
            settled_answer(broker, reply, &settled);
        }
        Ok(Outcome::Refused(refusal)) => {
            broker.metrics.decisions.record(code_of_refusal(&refusal));
            refused_answer(reply, &refusal);
        }
        Ok(
            other @ (Outcome::Published(_)
            | Outcome::Prepared(_)
            | Outcome::Locked(_)
            | Outcome::Handled(_)
            | Outcome::Done),
        ) => unreachable!("a decision never has the outcome {other:?}"),
        Err(error) => {
            broker.metrics.decisions.record(code_of(&error));
            reply.not_done(&error);
        }
    }
}

fn settled_answer(broker: &Broker, reply: Reply, settled: &Settled) {
    let queue = broker.shard.topics().queue(settled.queue);
    reply.send(
        response::SUCCESS,
        None,
        |fields| {
            fields.text("outcome", outcome_name(settled.decision));
            if let Some(offset) = settled.offset {
                fields.number("queueOffset", offset.cast_signed());
            }
            if let Some(queue) = queue {
                fields.text("topic", &queue.topic);
                fields.number("queueId", queue.index.cast_signed());
            }
        },
        &[],
    );
}

fn outcome_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "committed",
        Decision::Rollback => "rolledBack",
    }
}

fn refused_answer(reply: Reply, refusal: &Refusal) {
    let remark = refusal.to_string();
    match refusal {
        Refusal::AlreadyDecided(first) => {
            let decision = match first.decision {
                Decision::Commit => "commit",
                Decision::Rollback => "rollback",
            };
            let remark = format!(
                "the transaction was {} at {} already; the first decision stands and a retry does not change it",
                outcome_name(first.decision),
                first.at
            );
            reply.send(response::ILLEGAL_OPERATION, Some(&remark), |fields| fields.text("decision", decision), &[]);
        }
        // The texts that RocketMQ's broker answers with, which tools look for.
        Refusal::NoSuchHalf(_) => reply.error(response::SYSTEM_ERROR, "Find prepared transaction message failed"),
        Refusal::WrongGroup(_) => reply.error(response::SYSTEM_ERROR, "The producer group wrong"),
        Refusal::WrongCounter(_) => reply.error(response::SYSTEM_ERROR, "The transaction state table offset wrong"),
        Refusal::NoSuchQueue(_) | Refusal::NoSuchTopic(_) => reply.error(response::TOPIC_NOT_EXIST, &remark),
        Refusal::NoSuchGroup(_) => reply.error(response::SUBSCRIPTION_GROUP_NOT_EXIST, &remark),
        Refusal::UniqueIdTaken(_) | Refusal::MalformedSettings => reply.error(response::MESSAGE_ILLEGAL, &remark),
        Refusal::NotParked(_) | Refusal::QueueIdsExhausted => reply.error(response::SYSTEM_ERROR, &remark),
    }
}

/// `RESUME_CHECK_HALF_MESSAGE`: puts a parked half back into the checks.
pub(super) fn resume(broker: &Arc<Broker>, request: &Frame, reply: Reply) {
    let header: ResumeCheckHalfMessageHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.error(response::SYSTEM_ERROR, &error.to_string()),
    };
    let half = header.msg_id.parse::<OffsetMessageId>().ok().and_then(|id| u64::try_from(id.position).ok());
    let Some(half) = half else {
        return reply.error(response::SYSTEM_ERROR, "msgId is not the offset message id of a half message");
    };
    let by = reply.connection().peer().to_string();
    let command = Command::Resume(Resume { half, by: &by, only_if: None });
    let answer = {
        let (broker, reply) = (Arc::clone(broker), reply.clone());
        Box::new(move |result| match result {
            Ok(Outcome::Refused(refusal)) => refused_answer(reply, &refusal),
            Ok(_) => {
                broker.transactions.look_again(half);
                reply.ok();
            }
            Err(error) => reply.not_done(&error),
        })
    };
    if let Err((error, _)) = broker.shard.submit(&command, Admission::Reserved, answer) {
        reply.not_done(&error);
    }
}
