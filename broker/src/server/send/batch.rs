//! Several messages in one request: all or none, in consecutive places of one queue.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use escrowmq_common::header::SendMessageHeader;
use escrowmq_common::message::batch::{BatchMessage, messages};
use escrowmq_common::message::properties::{append, name};
use escrowmq_common::message::{
    Properties, PropertyEditor, SysFlag, TransactionType, UNIT_OVERHEAD_BYTES_MAX, UniqueId, UnitBuilder, unique_id,
};
use escrowmq_common::name::is_retry_topic;

use super::answer::{Answer, KeptText};
use super::check::{Kind, check, check_body};
use super::known::Known;
use super::single::submit;
use super::stamp::{Pieces, cleaned};
use super::{NewUnit, Send, Stop, illegal};
use crate::config::BrokerConfig;
use crate::reply::Refused;
use crate::shard::{Command, Message, MessageList, Once, Publish};
use crate::terms::{Content, When};

/// Bytes of a stored message beside its topic, body and properties, where hosts are IPv4 addresses.
const UNIT_FIXED_BYTES: usize = 91;

/// Topics that take no batches.
pub(super) fn refuse_topic(topic: &str) -> Result<(), Refused> {
    if is_retry_topic(topic) {
        return Err(illegal("batch messages cannot be sent to a retry topic"));
    }
    Ok(())
}

/// Stores the messages of a request.
pub(super) fn publish(send: &Send<'_>) -> Result<(), Stop> {
    let Send { broker, config, header, target, .. } = *send;
    let batch = Batch::read(config, header, &send.request.body)?;
    let topic = target.topic.settings.name.as_str();
    let properties: Vec<Pieces<'_>> = batch.members.iter().map(|member| member.pieces(config, &batch.shared)).collect();
    let units: Vec<NewUnit<'_>> = batch
        .members
        .iter()
        .zip(&properties)
        .map(|(member, pieces)| {
            NewUnit(UnitBuilder {
                flag: member.message.flag,
                sys_flag: SysFlag(header.sys_flag).with_transaction(TransactionType::None),
                born_timestamp: header.born_timestamp,
                born_host: send.reply.connection().peer(),
                reconsume_times: header.reconsume_times,
                ..UnitBuilder::to_store(
                    topic,
                    target.queue.index.cast_signed(),
                    broker.store_host,
                    member.message.body,
                    pieces.as_slice(),
                )
            })
        })
        .collect();
    let mut stored_bytes = 0;
    for unit in &units {
        stored_bytes += unit.0.size().map_err(Refused::from)?;
    }
    let messages: Vec<Message<'_>> =
        batch.members.iter().zip(&units).map(|(member, unit)| Message::new(member.tag_hash, unit)).collect();
    let answer = Answer {
        broker: Arc::clone(broker),
        reply: send.reply.clone(),
        queue: target.queue.index,
        unique_key: KeptText::new(batch.unique_key),
        stored_bytes,
        recall: None,
        is_dead_letter: false,
        is_first: send.is_first,
    };
    // A batch is sent again as a whole: its first member's key and all its bytes tell it.
    let window = target.topic.settings.duplicate_window();
    let once = batch.first_key.filter(|_| window > 0).map(|unique_id| {
        let content = Content::of(&send.request.body, header.properties.unwrap_or_default());
        Once { unique_id, content, window }
    });
    let messages = MessageList::Many(&messages);
    submit(send, &Command::Publish(Publish { queue: target.queue.id, when: When::Now, messages, once }), answer)
}

/// A batch that was read and checked as a whole.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    members: Vec<Member<'a>>,
    /// Properties of the request, which each member gets that does not say otherwise.
    shared: String,
    /// The unique key of the request, which is no member's.
    unique_key: Option<&'a str>,
    /// The unique key that the sender gave its first member.
    first_key: Option<&'a str>,
}

