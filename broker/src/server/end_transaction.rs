//! Decisions on half messages, leases on them, and RocketMQ's own way to resume parked ones.

use std::fmt;
use std::sync::Arc;

use escrowmq_common::code::{remark, response, word};
use escrowmq_common::frame::{FieldWriter, Frame};
use escrowmq_common::header::{EndTransactionHeader, ExtendTransactionHeader, ResumeCheckHalfMessageHeader};
use escrowmq_common::message::OffsetMessageId;
use escrowmq_common::some_lines;

use super::answer::{code_of, code_of_refusal};
use super::slow;
use crate::broker::Broker;
use crate::reply::Reply;
use crate::retention::{self, Rewritten};
use crate::shard::{
    Admission, Command, Extend, Message, Outcome, ReadError, Refusal, Resume, Settle, Settled, SubmitError,
};
use crate::terms::{Decision, HalfId, Stamp};
use crate::transaction::answers::{Answer, DECIDED_BY_ANSWER};

/// Longest lease that a producer gets at once, in milliseconds: one that dies is missed after it.
const LEASE_MAX: u64 = 60 * 60 * 1000;

/// `END_TRANSACTION`: the first decision wins, a repeat gets the first one's result, the opposite is refused.
pub(super) fn end(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: EndTransactionHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let (Ok(half), Ok(counter)) =
        (u64::try_from(header.commit_log_offset).map(HalfId), u64::try_from(header.tran_state_table_offset))
    else {
        return reply.error(response::SYSTEM_ERROR, &format!("{}: negative offset", remark::NO_SUCH_HALF));
    };
    let is_answer =
        header.from_transaction_check && broker.transactions.answered(reply.connection().id(), half, broker.now());
    if is_answer && header.commit_or_rollback == EndTransactionHeader::UNKNOWN {
        let lease = request.header::<ExtendTransactionHeader>();
        let is_in_progress = lease.is_ok_and(|lease| lease.retry_after_millis.is_some());
        let answer = if is_in_progress { Answer::InProgress } else { Answer::Unknown };
        broker.transactions.note_answer(half, broker.now(), answer);
    }
    let decision = match header.commit_or_rollback {
        EndTransactionHeader::COMMIT => Decision::Commit,
        EndTransactionHeader::ROLLBACK => Decision::Rollback,
        EndTransactionHeader::UNKNOWN => {
            return undecided(broker, &request, &header, (half, counter), is_answer, reply);
        }
        other => {
            return reply.error(
                response::SYSTEM_ERROR,
                &format!("commitOrRollback {other} is neither commit (8), rollback (12) nor unknown (0)"),
            );
        }
    };
    let group = Some(header.producer_group);
    let reason = if is_answer { DECIDED_BY_ANSWER } else { "" };
    let named = Named { half, counter: Some(counter), group, by: "", reason, refused: refused_answer };
    decide(broker, named, decision, reply);
}

/// A transaction as somebody names it who decides it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    /// The half, any one of the transaction.
    pub(super) half: HalfId,
    /// Its counter, if the sender must know it.
    pub(super) counter: Option<u64>,
    /// The producer group that decides; `None` for an operator.
    pub(super) group: Option<&'a str>,
    /// The operator.
    pub(super) by: &'a str,
    /// The operator's reason; of a producer, whether it answered a check.
    pub(super) reason: &'a str,
    /// How a refusal is answered.
    pub(super) refused: fn(Reply, &Refusal),
}

/// Decides, and answers with what became of it.
pub(super) fn decide(broker: &Arc<Broker>, named: Named<'_>, decision: Decision, reply: Reply) {
    // Right after a start retention has not looked yet, but what was trimmed is known.
    let old_below = broker.retention.rewrite_below().max(broker.shard.counters().trimmed());
    if decision == Decision::Commit && named.half.position() < old_below {
        commit_old(broker, named, reply);
    } else {
        submit(broker, named, decision, Vec::new(), reply);
    }
}

/// Commits a transaction whose bytes may be too old to stay for long from now on: they are read, and written again. If they
/// cannot be read, nothing is decided.
fn commit_old(broker: &Arc<Broker>, named: Named<'_>, reply: Reply) {
    let Named { half, counter, refused, .. } = named;
    let group = named.group.map(str::to_owned);
    let (by, reason) = (named.by.to_owned(), named.reason.to_owned());
    let broker = Arc::clone(broker);
    let tasks = broker.tasks.clone();
    tasks.spawn("old commit", async move {
        let messages = loop {
            let reader = Arc::clone(&broker);
            let read = move || {
                let below = reader.retention.rewrite_below().max(reader.shard.counters().trimmed());
                retention::rewritten(&reader.shard, half, below)
            };
            match slow::read_vital(&broker, "old commit", read).await {
                Ok(Ok(Rewritten::Anew(messages))) => break messages,
                Ok(Ok(Rewritten::Move(load))) => {
                    let moved = load.command(|command| broker.shard.propose(command, Admission::Reserved)).await;
                    if let Err(error) = moved {
                        return reply.refuse(error);
                    }
                }
                Ok(Err(error)) => {
                    some_lines!(error, %half, %error, "a half message cannot be committed: its bytes cannot be read");
                    broker.metrics.decisions.record(response::SYSTEM_ERROR);
                    return reply.error(response::SYSTEM_ERROR, &unreadable(&error));
                }
                Err(refused) => {
                    broker.metrics.decisions.record(refused.code);
                    return reply.refuse(refused);
                }
            }
        };
        let anew = messages.iter().map(|(half, tag_hash, unit)| (*half, Message::new(*tag_hash, unit))).collect();
        let named = Named { half, counter, group: group.as_deref(), by: &by, reason: &reason, refused };
        submit(&broker, named, Decision::Commit, anew, reply);
    });
}

