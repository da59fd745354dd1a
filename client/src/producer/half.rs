//! Half messages on their way to the broker: what they need of it, and what comes back.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::message::OffsetMessageId;
use tracing::Instrument as _;

use super::send::{AttemptError, Sender, SenderError};
use super::{Prepared, SendResult};
use crate::brokers::Abilities;
use crate::error::{RequestError, SendError};
use crate::queue::MessageQueue;
use crate::route::Route;
use crate::trace::{Labels, Sending};

/// A half message that a broker holds, as the decision on it needs it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Half {
    /// The transaction's id: the same in a check, in any process of the group.
    pub transaction_id: String,
    /// The unique id of the message.
    pub message_id: String,
    /// The queue that it will appear in once committed.
    pub queue: MessageQueue,
    /// Where it lies in the log of the broker.
    pub(crate) position: i64,
    /// The broker's number for it.
    pub(crate) table_offset: i64,
    /// For the record of its decision.
    pub(crate) labels: Labels,
}

/// The half that a transaction of several messages began with: what others join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct First {
    /// The broker group that holds it. A transaction lives on one.
    pub(crate) broker: Arc<str>,
    /// Its half id.
    pub(crate) position: i64,
}

/// Requirements of a half message on the broker it goes to, beyond those of an ordinary message.
#[derive(Clone, Debug, Default)]
pub(crate) struct HalfNeeds {
    /// Decisions must be confirmed.
    pub(crate) confirmation: bool,
    /// Other halves will join this one.
    pub(crate) several: bool,
    /// The transaction that this half joins.
    pub(crate) first: Option<First>,
}

impl HalfNeeds {
    /// Whether the half may go to a broker with these abilities.
    pub(super) fn suit(&self, abilities: Abilities, prepared: &Prepared, addr: &str) -> Result<(), SenderError> {
        if self.confirmation && !abilities.confirms_decisions {
            return Err(SenderError::Unconfirmable { addr: addr.to_owned() });
        }
        if (self.several || self.first.is_some()) && !abilities.transactions {
            return Err(SenderError::Single { addr: addr.to_owned() });
        }
        if prepared.is_delayed && !abilities.confirms_decisions {
            let reason = format!("the broker at {addr} does not keep delays of transactional messages");
            return Err(SendError::Invalid { reason }.into());
        }
        Ok(())
    }
}

impl Sender {
    /// Sends one half message. The caller holds a place.
    pub(crate) async fn send_half(
        &self,
        prepared: &mut Prepared,
        needs: &HalfNeeds,
    ) -> Result<(SendResult, Half), SenderError> {
        let observed = Sending::begin(self.core(), prepared, true);
        let ended = self.send_prepared(prepared, None, Some(needs)).instrument(observed.span()).await;
        observed.end(self.core(), self.group(), ended.as_ref());
        let sent = ended?;
        let Ok(id) = sent.offset_message_id.parse::<OffsetMessageId>() else {
            // The half is stored, but nobody can name it: only its check can settle it.
            let last = RequestError::malformed(sent.queue.broker(), "the broker's message id names no position");
            let message_id = sent.message_id;
            return Err(SendError::OutcomeUnknown { message_id, attempts: sent.attempts, last }.into());
        };
        let half = Half {
            transaction_id: sent.transaction_id.clone().unwrap_or_else(|| sent.message_id.clone()),
            message_id: sent.message_id.clone(),
            queue: sent.queue.clone(),
            position: id.position,
            table_offset: sent.queue_offset,
            labels: sent.traced_in.as_ref().map(|_| Labels::of(&prepared.properties)).unwrap_or_default(),
        };
        Ok((sent, half))
    }

