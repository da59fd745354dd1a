//! Pulls: whether the request is allowed, in the order in which clients know the refusals.

use std::sync::Arc;

use escrowmq_common::body::EXPRESSION_SQL92;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;
use escrowmq_common::name;

use super::progress;
use crate::broker::Broker;
use crate::client_registry::SubscriptionLook;
use crate::creation::{CreationError, Maker};
use crate::delivery::{Ask, Pull, Wants};
use crate::filter::Filter;
use crate::reply::{Refused, Reply};
use crate::shard::SubmitError;
use crate::terms::{GroupSettings, QueueOffset, TopicSettings};

/// Where users find what to do about a refusal.
const HINT: &str = "see docs/delivery.md";

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let header: PullMessageHeader<'_> = match request.header() {
        Ok(header) => header,
        Err(error) => return refuse(broker, reply, error.into()),
    };
    if let Err(refused) = check_broker(broker, request.code) {
        return refuse(broker, reply, refused);
    }
    if let Some(group) = broker.shard.groups().get(header.consumer_group) {
        return pull(broker, group, &header, reply);
    }
    // Pull consumers need no heartbeat: their first pull makes the group.
    let group = header.consumer_group.to_owned();
    let maker = Maker::Connection(reply.connection().id());
    let puller = Arc::clone(broker);
    let unsaved = group.clone();
    broker.creations.group(maker, &group, move |group| match group.or_else(|error| unwritten(error, unsaved)) {
        // This may be the apply thread, which must not read.
        Ok(group) => {
            let again = Arc::clone(&puller);
            puller.tasks.spawn("first pull", async move {
                let header: PullMessageHeader<'_> = request.header().expect("it decoded before");
                pull(&again, group, &header, reply);
            });
        }
        Err(error) => refuse(&puller, reply, error.into()),
    });
}

/// A store that takes no writes any more can still be read, by groups that it does not know.
fn unwritten(error: CreationError, group: String) -> Result<Arc<GroupSettings>, CreationError> {
    match error {
        CreationError::Submit(SubmitError::StoreFailed | SubmitError::DiskFull) => {
            Ok(Arc::new(GroupSettings::new(group)))
        }
        error => Err(error),
    }
}

fn refuse(broker: &Broker, reply: Reply, refused: Refused) {
    broker.metrics.pulls.record(refused.code);
    reply.refuse(refused);
}

fn check_broker(broker: &Broker, code: i32) -> Result<(), Refused> {
    let config = broker.config();
    if config.broker_permission & TopicSettings::READ == 0 {
        let remark = format!("the broker[{}] pulling message is forbidden", config.broker_name);
        return Err(Refused::new(response::NO_PERMISSION, remark));
    }
    if code == request::LITE_PULL_MESSAGE && !config.lite_pull_message_enable {
        let remark = format!("the broker[{}] for lite pull consumer is forbidden", config.broker_name);
        return Err(Refused::new(response::NO_PERMISSION, remark));
    }
    Ok(())
}

fn pull(broker: &Arc<Broker>, group: Arc<GroupSettings>, header: &PullMessageHeader<'_>, reply: Reply) {
    match checked(broker, group, header, &reply) {
        Ok(pull) => {
            // Before the look, which tells a consumer of a reset: the offset that it commits here is from before the reset.
            if header.sys_flag & PullMessageHeader::COMMIT != 0 {
                commit(broker, &pull, header.commit_offset);
            }
            pull.serve(&broker.delivery);
        }
        Err(refused) => refuse(broker, reply, refused),
    }
}

fn commit(broker: &Broker, pull: &Pull, offset: i64) {
    let offset = u64::try_from(offset).ok().map(QueueOffset).filter(|offset| progress::is_within(&pull.queue, *offset));
    let Some(offset) = offset else { return };
    let (group, queue) = (&pull.group.name, pull.queue.id);
    let connection = pull.reply.connection().id();
    let is_member = || broker.clients.is_consumer(group, connection);
    let result = broker.delivery.offsets.commit(&broker.shard, group, queue, offset, connection, is_member);
    if let Err(error) = result {
        tracing::debug!(group, %queue, %error, "offset of a pull not taken");
    }
}