impl<'a> Batch<'a> {
    /// Reads all members before any is stored. Each passes the checks of a message that comes alone.
    ///
    /// Together they may take as many bytes in the store as Apache's broker grants a batch: the largest body and 64 KiB. So many
    /// small members, and long properties of the request, which each member gets, cannot make much of a small request.
    pub(super) fn read(config: &BrokerConfig, header: &SendMessageHeader<'a>, body: &'a [u8]) -> Result<Self, Refused> {
        check_body(config, body)?;
        let own = header.properties.unwrap_or_default();
        let whole = Known::of(own)?;
        let flags = (header.sys_flag, header.reconsume_times);
        // Each member gets the request's own properties, so they must pass the checks of a member.
        check(config, Kind::Member, &whole, flags, body)?;
        let shared = shared(own, whole.needs_edit);
        let names: HashSet<&str> = Properties::new(&shared).iter().map(|(name, _)| name).collect();
        let (mut members, mut stored) = (Vec::new(), 0);
        let limit = config.max_message_size.saturating_add(UNIT_OVERHEAD_BYTES_MAX);
        for message in messages(body) {
            let message = message.map_err(|error| illegal(error.to_string()))?;
            let texts = header.topic.len() + message.body.len() + message.properties.len() + shared.len();
            stored += UNIT_FIXED_BYTES + texts;
            if stored > limit {
                return Err(illegal(format!(
                    "the messages of the batch, each with the properties of the request, take more than {limit} bytes in the \
                     store; nothing was stored: send fewer at a time"
                )));
            }
            members.push(Member::read(config, message, (&shared, &names), &whole, flags)?);
        }
        if members.is_empty() {
            return Err(illegal("the batch holds no message"));
        }
        let first_key = Properties::new(members[0].message.properties).get(name::UNIQUE_KEY);
        Ok(Self { members, shared, unique_key: whole.unique_key, first_key })
    }
}

/// The request's properties that each member gets: those that the sender's hooks put on the batch as a whole, such as a trace.
fn shared(own: &str, needs_edit: bool) -> String {
    let own = cleaned(own, needs_edit);
    PropertyEditor::new(&own).remove(name::UNIQUE_KEY).finish()
}

/// One message of a batch. It keeps its own unique key; where it has none it gets one.
#[derive(Debug)]
struct Member<'a> {
    message: BatchMessage<'a>,
    properties: Cow<'a, str>,
    /// The request's properties are in `properties` already.
    is_joined: bool,
    made_key: Option<UniqueId>,
    tag_hash: i32,
}

impl<'a> Member<'a> {
    fn read(
        config: &BrokerConfig,
        message: BatchMessage<'a>,
        (shared, names): (&str, &HashSet<&str>),
        whole: &Known<'_>,
        flags: (i32, i32),
    ) -> Result<Self, Refused> {
        let known = Known::of(message.properties)?;
        check(config, Kind::Member, &known, flags, message.body)?;
        let mut properties = cleaned(message.properties, known.needs_edit);
        let own = Properties::new(message.properties).iter().map(|(name, _)| name);
        let twice: HashSet<&str> = own.filter(|name| names.contains(name)).collect();
        let is_joined = !twice.is_empty();
        if is_joined {
            let mut text = properties.into_owned();
            for (name, value) in Properties::new(shared).iter().filter(|(name, _)| !twice.contains(name)) {
                append(&mut text, name, value);
            }
            properties = Cow::Owned(text);
        }
        Ok(Self {
            message,
            properties,
            is_joined,
            made_key: known.unique_key.is_none().then(unique_id),
            tag_hash: if known.tags.is_some() { known.tag_hash() } else { whole.tag_hash() },
        })
    }

