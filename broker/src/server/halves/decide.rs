//! An operator commits, rolls back, resumes or parks a transaction.

use std::sync::Arc;

use escrowmq_common::body::TransactionAction;
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::DecideTransactionHeader;

use super::super::end_transaction::{self, Named, already_decided, put_first, refused_answer};
use super::super::slow;
use super::{shown, unknown};
use crate::broker::Broker;
use crate::reply::Reply;
use crate::shard::{Admission, Command, Outcome, Park, Refusal, Resume, Settled, SubmitError};
use crate::terms::{Decision, HalfId, ParkReason};

pub(in crate::server) fn decide(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: DecideTransactionHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return reply.error(response::INVALID_PARAMETER, &error.to_string()),
    };
    let Ok(half) = u64::try_from(header.half_id).map(HalfId) else {
        return reply.error(response::INVALID_PARAMETER, &format!("a half id is not negative: {}", header.half_id));
    };
    for (field, text) in [("operator", header.operator), ("reason", header.reason)] {
        if text.trim().is_empty() {
            return reply.error(response::INVALID_PARAMETER, &format!("{field} is blank; it must say something"));
        }
    }
    let (by, why) = (header.operator, header.reason);
    let named = Named { half, counter: None, group: None, by, reason: why, refused };
    match TransactionAction::from_name(header.action) {
        Some(TransactionAction::Commit) => end_transaction::decide(broker, named, Decision::Commit, reply),
        Some(TransactionAction::Rollback) => end_transaction::decide(broker, named, Decision::Rollback, reply),
        Some(TransactionAction::Resume) => {
            move_on(broker, half, &Command::Resume(Resume { half, by, why, only_if: None }), reply);
        }
        Some(TransactionAction::Park) => {
            move_on(broker, half, &Command::Park(Park { half, reason: ParkReason::Operator, by, why }), reply);
        }
        Some(TransactionAction::Unknown) | None => {
            let wrong = format!("action is none of commit, rollback, resume, park: '{}'", shown(header.action));
            reply.error(response::INVALID_PARAMETER, &wrong);
        }
    }
}

/// Like the answer to a producer, but for a half that nobody knows: tools tell "unknown" from "failed" by the code.
fn refused(reply: Reply, refusal: &Refusal) {
    match refusal {
        Refusal::NoSuchHalf(half) => unknown(reply, *half),
        other => refused_answer(reply, other),
    }
}

/// Resumes or parks, and answers.
fn move_on(broker: &Arc<Broker>, half: HalfId, command: &Command<'_>, reply: Reply) {
    let is_resumed = matches!(command, Command::Resume(_));
    let answer = {
        let (broker, reply) = (Arc::clone(broker), reply.clone());
        Box::new(move |result: Result<Outcome, SubmitError>| match result {
            Ok(Outcome::Refused(Refusal::NoSuchHalf(half))) => not_undecided(&broker, half, reply),
            Ok(Outcome::Refused(refusal)) => refused(reply, &refusal),
            Ok(_) => {
                if is_resumed {
                    broker.transactions.look_again(half);
                } else {
                    // Parked, it waits for no instance any more.
                    broker.transactions.decided(|| {
                        let row = broker.shard.half(half).ok().flatten()?;
                        Some((row.group, row.first_half.unwrap_or(half)))
                    });
                }
                reply.ok();
            }
            Err(error) => reply.refuse(error),
        })
    };
    if let Err((error, _)) = broker.shard.submit(command, Admission::Reserved, answer) {
        reply.refuse(error);
    }
}

/// Nothing undecided has this id: says how it was decided, if that is known. The look may read files.
fn not_undecided(broker: &Arc<Broker>, half: HalfId, reply: Reply) {
    slow::run(broker, "find decision", reply, move |broker, reply| match broker.shard.decision(half) {
        Ok(Some(row)) => {
            let first = Settled {
                decision: row.decision,
                queue: row.queue,
                offset: row.offset,
                at: row.at,
                first: false,
                members: Vec::new(),
            };
            let remark = already_decided(&first);
            reply.send(response::ILLEGAL_OPERATION, Some(&remark), |fields| put_first(fields, &first), &[]);
        }
        Ok(None) => unknown(reply, half),
        Err(error) => reply.refuse(error),
    });
}
