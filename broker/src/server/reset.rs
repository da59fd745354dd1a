//! Setting a group's offsets to a point in time.

use std::sync::Arc;

use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::body::{MessageModel, ResetOffsetBody};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, Language};
use escrowmq_common::header::{Header as _, ResetOffsetHeader};
use escrowmq_common::some_lines;

use super::{progress, slow};
use crate::broker::Broker;
use crate::reply::{Refused, Reply};
use crate::shard::Queue;
use crate::terms::{QueueOffset, Stamp};

/// The first version that understands that its offsets are set, 3.0.7.
const RESET_SINCE: i32 = 28;

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    slow::run(broker, "reset offsets", reply, move |broker, reply| match Reset::plan(broker, &request) {
        Ok(reset) => reset.carry_out(broker, reply),
        Err(refused) => reply.refuse(refused),
    });
}

/// Where the offsets of a group in a topic are to be.
struct Reset {
    group: String,
    topic: String,
    timestamp: i64,
    is_force: bool,
    queue_id: Option<i32>,
    offsets: Vec<(Arc<Queue>, QueueOffset)>,
    /// Where they were, for the log.
    before: String,
}

impl Reset {
    fn plan(broker: &Broker, request: &Frame) -> Result<Self, Refused> {
        let asked: ResetOffsetHeader<'_> = request.header()?;
        let topic = broker.shard.topics().get(asked.topic).ok_or_else(|| {
            let remark = format!("[reset-offset] reset offset failed, no topic in this broker. topic={}", asked.topic);
            Refused::new(response::SYSTEM_ERROR, remark)
        })?;
        let only = asked.queue_id.filter(|&id| id >= 0);
        let fixed = asked.offset.and_then(|offset| u64::try_from(offset).ok()).map(QueueOffset);
        let mut offsets = Vec::new();
        for queue in progress::queues(&topic) {
            if only.is_some_and(|only| queue.index.cast_signed() != only) {
                continue;
            }
            let stored = progress::offset(broker, asked.group, queue)?;
            offsets.push((Arc::clone(queue), stored, target(broker, queue, &asked, fixed)?));
        }
        if offsets.is_empty() {
            let remark = format!("queue {} is not in topic {}", only.unwrap_or(-1), asked.topic);
            return Err(Refused::new(response::INVALID_PARAMETER, remark));
        }
        let is_known = offsets.iter().any(|(_, stored, _)| stored.is_some())
            || broker.shard.groups().get(asked.group).is_some()
            || broker.clients.consumer_group(asked.group).is_some();
        if !is_known {
            // The spelling is what tools know.
            let remark = format!("THe consumer group <{}> not exist", asked.group);
            return Err(Refused::new(response::SYSTEM_ERROR, remark));
        }
        let before = shown(offsets.iter().map(|(queue, stored, _)| (queue.index, *stored)));
        // Without force nothing is skipped: a group only goes back.
        let offsets = offsets.into_iter().map(|(queue, stored, target)| match stored {
            Some(stored) if !asked.is_force && stored <= target => (queue, stored),
            _ => (queue, target),
        });
        Ok(Self {
            group: asked.group.to_owned(),
            topic: asked.topic.to_owned(),
            timestamp: asked.timestamp,
            is_force: asked.is_force,
            queue_id: only,
            offsets: offsets.collect(),
            before,
        })
    }

    /// Sets the offsets, and answers when they are stored. Members of a broadcast group keep their own offsets: they are
    /// told to set them. All others meet the new offset in the answer to their next pull, which every client obeys;
    /// telling them as well would let some of them begin twice.
    fn carry_out(self, broker: &Arc<Broker>, reply: Reply) {
        let view = broker.clients.consumer_group(&self.group);
        let after = shown(self.offsets.iter().map(|(queue, offset)| (queue.index, Some(*offset))));
        if view.is_some_and(|view| view.message_model == MessageModel::Broadcasting) {
            reply.audit(&self.object(), "kept by the members", format_args!("{after}, told to the members"));
            return reply.body(&to_bytes(&self.tell(broker), Form::Loose));
        }
        let theirs = Arc::clone(broker);
        broker.tasks.spawn("reset offsets", async move {
            match progress::reset(&theirs, &self.group, &self.offsets).await {
                Ok(()) => {
                    reply.audit(&self.object(), &self.before, after);
                    reply.body(&to_bytes(&self.body(&theirs), Form::Loose));
                }
                Err(error) => {
                    some_lines!(warn, group = self.group, topic = self.topic, %error, "offsets are not reset");
                    reply.refuse(error);
                }
            }
        });
    }

    fn object(&self) -> String {
        format!("group {} in {}", self.group, self.topic)
    }

    fn body(&self, broker: &Broker) -> ResetOffsetBody {
        let table = self.offsets.iter().map(|(queue, offset)| (progress::name_of(broker, queue), offset.signed()));
        ResetOffsetBody { offset_table: table.collect() }
    }

    /// Tells the connected members to set their offsets.
    fn tell(&self, broker: &Broker) -> ResetOffsetBody {
        let body = self.body(broker);
        let loose = to_bytes(&body, Form::Loose);
        let list = body.encode_as_list();
        let header = ResetOffsetHeader {
            topic: &self.topic,
            group: &self.group,
            timestamp: self.timestamp,
            is_force: self.is_force,
            queue_id: Some(self.queue_id.unwrap_or(-1)),
            offset: None,
        };
        for member in broker.clients.consumers(&self.group) {
            if member.version < RESET_SINCE {
                some_lines!(warn, client = %member.client_id, version = member.version, "too old to be told of a reset");
                continue;
            }
            let body = if member.language == Language::CPP { list.clone() } else { loose.clone() };
            let mut push = Frame::request(request::RESET_CONSUMER_CLIENT_OFFSET).with_body(body);
            header.encode(&mut push.fields);
            if let Err(error) = member.connection.send_oneway(push) {
                some_lines!(warn, client = %member.client_id, %error, "a consumer is not told of its reset");
            }
        }
        body
    }
}

/// Offsets by queue, for a line of the log.
fn shown(offsets: impl Iterator<Item = (u32, Option<QueueOffset>)>) -> String {
    let shown = |(queue, offset): (u32, Option<QueueOffset>)| match offset {
        Some(offset) => format!("{queue}:{offset}"),
        None => format!("{queue}:none"),
    };
    offsets.map(shown).collect::<Vec<_>>().join(" ")
}

/// Where one queue's offset is to be, within the queue.
fn target(
    broker: &Broker,
    queue: &Queue,
    asked: &ResetOffsetHeader<'_>,
    fixed: Option<QueueOffset>,
) -> Result<QueueOffset, Refused> {
    let (min, max) = (queue.min_offset(), queue.max_offset());
    if let Some(offset) = fixed {
        if !(min..=max).contains(&offset) {
            let remark = format!("Target offset {offset} not in consume queue range [{min}-{max}]");
            return Err(Refused::new(response::SYSTEM_ERROR, remark));
        }
        return Ok(offset);
    }
    match u64::try_from(asked.timestamp).map(Stamp) {
        Ok(time) => Ok(broker.shard.offset_at_time(queue, time)?),
        Err(_) => Ok(max),
    }
}