    fn pieces<'b>(&'b self, config: &'b BrokerConfig, shared: &'b str) -> Pieces<'b>
    where
        'a: 'b,
    {
        let mut pieces = Pieces::new(&self.properties);
        if !self.is_joined {
            pieces.join(shared);
        }
        pieces.add_origin(config);
        if let Some(key) = &self.made_key {
            pieces.add("UNIQ_KEY\u{1}", key);
        }
        pieces
    }
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

    fn read<'a>(properties: &'a str, body: &'a [u8]) -> Result<Batch<'a>, Refused> {
        let header = SendMessageHeader { batch: true, ..SendMessageHeader::new("PG", "T", 0, 0, properties) };
        Batch::read(&BrokerConfig::default(), &header, body)
    }

    fn texts(batch: &Batch<'_>) -> Vec<String> {
        let config = BrokerConfig::default();
        batch.members.iter().map(|member| member.pieces(&config, &batch.shared).as_slice().concat()).collect()
    }

    #[test]
    fn members_keep_their_own_key_or_get_one() {
        let body = body(&["UNIQ_KEY\u{1}own\u{2}TAGS\u{1}TagA\u{2}", ""]);
        let batch = read("UNIQ_KEY\u{1}whole\u{2}", &body).unwrap();
        assert_eq!(batch.unique_key, Some("whole"));
        let members = &batch.members;
        assert_eq!((members[0].made_key, members[0].tag_hash), (None, 2_598_919));
        let texts = texts(&batch);
        assert_eq!(Known::of(&texts[1]).unwrap().unique_key, members[1].made_key.as_deref());
        assert!(members[1].made_key.is_some());
    }

    #[test]
    fn members_get_what_a_hook_put_on_the_batch_unless_they_say_otherwise() {
        let body = body(&["name\u{1}a", "trace\u{1}own\u{2}", ""]);
        let batch = read("trace\u{1}whole\u{2}TAGS\u{1}TagA\u{2}CLUSTER\u{1}theirs\u{2}", &body).unwrap();
        let texts = texts(&batch);
        let get = |nth: usize, name: &str| Properties::new(&texts[nth]).get(name);
        assert_eq!((get(0, "name"), get(0, "trace"), get(0, "TAGS")), (Some("a"), Some("whole"), Some("TagA")));
        assert_eq!((get(1, "trace"), get(2, "trace")), (Some("own"), Some("whole")));
        assert!((0..3).all(|nth| get(nth, "CLUSTER") == Some("DefaultCluster")));
        assert!(batch.members.iter().all(|member| member.tag_hash == 2_598_919), "filters see the tag");
    }

    #[test]
    fn a_batch_takes_no_more_in_the_store_than_its_largest_body_and_a_little() {
        let of = |count: usize| body(&vec!["n\u{1}v"; count]);
        let each = UNIT_FIXED_BYTES + 1 + 1 + 3;
        let most = (BrokerConfig::default().max_message_size + UNIT_OVERHEAD_BYTES_MAX) / each;
        assert_eq!(read("", &of(most)).unwrap().members.len(), most);
        assert_eq!(read("", &of(most + 1)).unwrap_err().code, 13);
        let long = format!("trace\u{1}{}\u{2}", "x".repeat(30_000));
        assert_eq!(read(&long, &of(100)).unwrap().members.len(), 100);
        assert_eq!(read(&long, &of(200)).unwrap_err().code, 13, "each member gets the properties of the request");
    }

    #[test]
    fn one_bad_member_spoils_the_batch() {
        for bad in [
            "TRAN_MSG\u{1}true\u{2}",
            "DELAY\u{1}3\u{2}",
            "TIMER_DELAY_MS\u{1}5\u{2}",
            "DELAY\u{1}abc\u{2}",
            "TRAN_MSG\u{1}maybe\u{2}",
            "INNER_NUM\u{1}2\u{2}",
        ] {
            assert_eq!(read("", &body(&["", bad])).unwrap_err().code, 13, "{bad}");
            assert_eq!(read(bad, &body(&["", ""])).unwrap_err().code, 13, "on the batch: {bad}");
        }
        assert_eq!(read("", &[]).unwrap_err().code, 1);
        let whole = body(&["", ""]);
        assert_eq!(read("", &whole[..whole.len() - 1]).unwrap_err().code, 13);
        assert_eq!(read("", &body(&["TRAN_MSG\u{1}false\u{2}"])).unwrap().members.len(), 1);
        let mut empty = whole.clone();
        BatchMessage { flag: 0, body: b"", properties: "" }.write(&mut empty).unwrap();
        assert_eq!(read("", &empty).unwrap_err().code, 1, "a member without a body");
    }

    #[test]
    fn retry_topics_take_no_batch() {
        assert_eq!(refuse_topic("%RETRY%g").unwrap_err().code, 13);
        refuse_topic("T").unwrap();
    }
}
