//! What can go wrong, one type per public operation. That of transactions is with them ([`crate::transaction`]).
//!
//! Every error answers two questions. `is_retryable`: may the same call succeed if it is made again? `outcome_unknown`:
//! may the thing asked for have happened all the same? A lost answer proves nothing, so these are different questions: a
//! retry is free of side effects exactly when the outcome is *not* unknown.

use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_common::remoting::CallError;

/// One request to one server did not end well.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection: nothing was sent.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// The server's address.
        addr: String,
        /// What the operating system said.
        reason: String,
    },
    /// The request left and no answer came in time.
    #[error("no answer from {addr} within {after:?}")]
    TimedOut {
        /// The server's address.
        addr: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The request left and the connection ended before the answer.
    #[error("the connection to {addr} ended before the answer: {reason}")]
    ConnectionLost {
        /// The server's address.
        addr: String,
        /// Why it ended, if known.
        reason: String,
    },
    /// The server answered with a code other than success.
    #[error("{addr} refused with code {code}: {remark}")]
    Refused {
        /// The server's address.
        addr: String,
        /// The response code of the protocol.
        code: i32,
        /// The server's own words.
        remark: String,
    },
    /// The server's answer cannot be read, or the request cannot be written.
    #[error("the exchange with {addr} cannot be understood: {reason}")]
    Malformed {
        /// The server's address.
        addr: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No name server knows a broker that serves the topic for this purpose.
    #[error("no route for topic {topic}")]
    NoRoute {
        /// The topic asked for.
        topic: String,
    },
    /// This client, or the producer or consumer asked, was shut down.
    #[error("the client is shut down")]
    ShutDown,
}

impl RequestError {
    pub(crate) fn from_call(addr: &str, error: &CallError) -> RequestError {
        let addr = addr.to_owned();
        match error {
            CallError::Timeout { after, .. } => RequestError::TimedOut { addr, after: *after },
            other if !other.outcome_unknown() => RequestError::Unreachable { addr, reason: other.to_string() },
            other => RequestError::ConnectionLost { addr, reason: other.to_string() },
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers hand over the error they end with")]
    pub(crate) fn malformed(addr: &str, reason: impl ToString) -> RequestError {
        RequestError::Malformed { addr: addr.to_owned(), reason: reason.to_string() }
    }

    /// The response code, if the server answered with one.
    pub fn code(&self) -> Option<i32> {
        match self {
            RequestError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        match self {
            RequestError::Unreachable { .. }
            | RequestError::TimedOut { .. }
            | RequestError::ConnectionLost { .. }
            | RequestError::NoRoute { .. } => true,
            RequestError::Refused { code, .. } => code_is_retryable(*code),
            RequestError::Malformed { .. } | RequestError::ShutDown => false,
        }
    }

    /// Whether the server may have done what was asked.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            RequestError::TimedOut { .. } | RequestError::ConnectionLost { .. } => true,
            // "System error" covers everything a broker did not expect, also after it has begun to write.
            RequestError::Refused { code, .. } => *code == response::SYSTEM_ERROR,
            RequestError::Unreachable { .. }
            | RequestError::Malformed { .. }
            | RequestError::NoRoute { .. }
            | RequestError::ShutDown => false,
        }
    }
}

/// Codes after which another queue or broker, or the same one later, may well take the request.
pub(crate) fn code_is_retryable(code: i32) -> bool {
    matches!(
        code,
        response::SYSTEM_ERROR
            | response::SYSTEM_BUSY
            | response::SERVICE_NOT_AVAILABLE
            | response::NO_PERMISSION
            | response::TOPIC_NOT_EXIST
            | response::NO_BUYER_ID
            | response::NOT_IN_CURRENT_UNIT
            | response::GO_AWAY
    )
}

/// A message was not sent, or nobody knows.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message itself is at fault; nothing was sent.
    #[error("the message cannot be sent: {reason}")]
    Invalid {
        /// Which rule it breaks.
        reason: String,
    },
    /// Every attempt failed for certain: the message is nowhere.
    #[error("not stored after {attempts} attempts: {last}")]
    NotStored {
        /// Attempts made.
        attempts: u32,
        /// How the last one failed.
        #[source]
        last: RequestError,
    },
    /// At least one attempt may have stored the message. Sending it again may deliver it twice; both copies would then
    /// carry different message ids unless the same [`Message`](crate::Message) with its id is sent again.
    #[error("it is unknown whether message {message_id} was stored ({attempts} attempts): {last}")]
    OutcomeUnknown {
        /// The unique id that every attempt carried.
        message_id: String,
        /// Attempts made.
        attempts: u32,
        /// How the last one failed.
        #[source]
        last: RequestError,
    },
    /// The producer or its client was shut down; nothing was sent.
    #[error("the producer is shut down")]
    ShutDown,
}

impl SendError {
    pub(crate) fn invalid(reason: impl Into<String>) -> SendError {
        SendError::Invalid { reason: reason.into() }
    }

    /// Whether sending again may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            SendError::NotStored { last, .. } => last.is_retryable(),
            SendError::OutcomeUnknown { .. } => true,
            SendError::Invalid { .. } | SendError::ShutDown => false,
        }
    }

    /// Whether the message may be stored all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, SendError::OutcomeUnknown { .. })
    }
}

/// A client, producer or consumer did not start.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of its range or a name breaks the protocol's rules.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// This client already runs a producer or consumer of that group. A second member needs a client of its own.
    #[error("group {group} is already in use by this client")]
    GroupInUse {
        /// The group.
        group: String,
    },
    /// A broker found fault with a subscription, for example with the text of an SQL expression.
    #[error("the subscription to {topic} was refused: {reason}")]
    Subscription {
        /// The topic subscribed to.
        topic: String,
        /// The broker's own words.
        reason: String,
    },
    /// A server that is needed at the start could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl StartError {
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over the error they end with")]
    pub(crate) fn setting(setting: &'static str, reason: impl ToString) -> StartError {
        StartError::Setting { setting, reason: reason.to_string() }
    }

    /// Whether the same start may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            StartError::Request(error) => error.is_retryable(),
            StartError::Setting { .. } | StartError::GroupInUse { .. } | StartError::Subscription { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i32) -> RequestError {
        RequestError::Refused { addr: "a".into(), code, remark: String::new() }
    }

    #[test]
    fn a_lost_answer_is_retryable_and_unknown_and_a_refused_connection_only_retryable() {
        let timed_out = RequestError::TimedOut { addr: "a".into(), after: Duration::from_secs(3) };
        assert!(timed_out.is_retryable() && timed_out.outcome_unknown());
        let unreachable = RequestError::Unreachable { addr: "a".into(), reason: "refused".into() };
        assert!(unreachable.is_retryable() && !unreachable.outcome_unknown());
    }

    #[test]
    fn codes_are_told_apart() {
        assert!(refused(response::SYSTEM_BUSY).is_retryable());
        assert!(!refused(response::SYSTEM_BUSY).outcome_unknown());
        assert!(!refused(response::MESSAGE_ILLEGAL).is_retryable());
        assert!(refused(response::SYSTEM_ERROR).outcome_unknown());
    }
}