/// Says why a commit whose messages cannot be read was not made.
fn unreadable(error: &ReadError) -> String {
    let then = if error.is_retryable() { "try again" } else { "a retry ends the same way; roll it back" };
    format!("nothing was decided, because the message cannot be read: {error}; {then}")
}

fn submit(
    broker: &Arc<Broker>,
    named: Named<'_>,
    decision: Decision,
    rewritten: Vec<(HalfId, Message<'_>)>,
    reply: Reply,
) {
    let Named { half, counter, group, by, reason, refused } = named;
    let settle = Command::Settle(Settle { half, counter, decision, group, by, reason, rewritten });
    let answer = {
        let (broker, reply) = (Arc::clone(broker), reply.clone());
        // The group of the transaction if it may be waiting. Only operators name no group, and only for them it is looked up.
        let waits = group.filter(|_| broker.transactions.has_any()).map(str::to_owned);
        let is_operators = group.is_none();
        Box::new(move |result| {
            if matches!(&result, Ok(Outcome::Settled(settled)) if settled.first) {
                match waits {
                    Some(group) => broker.transactions.decided(|| Some((group, half))),
                    None if is_operators => forget_waiting(&broker, half),
                    None => {}
                }
            }
            answer(&broker, reply, result, refused);
        })
    };
    if let Err((error, _)) = broker.shard.submit(&settle, Admission::Reserved, answer) {
        reply.refuse(error);
    }
}

/// A decided transaction waits for no instance any more.
fn forget_waiting(broker: &Broker, half: HalfId) {
    broker.transactions.decided(|| {
        let decided = broker.shard.decision(half).ok().flatten()?;
        Some((decided.group, decided.first_half.unwrap_or(half)))
    });
}

fn answer(broker: &Broker, reply: Reply, result: Result<Outcome, SubmitError>, refused: fn(Reply, &Refusal)) {
    match result {
        Ok(Outcome::Settled(settled)) => {
            broker.metrics.decisions.record(response::SUCCESS);
            if settled.first && settled.decision == Decision::Commit {
                broker.metrics.commits.record(reply.age());
            }
            settled_answer(broker, reply, &settled);
        }
        Ok(Outcome::Refused(refusal)) => {
            broker.metrics.decisions.record(code_of_refusal(&refusal));
            refused(reply, &refusal);
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
            reply.refuse(error);
        }
    }
}

fn settled_answer(broker: &Broker, reply: Reply, settled: &Settled) {
    let queue = broker.shard.topics().queue(settled.queue);
    let level = broker.store_level();
    reply.send(
        response::SUCCESS,
        None,
        |fields| {
            fields.text("outcome", outcome_name(settled.decision));
            fields.boolean("repeated", !settled.first);
            fields.number("decidedAt", settled.at.signed());
            fields.text("storeLevel", level);
            if let Some(offset) = settled.offset {
                fields.number("queueOffset", offset.signed());
            }
            if let Some(queue) = queue {
                fields.text("topic", &queue.topic);
                fields.number("queueId", queue.index.cast_signed());
            }
            if !settled.members.is_empty() {
                fields.display("members", Members { broker, settled });
            }
        },
        &[],
    );
}

/// The further messages of a transaction: `half:topic:queue:offset`, the offset empty where there is none yet.
struct Members<'a> {
    broker: &'a Broker,
    settled: &'a Settled,
}

impl fmt::Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, member) in self.settled.members.iter().enumerate() {
            let separator = if nth == 0 { "" } else { ";" };
            write!(f, "{separator}{}:", member.half)?;
            match self.broker.shard.topics().queue(member.queue) {
                Some(queue) => write!(f, "{}:{}:", queue.topic, queue.index)?,
                None => f.write_str("::")?,
            }
            if let Some(offset) = member.offset {
                offset.fmt(f)?;
            }
        }
        Ok(())
    }
}

fn outcome_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "committed",
        Decision::Rollback => "rolledBack",
    }
}

