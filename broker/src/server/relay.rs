//! Questions of tools to consumers, through the broker that the consumers are connected to.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::body::ConsumerStatus;
use escrowmq_common::body::json::{BodyError, from_slice};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    ConsumeMessageDirectlyHeader, GetConsumerRunningInfoHeader, GetConsumerStatusHeader, Header as _,
};
use escrowmq_common::message::OffsetMessageId;
use escrowmq_common::remoting::CallError;
use escrowmq_common::some_lines;
use futures_util::future::join_all;

use super::answer::body;
use super::messages::visible_unit;
use super::slow;
use crate::broker::Broker;
use crate::client_registry::ConsumerMember;
use crate::reply::{Refused, Reply};
use crate::terms::Position;

/// How long a consumer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first version that tells its insides, 3.1.8.
const RUNNING_INFO_SINCE: i32 = 62;
/// Members that are asked for their offsets for one answer.
const ASKED_MAX: usize = 256;

/// Asks the members of a group, or one of them, which offsets they hold.
pub(super) fn consumer_status(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    if let Err(refused) = ask_offsets(broker, &request, &reply) {
        reply.refuse(refused);
    }
}

fn ask_offsets(broker: &Arc<Broker>, request: &Frame, reply: &Reply) -> Result<(), Refused> {
    let asked: GetConsumerStatusHeader<'_> = request.header()?;
    let only = asked.client_addr.filter(|address| !address.is_empty());
    let mut members = broker.clients.consumers(asked.group);
    members.retain(|member| {
        only.is_none_or(|only| *member.client_id == *only || member.connection.peer().to_string() == only)
    });
    if members.is_empty() {
        let remark = format!("No Any Consumer online in the consumer group: [{}]", asked.group);
        return Err(Refused::new(response::CONSUMER_NOT_ONLINE, remark));
    }
    members.truncate(ASKED_MAX);
    let question = GetConsumerStatusHeader { topic: asked.topic, group: asked.group, client_addr: None };
    let question = Frame::request(request::GET_CONSUMER_STATUS_FROM_CLIENT).with_header(&question);
    let Some(waiting) = slow::relay(broker, reply) else { return Ok(()) };
    let (theirs, reply) = (Arc::clone(broker), reply.clone());
    broker.tasks.spawn("relay consumer status", async move {
        let answers = join_all(members.iter().map(|member| member.connection.call(question.clone(), PATIENCE))).await;
        // Strangers made them, and they may be large.
        theirs.tasks.spawn_blocking("merge consumer status", move || {
            let _waiting = waiting;
            body(reply, Ok(merged_status(&members, answers)));
        });
    });
    Ok(())
}

/// The offsets of those members that answered.
fn merged_status(members: &[ConsumerMember], answers: Vec<Result<Frame, CallError>>) -> ConsumerStatus {
    let mut merged = ConsumerStatus::default();
    for (member, answer) in members.iter().zip(answers) {
        let status = answer.map_err(|error| error.to_string()).and_then(|answer| {
            from_slice::<ConsumerStatus>(&answer.body).map_err(|error: BodyError| error.to_string())
        });
        match status {
            Ok(status) => {
                merged.consumer_table.insert(member.client_id.to_string(), status.message_queue_table);
            }
            Err(error) => some_lines!(warn, client = %member.client_id, error, "a consumer does not tell its offsets"),
        }
    }
    merged
}

/// Asks a consumer for its running figures.
pub(super) fn running_info(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    if let Err(refused) = ask_running_info(broker, &request, &reply) {
        reply.refuse(refused);
    }
}

fn ask_running_info(broker: &Arc<Broker>, request: &Frame, reply: &Reply) -> Result<(), Refused> {
    let asked: GetConsumerRunningInfoHeader<'_> = request.header()?;
    let consumer = consumer(broker, asked.consumer_group, Some(asked.client_id))?;
    if consumer.version < RUNNING_INFO_SINCE {
        let remark = format!("The Consumer <{}> Version <{}> too low to finish", asked.client_id, consumer.version);
        return Err(Refused::new(response::SYSTEM_ERROR, remark));
    }
    let question = Frame::request(request::GET_CONSUMER_RUNNING_INFO).with_header(&asked);
    relay(broker, consumer, asked.consumer_group, question, reply.clone());
    Ok(())
}

