//! Replies of request-reply: passed on to the client that asked, and stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{PushReplyMessageHeader, SendMessageHeader};
use escrowmq_common::message::properties::append;
use escrowmq_common::message::{OffsetMessageId, SysFlag, TransactionType, UnitBuilder, unique_id};
use escrowmq_common::remoting::Connection;

use super::answer::{origin, refuse};
use super::check::{Kind, check};
use super::known::Known;
use super::stamp::{Pieces, cleaned};
use super::{NewUnit, Send, Stop, illegal, resolve};
use crate::broker::Broker;
use crate::reply::{Refused, Reply};
use crate::shard::{Admission, Command, Message, MessageList, Outcome, Publish, SubmitError};
use crate::terms::When;

/// Time that the client that asked gets to take the reply.
const PUSH_TIME: Duration = Duration::from_secs(10);

/// Stores the reply and passes it on; answers when both are done.
pub(super) fn pass_on(broker: &Arc<Broker>, request: &Frame, reply: &Reply, is_first: bool) -> Result<(), Stop> {
    let header: SendMessageHeader<'_> = request.header()?;
    if header.batch {
        return Err(illegal("a reply is a single message, not a batch").into());
    }
    let config = broker.config();
    let precheck = || -> Result<Known<'_>, Stop> {
        let known = Known::of(header.properties.unwrap_or_default()).map_err(Refused::from)?;
        check(&config, Kind::Reply, &known, (header.sys_flag, header.reconsume_times), &request.body)?;
        Ok(known)
    };
    let target = resolve(broker, reply, &config, request, &header, || precheck().map(drop))?;
    let known = precheck()?;
    let header = &header;
    let send = Send { broker, config: &config, request, header, target: &target, reply, is_first };
    let own = cleaned(header.properties.unwrap_or_default(), known.needs_edit);

    let client = known.reply_to_client.map(str::to_owned);
    let push = match &client {
        None => Err("reply message properties[REPLY_TO_CLIENT] is null".to_owned()),
        Some(client) => match broker.clients.producer_connection(client) {
            None => Err(format!("push reply message fail, channel of <{client}> not found.")),
            Some(requester) => Ok((requester, push_frame(&send, &own))),
        },
    };
    let stored = config.store_reply_message_enable.then(|| propose(&send, &known, &own)).transpose()?;
    let (answering, reply, queue) = (Arc::clone(broker), reply.clone(), target.queue.index);
    broker.tasks.spawn("push reply", async move {
        let pushed = match push {
            Ok((requester, frame)) => deliver(&requester, frame, client.as_deref().unwrap_or_default()).await,
            Err(why) => Err(why),
        };
        let stored = match stored {
            Some(stored) => Some(stored.await),
            None => None,
        };
        answer(&answering, reply, queue, pushed, stored);
    });
    Ok(())
}

async fn deliver(requester: &Arc<Connection>, frame: Frame, client: &str) -> Result<(), String> {
    match requester.call(frame, PUSH_TIME).await {
        Ok(answer) if answer.code == response::SUCCESS => Ok(()),
        Ok(answer) => {
            let why = answer.remark.unwrap_or_default();
            Err(format!("push reply message to {client} fail. code {}: {why}", answer.code))
        }
        Err(error) => Err(format!("push reply message to {client} fail. {error}")),
    }
}

fn push_frame(send: &Send<'_>, own: &str) -> Frame {
    let Send { broker, config, header, .. } = *send;
    let now = broker.now();
    let mut properties = own.to_owned();
    append(&mut properties, "MSG_REGION", &config.region_id);
    append(&mut properties, "TRACE_ON", config.trace_on);
    append(&mut properties, "PUSH_REPLY_TIME", now);
    Frame::request(request::PUSH_REPLY_MESSAGE_TO_CLIENT)
        .with_header(&PushReplyMessageHeader {
            producer_group: header.producer_group,
            topic: header.topic,
            default_topic: Some(header.default_topic),
            default_topic_queue_nums: header.default_topic_queue_nums,
            queue_id: header.queue_id,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            flag: header.flag,
            properties: Some(&properties),
            reconsume_times: header.reconsume_times,
            unit_mode: header.unit_mode,
            born_host: &send.reply.connection().peer().to_string(),
            store_host: &broker.store_host.to_string(),
            store_timestamp: now.signed(),
        })
        // The body shares the read buffer of the replying connection; the call may last.
        .with_body(Bytes::copy_from_slice(&send.request.body))
}

type Stored = Result<Outcome, SubmitError>;

/// Submits the reply as a message and returns what waits for its outcome.
fn propose(
    send: &Send<'_>,
    known: &Known<'_>,
    own: &str,
) -> Result<impl Future<Output = Stored> + std::marker::Send + use<>, Refused> {
    let Send { broker, config, header, target, .. } = *send;
    let made = known.unique_key.is_none().then(unique_id);
    let mut pieces = Pieces::new(own);
    pieces.add_origin(config);
    if let Some(key) = &made {
        pieces.add("UNIQ_KEY\u{1}", key);
    }
    let unit = NewUnit(UnitBuilder {
        flag: header.flag,
        sys_flag: SysFlag(header.sys_flag).with_transaction(TransactionType::None),
        born_timestamp: header.born_timestamp,
        born_host: send.reply.connection().peer(),
        reconsume_times: header.reconsume_times,
        ..UnitBuilder::to_store(
            &target.topic.settings.name,
            target.queue.index.cast_signed(),
            broker.store_host,
            &send.request.body,
            pieces.as_slice(),
        )
    });
    unit.0.size()?;
    let messages = MessageList::One(Message::new(known.tag_hash(), &unit));
    let command = Command::Publish(Publish { queue: target.queue.id, when: When::Now, messages, once: None });
    Ok(broker.shard.propose(&command, Admission::Normal))
}

/// Passing the reply on decides the code. The place where it was stored is told as well.
fn answer(broker: &Broker, reply: Reply, queue: u32, pushed: Result<(), String>, stored: Option<Stored>) {
    let place = match stored {
        Some(Ok(Outcome::Published(published))) => Some(published),
        // Not to be stored, or its topic was deleted meanwhile.
        None
        | Some(Ok(
            Outcome::Refused(_)
            | Outcome::Prepared(_)
            | Outcome::Settled(_)
            | Outcome::Locked(_)
            | Outcome::Handled(_)
            | Outcome::Done,
        )) => None,
        Some(Err(error)) => {
            tracing::debug!(%error, "a reply was not stored");
            None
        }
    };
    let (code, remark) = match &pushed {
        Ok(()) => (response::SUCCESS, None),
        Err(why) => (response::SYSTEM_ERROR, Some(why.as_str())),
    };
    let Some(place) = place else {
        return match pushed {
            Ok(()) => {
                broker.metrics.sends.record(code);
                let config = broker.config();
                reply.send(code, None, |fields| origin(fields, &config), &[]);
            }
            Err(why) => refuse(broker, reply, Refused::new(code, why)),
        };
    };
    broker.metrics.sends.record(code);
    let config = broker.config();
    let id = OffsetMessageId { host: broker.store_host, position: place.position.signed() };
    reply.send(
        code,
        remark,
        |fields| {
            fields.display("msgId", id);
            fields.number("queueId", queue);
            fields.number("queueOffset", place.entered.number().cast_signed());
            origin(fields, &config);
        },
        &[],
    );
}
