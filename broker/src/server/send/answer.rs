//! The answer to a send.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::FieldWriter;
use escrowmq_common::message::{OffsetMessageId, RecallHandle};

use super::super::answer::code_of_refusal;
use super::super::end_transaction::{already_decided, put_first};
use crate::broker::Broker;
use crate::reply::{Refused, Reply};
use crate::shard::{Outcome, Prepared, Published, Refusal, SubmitError};
use crate::terms::{Position, Stamp};

/// The part of the request that the answer needs, kept until the outcome is there.
pub(super) struct Answer {
    pub(super) broker: Arc<Broker>,
    pub(super) reply: Reply,
    /// The queue's number within its topic.
    pub(super) queue: u32,
    pub(super) unique_key: KeptText,
    /// Bytes of the messages as they are stored.
    pub(super) stored_bytes: usize,
    /// Broker name and topic of the handle for a message that can be called back, with its time.
    pub(super) recall: Option<Box<Recall>>,
    pub(super) is_dead_letter: bool,
    /// The topic or group was created for this message.
    pub(super) is_first: bool,
}

/// The parts of a recall handle, besides the unique key.
pub(super) struct Recall {
    pub(super) topic: String,
    pub(super) deliver_timestamp: Stamp,
}

impl Answer {
    /// Answers with the outcome of the command. For the first message of a topic it waits until the nameservers know the topic,
    /// because the sender may look for its route at once.
    pub(super) fn outcome(self, outcome: Result<Outcome, SubmitError>) {
        if !self.is_first {
            return self.answer(outcome);
        }
        let broker = Arc::clone(&self.broker);
        let tasks = broker.tasks.clone();
        tasks.spawn("first message", async move {
            broker.registration.told().await;
            self.answer(outcome);
        });
    }

    fn answer(self, outcome: Result<Outcome, SubmitError>) {
        match outcome {
            Ok(Outcome::Published(published)) => self.published(&published),
            Ok(Outcome::Prepared(prepared)) => self.prepared(&prepared),
            Ok(Outcome::Refused(refusal)) => self.refused(&refusal),
            Ok(Outcome::Done | Outcome::Settled(_) | Outcome::Locked(_) | Outcome::Handled(_)) => {
                unreachable!("a message is published, prepared or refused")
            }
            Err(error) => refuse(&self.broker, self.reply, error.into()),
        }
    }

    fn published(self, published: &Published) {
        if self.is_dead_letter {
            self.broker.metrics.dead_letters.add_one();
        }
        let host = self.broker.store_host;
        let ids = IdList { host, first: published.position, more: &published.more_positions };
        // A repeated send is where the first one went.
        let place = published.repeats.and_then(|queue| self.broker.shard.topics().queue(queue));
        let queue = place.map_or(self.queue, |queue| queue.index);
        self.stored(&ids, queue, published.entered.number());
    }

    fn refused(self, refusal: &Refusal) {
        let first = match refusal {
            // A half that came too late for its transaction.
            Refusal::AlreadyDecided(first) => Some(first),
            _ => None,
        };
        // The named half does not exist here, so nothing was stored. Clients do not take this code for "unknown".
        let code = match refusal {
            Refusal::NoSuchHalf(_) | Refusal::WrongGroup(_) => response::ILLEGAL_OPERATION,
            other => code_of_refusal(other),
        };
        let remark = first.map_or_else(|| refusal.to_string(), already_decided);
        self.broker.metrics.sends.record(code);
        let config = self.broker.config();
        let fields = |fields: &mut FieldWriter<'_>| {
            first.inspect(|first| put_first(fields, first));
            origin(fields, &config);
        };
        self.reply.send(code, Some(&remark), fields, &[]);
    }

    fn prepared(self, prepared: &Prepared) {
        let ids = IdList { host: self.broker.store_host, first: prepared.half.position(), more: &[] };
        let queue = self.queue;
        self.stored(&ids, queue, prepared.counter);
    }

    fn stored(self, ids: &IdList<'_>, queue: u32, queue_offset: u64) {
        let metrics = &self.broker.metrics;
        metrics.sends.record(response::SUCCESS);
        metrics.messages_in.add(1 + ids.more.len() as u64);
        metrics.bytes_in.add(self.stored_bytes as u64);
        let config = self.broker.config();
        self.reply.send(
            response::SUCCESS,
            None,
            |fields| {
                fields.display("msgId", ids);
                fields.number("queueId", queue);
                fields.number("queueOffset", queue_offset.cast_signed());
                if let Some(key) = self.unique_key.as_str() {
                    fields.text("transactionId", key);
                    if let Some(recall) = &self.recall {
                        fields.display("recallHandle", recall.handle(&config.broker_name, key));
                    }
                }
                origin(fields, &config);
            },
            &[],
        );
    }
}

impl Recall {
    fn handle(&self, broker: &str, unique_key: &str) -> RecallHandle {
        RecallHandle {
            topic: self.topic.clone(),
            broker: broker.to_owned(),
            deliver_timestamp: self.deliver_timestamp.signed(),
            unique_key: unique_key.to_owned(),
        }
    }
}

/// Answers an error. Java producers read the two fields from every answer, and fail without them.
pub(super) fn refuse(broker: &Broker, reply: Reply, refused: Refused) {
    let Refused { code, remark } = refused;
    broker.metrics.sends.record(code);
    let config = broker.config();
    reply.send(code, Some(&remark), |fields| origin(fields, &config), &[]);
}

/// The fields that every answer to a send has.
pub(super) fn origin(fields: &mut FieldWriter<'_>, config: &crate::config::BrokerConfig) {
    fields.text("MSG_REGION", &config.region_id);
    fields.boolean("TRACE_ON", config.trace_on);
}

/// The message ids of a send, with commas between those of a batch.
struct IdList<'a> {
    host: SocketAddr,
    first: Position,
    more: &'a [Position],
}

impl fmt::Display for IdList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |position: Position| OffsetMessageId { host: self.host, position: position.signed() };
        id(self.first).fmt(f)?;
        for position in self.more {
            write!(f, ",{}", id(*position))?;
        }
        Ok(())
    }
}

/// A short text that outlives its request: without an allocation up to what unique keys usually have.
pub(super) enum KeptText {
    Absent,
    Short { length: u8, bytes: [u8; KeptText::SHORT_BYTES] },
    Long(Box<str>),
}

impl KeptText {
    /// The usual unique keys have 32 or 56 digits.
    const SHORT_BYTES: usize = 62;

    pub(super) fn new(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Absent };
        if text.len() > Self::SHORT_BYTES {
            return Self::Long(text.into());
        }
        let mut bytes = [0; Self::SHORT_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self::Short { length: text.len() as u8, bytes }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Absent => None,
            Self::Short { length, bytes } => {
                Some(str::from_utf8(&bytes[..usize::from(*length)]).expect("copied from a text"))
            }
            Self::Long(text) => Some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_texts_are_what_they_were() {
        for text in ["", "u", &"x".repeat(62), &"x".repeat(63), "ключ"] {
            assert_eq!(KeptText::new(Some(text)).as_str(), Some(text));
        }
        assert_eq!(KeptText::new(None).as_str(), None);
    }
}