fn checked(
    broker: &Broker,
    group: Arc<GroupSettings>,
    header: &PullMessageHeader<'_>,
    reply: &Reply,
) -> Result<Pull, Refused> {
    if !group.consume_enable {
        return Err(Refused::new(response::NO_PERMISSION, format!("subscription group no permission, {}", group.name)));
    }
    if matches!(header.topic, name::HALF_TOPIC | name::OP_HALF_TOPIC) {
        return Err(not_readable(header.topic));
    }
    let Some(topic) = broker.shard.topics().get(header.topic) else {
        let remark = format!("topic[{}] not exist, apply first please! {HINT}", header.topic);
        return Err(Refused::new(response::TOPIC_NOT_EXIST, remark));
    };
    if !topic.is_readable() {
        return Err(not_readable(header.topic));
    }
    let index = u32::try_from(header.queue_id).ok().filter(|index| *index < topic.settings.read_queues);
    let Some(queue) = index.and_then(|index| topic.queues.get(index as usize)).cloned() else {
        let remark = format!(
            "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[{}]",
            header.queue_id,
            header.topic,
            topic.settings.read_queues,
            reply.connection().peer()
        );
        return Err(Refused::new(response::INVALID_PARAMETER, remark));
    };
    let wants = wants(broker, &group, header)?;
    let ask = Ask {
        offset: header.queue_offset,
        count_max: header.max_msg_nums,
        bytes_max: header.max_msg_bytes,
        until: until(broker, header),
    };
    Ok(Pull::new(reply.clone(), group, topic, queue, wants, ask))
}

fn not_readable(topic: &str) -> Refused {
    Refused::new(response::NO_PERMISSION, format!("the topic[{topic}] pulling message is forbidden"))
}

/// Until when the pull may be held.
fn until(broker: &Broker, header: &PullMessageHeader<'_>) -> Option<std::time::Duration> {
    if header.sys_flag & PullMessageHeader::MAY_HOLD == 0 {
        return None;
    }
    let config = broker.config();
    let time =
        if config.long_polling_enable { Pull::hold_time(header.suspend_timeout_millis) } else { config.short_polling };
    Some(broker.clock.monotonic() + time)
}

/// The subscription that holds: the request's own, or that of the group's heartbeats.
fn wants(broker: &Broker, group: &GroupSettings, header: &PullMessageHeader<'_>) -> Result<Wants, Refused> {
    let look = broker.clients.look_up(&group.name, header.topic, header.sub_version);
    let is_broadcast = matches!(look, SubscriptionLook::Group { is_broadcast: true, .. });
    // However the subscription comes.
    if is_broadcast && !group.consume_broadcast_enable {
        let remark = format!("the consumer group[{}] can not consume by broadcast way", group.name);
        return Err(Refused::new(response::NO_PERMISSION, remark));
    }
    let unparsable = || Refused::new(response::SUBSCRIPTION_PARSE_FAILED, "parse the consumer's subscription failed");
    let wants = if header.sys_flag & PullMessageHeader::SUBSCRIPTION != 0 {
        if header.expression_type == Some(EXPRESSION_SQL92) {
            check_sql(broker)?;
        }
        let text = header.subscription.unwrap_or_default();
        let filter = Filter::compile(header.expression_type, text).map_err(|_| unparsable())?;
        Wants::Named(Arc::new(filter))
    } else {
        let SubscriptionLook::Group { subscription, is_heard, .. } = look else {
            let remark = format!("the consumer's group info not exist; {HINT}");
            return Err(Refused::new(response::SUBSCRIPTION_NOT_EXIST, remark));
        };
        let Some(subscription) = subscription else {
            let remark = format!("the consumer's subscription not exist; {HINT}");
            return Err(Refused::new(response::SUBSCRIPTION_NOT_EXIST, remark));
        };
        if !is_heard {
            return Err(Refused::new(response::SUBSCRIPTION_NOT_LATEST, "the consumer's subscription not latest"));
        }
        if !subscription.data.is_tag_type() {
            check_sql(broker)?;
        }
        if subscription.filter().is_err() {
            return Err(unparsable());
        }
        Wants::Subscribed(subscription)
    };
    // A message that comes again has passed the filter before; its properties may have changed on the way back.
    if wants.is_expression() && name::is_retry_topic(header.topic) && !broker.config().filter_support_retry {
        return Ok(Wants::Named(Arc::new(Filter::All)));
    }
    Ok(wants)
}

pub(super) fn check_sql(broker: &Broker) -> Result<(), Refused> {
    if broker.config().enable_property_filter {
        return Ok(());
    }
    let remark = "The broker does not support consumer to filter message by SQL92; set enablePropertyFilter=true";
    Err(Refused::new(response::SYSTEM_ERROR, remark))
}
