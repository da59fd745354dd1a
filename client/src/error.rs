//! The errors, one type per public operation. That of transactions is with them ([`crate::transaction`]).
//!
//! Every error answers two questions. `is_retryable`: may the same call succeed if it is made again? `outcome_unknown`:
//! may the thing asked for have happened all the same? A lost answer proves nothing, so these are different questions: a
//! retry is free of side effects exactly when the outcome is *not* unknown.
//!
//! A failure before a request was handed to the server that should carry it out is [`RequestError::NotSent`] by its type:
//! a look-up at a name server can end in nothing else, however its own answer got lost.
//!
//! The text of an error is whole: it names its causes itself, so none of them is told again by
//! [`source`](std::error::Error::source).

use std::path::PathBuf;
use std::time::Duration;

use escrowmq_common::code::{remark, response};
use escrowmq_common::remoting::CallError;

use crate::producer::StoreLevel;
use crate::queue::MessageQueue;

/// The heartbeat that comes before a request: by it the broker gets to know this client.
pub(crate) const GREETING: &str = "the heartbeat before it";
/// The look-up that comes before a request: a name server is asked who serves the topic.
pub(crate) const LOOK_UP: &str = "asking a name server";
/// The question for a broker's settings that [`Profile::Strict`](crate::Profile::Strict) asks first.
pub(crate) const ASKING_SETTINGS: &str = "asking the broker for its settings";
/// The send of another message, which an order puts before this one.
pub(crate) const EARLIER: &str = "the send of an earlier message of its queue";
/// All that comes before a request together.
const IN_TIME: &str = "finding a broker in time";

/// One request to one server did not end well.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection: nothing was sent.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// The server's address.
        addr: String,
        /// The operating system's words.
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
    /// The server answered something that cannot be read, so nobody knows what it did.
    #[error("the answer of {addr} cannot be understood: {reason}")]
    Malformed {
        /// The server's address.
        addr: String,
        /// The fault in it.
        reason: String,
    },
    /// The request itself is at fault: a name breaks the protocol's rules, a number or a length its limits. Nothing was sent.
    #[error("the request cannot be sent: {reason}")]
    Invalid {
        /// Which rule it breaks.
        reason: String,
    },
    /// A step that has to come first failed: a look-up at a name server, or the greeting of the broker. The request itself
    /// was not sent, so it cannot have had an effect.
    #[error("nothing was sent, because {step} failed: {last}")]
    NotSent {
        /// The step that failed, in words.
        step: &'static str,
        /// How.
        last: Box<RequestError>,
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
        // The address is named once, by our own error.
        match error {
            CallError::Connect { reason, .. } => RequestError::Unreachable { addr, reason: reason.clone() },
            CallError::NotSent { reason, .. } => RequestError::Unreachable { addr, reason: (*reason).to_owned() },
            CallError::BadAddress { .. } => {
                RequestError::Unreachable { addr, reason: "it is no address of the form host:port".to_owned() }
            }
            CallError::Frame(error) => RequestError::Invalid { reason: error.to_string() },
            CallError::Timeout { after, .. } => RequestError::TimedOut { addr, after: *after },
            CallError::ConnectionLost { .. } => {
                RequestError::ConnectionLost { addr, reason: "it was closed, or its machine is gone".to_owned() }
            }
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers hand over the error they end with")]
    pub(crate) fn invalid(reason: impl ToString) -> RequestError {
        RequestError::Invalid { reason: reason.to_string() }
    }

    /// As the end of `step`, which had to come before a request that was not sent.
    pub(crate) fn before_sending(self, step: &'static str) -> RequestError {
        match self {
            // These say so themselves.
            RequestError::NotSent { .. }
            | RequestError::NoRoute { .. }
            | RequestError::Invalid { .. }
            | RequestError::ShutDown => self,
            last => RequestError::NotSent { step, last: Box::new(last) },
        }
    }

    /// The deadline passed before the request could be sent to the server at `addr`.
    pub(crate) fn too_late(addr: &str, deadline: Duration) -> RequestError {
        RequestError::TimedOut { addr: addr.to_owned(), after: deadline }.before_sending(IN_TIME)
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers hand over the error they end with")]
    pub(crate) fn malformed(addr: &str, reason: impl ToString) -> RequestError {
        RequestError::Malformed { addr: addr.to_owned(), reason: reason.to_string() }
    }

    /// Whether a server was away, which is told once, by [`Outages`](crate::outage::Outages).
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            RequestError::Unreachable { .. } | RequestError::TimedOut { .. } | RequestError::ConnectionLost { .. } => {
                true
            }
            RequestError::NotSent { last, .. } => last.is_outage(),
            RequestError::Refused { .. }
            | RequestError::Malformed { .. }
            | RequestError::Invalid { .. }
            | RequestError::NoRoute { .. }
            | RequestError::ShutDown => false,
        }
    }

    /// Whether the broker asked is to be passed over for a while: it failed, and another one, or it itself later, may not.
    pub(crate) fn blames_broker(&self) -> bool {
        match self {
            RequestError::NotSent { step, last } => *step == GREETING && last.blames_broker(),
            RequestError::NoRoute { .. } => false,
            error => error.is_retryable(),
        }
    }

    /// Whether the leader of the broker group is away or is none any more: another member, or a moment, finds the next one.
    pub(crate) fn misses_leader(&self) -> bool {
        match self {
            RequestError::Refused { code, remark, .. } => misses_leader(*code, Some(remark)),
            RequestError::NotSent { last, .. } => last.misses_leader(),
            RequestError::NoRoute { .. } => true,
            error => error.is_outage(),
        }
    }

    /// The response code, if the server answered with one.
    pub fn code(&self) -> Option<i32> {
        match self {
            RequestError::Refused { code, .. } => Some(*code),
            RequestError::NotSent { last, .. } => last.code(),
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
            // What is wrong with another message is not wrong with this one.
            RequestError::NotSent { step, last } => *step == EARLIER || last.is_retryable(),
            RequestError::Malformed { .. } | RequestError::Invalid { .. } | RequestError::ShutDown => false,
        }
    }

    /// Whether the server may have done what was asked.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            RequestError::TimedOut { .. } | RequestError::ConnectionLost { .. } | RequestError::Malformed { .. } => {
                true
            }
            // "System error" covers everything a broker did not expect, also after it has begun to write.
            RequestError::Refused { code, .. } => *code == response::SYSTEM_ERROR,
            RequestError::Unreachable { .. }
            | RequestError::Invalid { .. }
            | RequestError::NotSent { .. }
            | RequestError::NoRoute { .. }
            | RequestError::ShutDown => false,
        }
    }
}