/// A connected member of a group: the one with this client id, or any.
fn consumer(broker: &Broker, group: &str, client_id: Option<&str>) -> Result<ConsumerMember, Refused> {
    let wanted = client_id.filter(|id| !id.is_empty());
    let mut members = broker.clients.consumers(group);
    members.retain(|member| member.connection.is_open() && wanted.is_none_or(|id| *member.client_id == *id));
    // The newest connection of a client comes last.
    members.pop().ok_or_else(|| {
        let remark = format!("The Consumer <{group}> <{}> not online", wanted.unwrap_or("any"));
        Refused::new(response::CONSUMER_NOT_ONLINE, remark)
    })
}

/// Asks a consumer, and answers with what it says.
fn relay(broker: &Broker, consumer: ConsumerMember, group: &str, question: Frame, reply: Reply) {
    let Some(waiting) = slow::relay(broker, &reply) else { return };
    let group = group.to_owned();
    broker.tasks.spawn("relay to consumer", async move {
        let _waiting = waiting;
        match consumer.connection.call(question, PATIENCE).await {
            Ok(answer) => reply.send(answer.code, answer.remark.as_deref(), |_| {}, &[&answer.body]),
            Err(error) => {
                let code = match &error {
                    CallError::Timeout { .. } => response::CONSUME_MSG_TIMEOUT,
                    CallError::Connect { .. }
                    | CallError::BadAddress { .. }
                    | CallError::NotSent { .. }
                    | CallError::ConnectionLost { .. } => response::CONSUMER_NOT_ONLINE,
                    CallError::Frame(_) => response::SYSTEM_ERROR,
                };
                reply.error(code, &format!("consumer <{group}> <{}>: {error}", consumer.client_id));
            }
        }
    });
}

/// Lets a consumer consume one message now. The message is found like any by its id: only if it is in a queue.
pub(super) fn consume_directly(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    slow::run(broker, "find message to consume", reply, move |broker, reply| {
        if let Err(refused) = try_consume_directly(broker, &request, &reply) {
            reply.refuse(refused);
        }
    });
}

fn try_consume_directly(broker: &Arc<Broker>, request: &Frame, reply: &Reply) -> Result<(), Refused> {
    let asked = ConsumeMessageDirectlyHeader::decode(&request.fields)?;
    let consumer = consumer(broker, asked.consumer_group, asked.client_id)?;
    let id: OffsetMessageId = asked
        .msg_id
        .parse()
        .map_err(|error| Refused::new(response::SYSTEM_ERROR, format!("msgId '{}': {error}", asked.msg_id)))?;
    let mut unit = BytesMut::new();
    let position = u64::try_from(id.position).map_or(Position::MAX, Position);
    if visible_unit(broker, position, &mut unit)?.is_none() {
        let remark = format!("can not find message by the id, {}", asked.msg_id);
        return Err(Refused::new(response::SYSTEM_ERROR, remark));
    }
    let config = broker.config();
    let topic = asked.topic.and_then(|topic| broker.shard.topics().get(topic));
    let group = broker.shard.groups().get(asked.consumer_group);
    let question = ConsumeMessageDirectlyHeader {
        client_id: Some(&consumer.client_id),
        broker_name: Some(&config.broker_name),
        topic_sys_flag: Some(topic.map_or(0, |topic| topic.settings.sys_flag.cast_signed())),
        group_sys_flag: Some(group.map_or(0, |group| group.group_sys_flag.cast_signed())),
        ..asked
    };
    let question = Frame::request(request::CONSUME_MESSAGE_DIRECTLY).with_header(&question).with_body(unit.freeze());
    relay(broker, consumer.clone(), asked.consumer_group, question, reply.clone());
    Ok(())
}
