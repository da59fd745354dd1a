//! What the outcomes of commands are in the protocol's codes.

use escrowmq_common::code::response;

use crate::reply::Reply;
use crate::shard::{Refusal, SubmitError};

/// Answers for a command that has no outcome.
pub(super) fn not_done(reply: Reply, error: &SubmitError) {
    reply.error(code_of(error), &error.to_string());
}

/// The response code for a command that has no outcome: one that makes clients try again wherever that can help.
pub(super) fn code_of(error: &SubmitError) -> i32 {
    match error {
        SubmitError::Busy(_) => response::SYSTEM_BUSY,
        SubmitError::DiskFull | SubmitError::Stopping | SubmitError::NotLeader | SubmitError::StoreFailed => {
            response::SERVICE_NOT_AVAILABLE
        }
        SubmitError::TooLong(_) => response::MESSAGE_ILLEGAL,
        SubmitError::OutcomeUnknown | SubmitError::Unencodable => response::SYSTEM_ERROR,
    }
}

/// The response code for a refused command.
pub(super) fn code_of_refusal(refusal: &Refusal) -> i32 {
    match refusal {
        Refusal::NoSuchQueue(_) | Refusal::NoSuchTopic(_) => response::TOPIC_NOT_EXIST,
        Refusal::NoSuchGroup(_) => response::SUBSCRIPTION_GROUP_NOT_EXIST,
        Refusal::UniqueIdTaken(_) => response::MESSAGE_ILLEGAL,
        Refusal::AlreadyDecided(_)
        | Refusal::NotParked(_)
        | Refusal::NotOpen(_)
        | Refusal::NotFirstHalf(..)
        | Refusal::TransactionFull(_) => response::ILLEGAL_OPERATION,
        Refusal::NoSuchHalf(_)
        | Refusal::BytesGone(_)
        | Refusal::WrongGroup(_)
        | Refusal::WrongCounter(_)
        | Refusal::QueueIdsExhausted
        | Refusal::TooManyQueues(_)
        | Refusal::MalformedSettings => response::SYSTEM_ERROR,
    }
}