    /// A queue on the broker of the transaction's first half. The end of the send if the topic is on other brokers alone.
    ///
    /// `was_there`: an earlier attempt found one. Then the broker is away, not wrong.
    pub(super) async fn choose_beside(
        &self,
        first: &First,
        mut route: Arc<Route>,
        turn: usize,
        prepared: &Prepared,
        was_there: bool,
    ) -> Result<MessageQueue, AttemptError> {
        let mut queues = route.writable_on(&first.broker);
        if queues.is_empty() {
            route = self.route(&prepared.topic, true).await.map_err(AttemptError::Failed)?;
            queues = route.writable_on(&first.broker);
        }
        if queues.is_empty() && !was_there && !route.writable.is_empty() {
            let (topic, broker) = (prepared.topic.to_string(), first.broker.to_string());
            return Err(AttemptError::Final(SenderError::OtherBroker { topic, broker }));
        }
        self.pick(&queues, turn, prepared, None).map_err(AttemptError::Failed)
    }
}

impl SenderError {
    /// The error for a message of which an earlier attempt may have been stored: this attempt ended the search, and
    /// proves nothing about that one.
    pub(super) fn after_unknown(self, message_id: &str, attempts: u32) -> SenderError {
        let refused = |addr: String, code, remark: String| RequestError::Refused { addr, code, remark };
        let unable = response::REQUEST_CODE_NOT_SUPPORTED;
        let last = match self {
            SenderError::Send(SendError::NotStored { last, .. } | SendError::OutcomeUnknown { last, .. }) => last,
            SenderError::Send(SendError::ShutDown) => RequestError::ShutDown,
            SenderError::Send(
                error @ (SendError::Invalid { .. } | SendError::BelowAsked { .. } | SendError::UnsafeBroker { .. }),
            ) => refused("broker".into(), unable, error.to_string()),
            SenderError::Unconfirmable { addr } => refused(addr, unable, "does not confirm decisions".into()),
            SenderError::Single { addr } => refused(addr, unable, "takes transactions of one message only".into()),
            SenderError::OtherBroker { topic, .. } => RequestError::NoRoute { topic },
            SenderError::Decided { addr, remark, .. } => refused(addr, response::ILLEGAL_OPERATION, remark),
        };
        SendError::OutcomeUnknown { message_id: message_id.to_owned(), attempts, last }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::producer::SendSettings;

    fn prepared(message: Message) -> Prepared {
        Prepared::new(message, &SendSettings::default()).expect("a good message")
    }

    #[test]
    fn a_broker_gets_only_halves_that_it_can_handle() {
        let apache = Abilities::default();
        let older = Abilities { confirms_decisions: true, transactions: false };
        let ours = Abilities { confirms_decisions: true, transactions: true };
        let (plain, delayed) = (prepared(Message::new("T", "b")), prepared(Message::new("T", "b").delay_level(1)));
        let any = HalfNeeds::default();
        assert!(any.suit(apache, &plain, "a").is_ok());
        assert!(matches!(any.suit(apache, &delayed, "a"), Err(SenderError::Send(SendError::Invalid { .. }))));
        assert!(any.suit(older, &delayed, "a").is_ok());
        let confirmed = HalfNeeds { confirmation: true, ..HalfNeeds::default() };
        assert!(matches!(confirmed.suit(apache, &plain, "a"), Err(SenderError::Unconfirmable { .. })));
        assert!(confirmed.suit(older, &plain, "a").is_ok());
        let first = Some(First { broker: "a".into(), position: 7 });
        for needs in [HalfNeeds { several: true, ..HalfNeeds::default() }, HalfNeeds { first, ..HalfNeeds::default() }]
        {
            assert!(matches!(needs.suit(older, &plain, "a"), Err(SenderError::Single { .. })));
            assert!(needs.suit(ours, &plain, "a").is_ok());
        }
    }

    #[test]
    fn a_certain_refusal_does_not_make_an_earlier_attempt_certain() {
        for error in [
            SenderError::Unconfirmable { addr: "a".into() },
            SenderError::OtherBroker { topic: "T".into(), broker: "a".into() },
            SendError::invalid("delayed").into(),
        ] {
            let SenderError::Send(error) = error.after_unknown("m", 2) else { panic!("not told as a send") };
            assert!(matches!(&error, SendError::OutcomeUnknown { message_id, attempts: 2, .. } if message_id == "m"));
        }
    }
}
