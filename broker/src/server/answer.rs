//! The kit for answers: errors of all parts become one refusal, and bodies are JSON.

use std::sync::Arc;

use escrowmq_common::body::Form;
use escrowmq_common::body::json::{BodyError, to_bytes};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::HeaderError;
use serde::Serialize;

use super::slow;
use crate::broker::Broker;
use crate::creation::CreationError;
use crate::index::IndexError;
use crate::reply::{Refused, Reply};
use crate::shard::{ReadError, Refusal, SubmitError};

/// Answers with a body in JSON, or why there is none.
pub(super) fn body<T: Serialize>(reply: Reply, body: Result<T, Refused>) {
    match body {
        Ok(body) => reply.body(&to_bytes(&body, Form::Loose)),
        Err(refused) => reply.refuse(refused),
    }
}

/// Answers in JSON with what `make` finds in memory.
pub(super) fn json<T: Serialize>(
    broker: &Broker,
    request: Frame,
    reply: Reply,
    make: impl FnOnce(&Broker, &Frame) -> Result<T, Refused>,
) {
    body(reply, make(broker, &request));
}

/// Answers in JSON with what `make` finds in tables, where that may take its time.
pub(super) fn json_slowly<T: Serialize>(
    broker: &Arc<Broker>,
    name: &'static str,
    request: Frame,
    reply: Reply,
    make: impl FnOnce(&Broker, &Frame) -> Result<T, Refused> + Send + 'static,
) {
    slow::run(broker, name, reply, move |broker, reply| body(reply, make(broker, &request)));
}

/// There is no such topic.
pub(super) fn no_topic(topic: &str) -> Refused {
    Refused::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist"))
}

impl From<HeaderError> for Refused {
    fn from(error: HeaderError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<IndexError> for Refused {
    fn from(error: IndexError) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(code_of_refusal(&refusal), refusal.to_string())
    }
}

impl From<CreationError> for Refused {
    fn from(error: CreationError) -> Self {
        let code = match &error {
            CreationError::NoGroup(_) => response::SUBSCRIPTION_GROUP_NOT_EXIST,
            CreationError::Submit(error) => code_of(error),
            CreationError::Refused(refusal) => code_of_refusal(refusal),
            CreationError::TooMany(_) | CreationError::Crowded(_) => response::SYSTEM_BUSY,
            CreationError::Gone(_) => response::SYSTEM_ERROR,
        };
        Self::new(code, error.to_string())
    }
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
