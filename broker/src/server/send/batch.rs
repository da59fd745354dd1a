//! Several messages in one request: all or none, in consecutive places of one queue.

use std::borrow::Cow;
use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::message::batch::{BatchMessage, messages};
use escrowmq_common::message::{SysFlag, TransactionType, UniqueId, UnitBuilder, unique_id};
use escrowmq_common::name;

use super::answer::{Answer, KeptText};
use super::known::Known;
use super::single::submit;
use super::stamp::{Pieces, cleaned};
use super::{NewUnit, Refused, Send, Stop};
use crate::shard::{Command, Message, MessageList, Publish, When};

/// Topics that take no batches.
pub(super) fn refuse_topic(topic: &str) -> Result<(), Refused> {
    if name::is_retry_topic(topic) {
        return Err(Refused::illegal("batch messages cannot be sent to a retry topic"));
    }
    Ok(())
}

/// Stores the messages of a request.
pub(super) fn publish(send: &Send<'_>) -> Result<(), Stop> {
    let Send { broker, config, header, target, .. } = *send;
    send.check_body()?;
    let topic = target.topic.settings.name.as_str();
    let whole = Known::of(header.properties.unwrap_or_default());
    refuse_kind(&whole)?;
    let members = read(&send.request.body)?;
    let properties: Vec<Pieces<'_>> = members.iter().map(|member| member.pieces(config)).collect();
    let units: Vec<NewUnit<'_>> = members
        .iter()
        .zip(&properties)
        .map(|(member, pieces)| {
            NewUnit(UnitBuilder {
                topic,
                queue_id: target.queue.index.cast_signed(),
                flag: member.message.flag,
                queue_offset: 0,
                position: 0,
                sys_flag: SysFlag(header.sys_flag).with_transaction(TransactionType::None),
                born_timestamp: header.born_timestamp,
                born_host: send.connection.peer(),
                store_timestamp: 0,
                store_host: broker.store_host,
                reconsume_times: header.reconsume_times,
                prepared_offset: 0,
                body: member.message.body,
                body_crc: None,
                properties: pieces.as_slice(),
            })
        })
        .collect();
    for unit in &units {
        unit.0.size().map_err(Refused::from)?;
    }
    let messages: Vec<Message<'_>> =
        members.iter().zip(&units).map(|(member, unit)| Message::new(member.tag_hash, unit)).collect();
    let answer = Answer {
        broker: Arc::clone(broker),
        reply: send.reply.clone(),
        queue: target.queue.index,
        unique_key: KeptText::new(whole.unique_key),
        body_bytes: members.iter().map(|member| member.message.body.len()).sum(),
        recall: None,
        is_dead_letter: false,
        is_first: send.is_first,
    };
    let messages = MessageList::Many(&messages);
    submit(send, &Command::Publish(Publish { queue: target.queue.id, when: When::Now, messages, once: None }), answer)
}

/// One message of a batch. It keeps its own unique key; where it has none it gets one.
#[derive(Debug)]
struct Member<'a> {
    message: BatchMessage<'a>,
    properties: Cow<'a, str>,
    made_key: Option<UniqueId>,
    tag_hash: i64,
}

impl<'a> Member<'a> {
    fn pieces<'b>(&'b self, config: &'b crate::config::BrokerConfig) -> Pieces<'b>
    where
        'a: 'b,
    {
        let mut pieces = Pieces::new(&self.properties);
        pieces.add_origin(config);
        if let Some(key) = &self.made_key {
            pieces.add("UNIQ_KEY\u{1}", key);
        }
        pieces
    }
}

/// Reads all members before any is stored.
fn read(body: &[u8]) -> Result<Vec<Member<'_>>, Refused> {
    let mut members = Vec::new();
    for message in messages(body) {
        let message = message.map_err(|error| Refused::illegal(error.to_string()))?;
        let known = Known::of(message.properties);
        refuse_kind(&known)?;
        members.push(Member {
            message,
            properties: cleaned(message.properties, known.needs_edit),
            made_key: known.unique_key.is_none().then(unique_id),
            tag_hash: known.tag_hash(),
        });
    }
    if members.is_empty() {
        return Err(Refused::new(response::MESSAGE_ILLEGAL, "the batch holds no message"));
    }
    Ok(members)
}

/// What cannot be in a batch.
fn refuse_kind(known: &Known<'_>) -> Result<(), Refused> {
    if known.is_transactional {
        return Err(Refused::illegal("transactional messages cannot be in a batch"));
    }
    if known.delay_level() > 0 || known.has_timer() {
        return Err(Refused::illegal("delayed messages cannot be in a batch"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn body(members: &[&str]) -> BytesMut {
        let mut out = BytesMut::new();
        for properties in members {
            BatchMessage { flag: 0, body: b"x", properties }.write(&mut out).unwrap();
        }
        out
    }

    #[test]
    fn members_keep_their_own_key_or_get_one() {
        let body = body(&["UNIQ_KEY\u{1}own\u{2}TAGS\u{1}TagA\u{2}", ""]);
        let members = read(&body).unwrap();
        assert_eq!((members[0].made_key, members[0].tag_hash), (None, 2_598_919));
        let config = crate::config::BrokerConfig::default();
        let text = members[1].pieces(&config).as_slice().concat();
        assert_eq!(Known::of(&text).unique_key, members[1].made_key.as_deref());
        assert!(members[1].made_key.is_some());
    }

    #[test]
    fn half_delayed_and_broken_members_spoil_the_batch() {
        for bad in ["TRAN_MSG\u{1}true\u{2}", "DELAY\u{1}3\u{2}", "TIMER_DELAY_MS\u{1}5\u{2}"] {
            assert_eq!(read(&body(&["", bad])).unwrap_err().code, 13, "{bad}");
        }
        assert_eq!(read(&[]).unwrap_err().code, 13);
        let whole = body(&["", ""]);
        assert_eq!(read(&whole[..whole.len() - 1]).unwrap_err().code, 13);
        assert_eq!(read(&body(&["TRAN_MSG\u{1}false\u{2}"])).unwrap().len(), 1);
    }

    #[test]
    fn retry_topics_take_no_batch() {
        assert_eq!(refuse_topic("%RETRY%g").unwrap_err().code, 13);
        refuse_topic("T").unwrap();
    }
}