/// Says why a decision, a lease or a resumption was not taken.
pub(super) fn refused_answer(reply: Reply, refusal: &Refusal) {
    let remark = refusal.to_string();
    match refusal {
        Refusal::AlreadyDecided(first) => {
            let remark = already_decided(first);
            reply.send(response::ILLEGAL_OPERATION, Some(&remark), |fields| put_first(fields, first), &[]);
        }
        // The texts that RocketMQ's broker answers with, which tools look for.
        Refusal::NoSuchHalf(_) => reply.error(response::SYSTEM_ERROR, remark::NO_SUCH_HALF),
        Refusal::WrongGroup(_) => reply.error(response::SYSTEM_ERROR, remark::WRONG_GROUP),
        Refusal::WrongCounter(_) => reply.error(response::SYSTEM_ERROR, remark::WRONG_COUNTER),
        other => reply.error(code_of_refusal(other), &remark),
    }
}

/// Why an opposite decision is refused.
pub(super) fn already_decided(first: &Settled) -> String {
    format!(
        "the transaction was {} at {} already; the first decision stands and a retry does not change it",
        outcome_name(first.decision),
        first.at
    )
}

/// Names the decision that stands.
pub(super) fn put_first(fields: &mut FieldWriter<'_>, first: &Settled) {
    let decision = match first.decision {
        Decision::Commit => word::COMMIT,
        Decision::Rollback => word::ROLLBACK,
    };
    fields.text("decision", decision);
    fields.number("decidedAt", first.at.signed());
}

/// No decision: the next check asks again, at its time or after the lease that the producer asks for.
fn undecided(
    broker: &Arc<Broker>,
    request: &Frame,
    header: &EndTransactionHeader<'_>,
    (half, counter): (HalfId, u64),
    is_answer: bool,
    reply: Reply,
) {
    let lease = match request.header() {
        Ok(ExtendTransactionHeader { retry_after_millis: Some(lease) }) => lease.unsigned_abs().clamp(1, LEASE_MAX),
        Ok(ExtendTransactionHeader { retry_after_millis: None }) => return reply.ok(),
        Err(error) => return reply.refuse(error),
    };
    let mut until = broker.now().saturating_add(lease);
    if !is_answer {
        // A sign of life puts off the first check, and never brings it forward.
        until = first_check(broker, half).map_or(until, |first| until.max(first));
    }
    let command = Command::Extend(Extend { half, counter, group: header.producer_group, until, is_answer });
    let answer = {
        let (broker, reply) = (Arc::clone(broker), reply.clone());
        Box::new(move |result| match result {
            Ok(Outcome::Refused(refusal)) => refused_answer(reply, &refusal),
            Ok(_) => {
                broker.transactions.leased(until, || {
                    let open = broker.shard.half(half).ok().flatten()?;
                    Some((open.group, open.first_half.unwrap_or(half)))
                });
                reply.ok();
            }
            Err(error) => reply.refuse(error),
        })
    };
    if let Err((error, _)) = broker.shard.submit(&command, Admission::Reserved, answer) {
        reply.refuse(error);
    }
}

/// When the first check of a half's transaction is due, if it has no due time of its own.
fn first_check(broker: &Broker, half: HalfId) -> Option<Stamp> {
    let open = |half| broker.shard.half(half).ok().flatten();
    let first = open(half).and_then(|row| match row.first_half {
        Some(first) => open(first),
        None => Some(row),
    });
    let wait = broker.config().transaction_time_out.as_millis() as u64;
    first.filter(|row| row.next_due.is_none()).map(|row| row.prepared_at.saturating_add(wait))
}

/// `RESUME_CHECK_HALF_MESSAGE`: puts a parked half back into the checks.
pub(super) fn resume(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: ResumeCheckHalfMessageHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.refuse(error),
    };
    let half = header.msg_id.parse::<OffsetMessageId>().ok().and_then(|id| u64::try_from(id.position).ok()).map(HalfId);
    let Some(half) = half else {
        return reply.error(response::SYSTEM_ERROR, "msgId is not the offset message id of a half message");
    };
    let by = reply.connection().peer().to_string();
    put_back(broker, Resume { half, by: &by, why: "resumed by request 323", only_if: None }, reply);
}

/// Resumes, and answers.
fn put_back(broker: &Arc<Broker>, resume: Resume<'_>, reply: Reply) {
    let half = resume.half;
    let answer = {
        let (broker, reply) = (Arc::clone(broker), reply.clone());
        Box::new(move |result| match result {
            Ok(Outcome::Refused(refusal)) => refused_answer(reply, &refusal),
            Ok(_) => {
                broker.transactions.look_again(half);
                reply.ok();
            }
            Err(error) => reply.refuse(error),
        })
    };
    if let Err((error, _)) = broker.shard.submit(&Command::Resume(resume), Admission::Reserved, answer) {
        reply.refuse(error);
    }
}