/// Whether an answer says that its sender does not lead, or did not to the end.
pub(crate) fn misses_leader(code: i32, remark: Option<&str>) -> bool {
    let is_in_doubt = || remark.is_some_and(|remark| remark.starts_with(remark::OUTCOME_UNKNOWN));
    code == response::SERVICE_NOT_AVAILABLE || code == response::SYSTEM_ERROR && is_in_doubt()
}

/// Codes of a broker that is busy, or not there for anybody: it has done nothing, and this passes by itself.
pub(crate) const PASSING: [i32; 4] =
    [response::SYSTEM_BUSY, response::SERVICE_NOT_AVAILABLE, response::FLOW_CONTROL, response::GO_AWAY];

/// Codes after which another queue or broker, or the same one later, may well take the request.
pub(crate) fn code_is_retryable(code: i32) -> bool {
    PASSING.contains(&code)
        || matches!(
            code,
            response::SYSTEM_ERROR
                | response::NO_PERMISSION
                | response::TOPIC_NOT_EXIST
                | response::NO_BUYER_ID
                | response::NOT_IN_CURRENT_UNIT
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
        last: RequestError,
    },
    /// [`Profile::Strict`](crate::Profile::Strict) alone: the message is stored, but not as safely as the broker is configured
    /// to. Sending the same message again under its unique id may reach that, and may deliver it twice.
    #[error(
        "message {message_id} is stored in {queue}, but not as safely as Profile::Strict asks: {level}; sent again under \
         its unique id it may be delivered twice"
    )]
    BelowAsked {
        /// The unique id that it carries; of a batch the batch's own.
        message_id: String,
        /// Where it is.
        queue: MessageQueue,
        /// What the broker reached.
        level: StoreLevel,
    },
    /// [`Profile::Strict`](crate::Profile::Strict) alone: the broker's settings can lose what it answers. Nothing was sent.
    #[error(
        "nothing was sent, because {addr} is not safe enough for Profile::Strict: {reason}; change that setting, or use Profile::Balanced"
    )]
    UnsafeBroker {
        /// The broker's address.
        addr: String,
        /// The setting.
        reason: String,
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
            SendError::OutcomeUnknown { .. } | SendError::BelowAsked { .. } => true,
            SendError::Invalid { .. } | SendError::UnsafeBroker { .. } | SendError::ShutDown => false,
        }
    }

    /// Whether the message may be stored all the same. Of [`BelowAsked`](SendError::BelowAsked) that is certain.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, SendError::OutcomeUnknown { .. } | SendError::BelowAsked { .. })
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
        /// The fault in it.
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
    /// The folder of a spill is in use by another process, or by another producer of this one.
    #[error("{}: another producer spills there; give each a folder of its own, or end the other", folder.display())]
    SpillInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of a spill cannot be opened.
    #[error("cannot spill to {}: {reason}", folder.display())]
    Spill {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
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
            StartError::SpillInUse { .. } => true,
            StartError::Spill { .. }
            | StartError::Setting { .. }
            | StartError::GroupInUse { .. }
            | StartError::Subscription { .. } => false,
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
    fn what_came_before_the_request_leaves_no_doubt_about_it() {
        let timed_out = RequestError::TimedOut { addr: "n".into(), after: Duration::from_secs(3) };
        for last in [timed_out, refused(response::SYSTEM_ERROR), RequestError::malformed("n", "no JSON")] {
            assert!(last.outcome_unknown(), "{last}");
            let (retryable, code) = (last.is_retryable(), last.code());
            let before = last.before_sending(LOOK_UP);
            assert!(!before.outcome_unknown(), "{before}");
            assert_eq!((before.is_retryable(), before.code()), (retryable, code), "{before}");
        }
    }

    #[test]
    fn nothing_is_said_twice() {
        let connect = CallError::Connect { address: "h:1".into(), reason: "Connection refused (os error 111)".into() };
        let last = RequestError::from_call("h:1", &connect);
        let error = SendError::NotStored { attempts: 2, last };
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        assert_eq!(said, "not stored after 2 attempts: h:1 cannot be reached: Connection refused (os error 111)");
    }

    #[test]
    fn codes_are_told_apart() {
        assert!(refused(response::SYSTEM_BUSY).is_retryable() && refused(response::FLOW_CONTROL).is_retryable());
        assert!(!refused(response::SYSTEM_BUSY).outcome_unknown());
        assert!(!refused(response::MESSAGE_ILLEGAL).is_retryable());
        assert!(refused(response::SYSTEM_ERROR).outcome_unknown());
    }
}
