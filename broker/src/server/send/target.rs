//! Where a message goes: which topic and queue, what has to be created first, or why it goes nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use escrowmq_common::code::response;
use escrowmq_common::header::{SendMessageHeader, VERSION_WITH_RETRY_LIMIT};
use escrowmq_common::name;
use escrowmq_common::some_lines;

use super::super::topics::HINT;
use super::{Missing, Stop};
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::reply::Refused;
use crate::shard::{Queue, Topic};
use crate::terms::TopicSettings;

/// A topic and one of its queues.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) topic: Arc<Topic>,
    pub(super) queue: Arc<Queue>,
    /// A retried message that has been tried often enough.
    pub(super) is_dead_letter: bool,
}

/// Checks what the topic's name alone tells, without a look at the topic.
fn check_name(topic: &str) -> Result<(), Refused> {
    if let Err(error) = name::validate_topic(topic) {
        return Err(Refused::new(response::INVALID_PARAMETER, error.to_string()));
    }
    if name::is_send_forbidden(topic) {
        return Err(Refused::new(response::NO_PERMISSION, format!("Sending message to topic[{topic}] is forbidden.")));
    }
    Ok(())
}

/// The topic and queue that the header names.
pub(super) fn resolve(
    broker: &Broker,
    config: &BrokerConfig,
    header: &SendMessageHeader<'_>,
    version: i32,
    producer: SocketAddr,
) -> Result<Target, Stop> {
    check_name(header.topic)?;
    // Routes keep producers away, too; those with an old route, or none, are refused here and go to another broker.
    if config.broker_permission & TopicSettings::WRITE == 0 {
        let remark = format!("the broker[{}] sending message is forbidden", config.broker_ip);
        return Err(Refused::new(response::NO_PERMISSION, remark).into());
    }
    let Some(topic) = broker.shard.topics().get(header.topic) else {
        return Err(missing(broker, config, header));
    };
    if !topic.is_writable() {
        return Err(Refused::new(response::NO_PERMISSION, not_writable(header.topic)).into());
    }
    let queue = queue_of(&topic, header.queue_id).ok_or_else(|| {
        let settings = &topic.settings;
        let remark = format!(
            "request queueId[{}] is illegal, TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}] Producer: {producer}",
            header.queue_id, settings.name, settings.read_queues, settings.write_queues, settings.perm
        );
        Refused::new(response::INVALID_PARAMETER, remark)
    })?;
    if name::is_retry_topic(header.topic) && !header.batch {
        return retry(broker, header, version, Target { topic, queue, is_dead_letter: false });
    }
    Ok(Target { topic, queue, is_dead_letter: false })
}

/// The remark for a send to a topic without write permission.
pub(in crate::server) fn not_writable(topic: &str) -> String {
    format!("the topic[{topic}] sending message is forbidden")
}

/// A retried message that a consumer sends itself: back to its retry topic, or to the dead letters.
fn retry(broker: &Broker, header: &SendMessageHeader<'_>, version: i32, target: Target) -> Result<Target, Stop> {
    let group = name::group_of(header.topic).unwrap_or_default();
    // Pop has retry topics of its own form, whose name does not tell the group; nobody sends to them from outside.
    let Some(settings) = broker.shard.groups().get(group) else {
        return Err(Stop::Missing(Missing::Group(group.to_owned())));
    };
    let own_limit = header.max_reconsume_times.filter(|_| version >= VERSION_WITH_RETRY_LIMIT);
    let limit = own_limit.unwrap_or(settings.retry_max_times);
    // An ordered consumer retries in place. It sends a message here when it gives it up.
    let gives_up = header.reconsume_times > limit || holds_lock(broker, group);
    if !gives_up {
        return Ok(target);
    }
    let dead = name::dead_letter_topic(group);
    match broker.shard.topics().get(&dead) {
        Some(topic) if !topic.is_writable() => {
            Err(Refused::new(response::NO_PERMISSION, not_writable(&topic.settings.name)).into())
        }
        Some(topic) => {
            let queue = topic.queue(0).cloned().ok_or_else(|| no_queue(&topic))?;
            Ok(Target { topic, queue, is_dead_letter: true })
        }
        None => Err(Stop::Missing(Missing::Topic(TopicSettings::new(dead, 1)))),
    }
}

fn holds_lock(broker: &Broker, group: &str) -> bool {
    // As locks count: see `locks.rs`.
    let at = broker.time.renewed(broker.config().lock_life).unwrap_or_else(|| broker.now());
    broker.shard.holds_lock(group, at).unwrap_or_else(|error| {
        some_lines!(warn, group, %error, "cannot read queue locks; taking the group for one without");
        false
    })
}

pub(super) fn no_queue(topic: &Topic) -> Refused {
    Refused::new(response::INVALID_PARAMETER, format!("topic[{}] has no queue to write to", topic.settings.name))
}

/// The queue with this number; a negative one leaves the choice to the broker.
fn queue_of(topic: &Topic, queue_id: i32) -> Option<Arc<Queue>> {
    if queue_id >= 0 {
        return topic.queue(queue_id).cloned();
    }
    let count = topic.settings.write_queues.max(1);
    topic.queue((next_of(count)).cast_signed()).cloned()
}

/// Numbers below `count`, one after another.
pub(in crate::server) fn next_of(count: u32) -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % count.max(1)
}

/// Decides about a topic that is not there: it is created, or the send is refused.
fn missing(broker: &Broker, config: &BrokerConfig, header: &SendMessageHeader<'_>) -> Stop {
    if let Some(group) = header.topic.strip_prefix(name::RETRY_PREFIX) {
        let settings = broker.shard.groups().get(group);
        return match settings {
            // Makes the retry topic, too; where groups are not made by use, it refuses.
            None => Stop::Missing(Missing::Group(group.to_owned())),
            Some(group) if group.retry_queues > 0 => {
                Stop::Missing(Missing::Topic(TopicSettings::new(header.topic, group.retry_queues)))
            }
            Some(_) => Stop::Refused(Refused::new(
                response::TOPIC_NOT_EXIST,
                format!("topic[{}] not exist: its group takes no retries (retryQueueNums=0)", header.topic),
            )),
        };
    }
    let template = broker.shard.topics().get(header.default_topic);
    let template = template.as_ref().map(|topic| &topic.settings);
    if let Some(settings) = new_topic(config, header.topic, template, header.default_topic_queue_nums) {
        return Stop::Missing(Missing::Topic(settings));
    }
    let remark = format!("topic[{}] not exist, apply first please!{HINT}", header.topic);
    Stop::Refused(Refused::new(response::TOPIC_NOT_EXIST, remark))
}

/// The settings of a topic that a send may create; retry topics come with their groups.
fn new_topic(
    config: &BrokerConfig,
    topic: &str,
    template: Option<&TopicSettings>,
    queues_wanted: i32,
) -> Option<TopicSettings> {
    // Any topic that may be inherited from is a template, the broker's and the cluster's too. Topics of the system are made by the
    // broker alone.
    if !config.auto_create_topic_enable || topic.starts_with(name::SYSTEM_TOPIC_PREFIX) {
        return None;
    }
    let template = template.filter(|template| template.perm & TopicSettings::INHERIT != 0)?;
    let queues = u32::try_from(queues_wanted).unwrap_or_default().min(template.write_queues).max(1);
    Some(TopicSettings { perm: template.perm & !TopicSettings::INHERIT, ..TopicSettings::new(topic, queues) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::QueueId;

    fn template(perm: u32) -> TopicSettings {
        TopicSettings { perm, ..TopicSettings::new("TBW102", 8) }
    }

    #[test]
    fn a_new_topic_takes_after_its_template() {
        let config = BrokerConfig::default();
        let made =
            |wanted| new_topic(&config, "T", Some(&template(7)), wanted).map(|topic| (topic.write_queues, topic.perm));
        assert_eq!(made(4), Some((4, 6)));
        assert_eq!(made(100), Some((8, 6)));
        assert_eq!((made(0), made(-3)), (Some((1, 6)), Some((1, 6))));
        assert_eq!(new_topic(&config, "T", Some(&template(6)), 4), None);
        assert_eq!(new_topic(&config, "T", None, 4), None);
        assert_eq!(new_topic(&config, "rmq_sys_anything", Some(&template(7)), 4), None);
        for expected in ["RMQ_SYS_TRACE_TOPIC", "BenchmarkTest"] {
            assert!(new_topic(&config, expected, Some(&template(7)), 4).is_some(), "tools send there: {expected}");
        }
        let planned = BrokerConfig { auto_create_topic_enable: false, ..config };
        assert_eq!(new_topic(&planned, "T", Some(&template(7)), 4), None);
        let other = TopicSettings { perm: 7, ..TopicSettings::new("DefaultCluster", 1) };
        assert_eq!(new_topic(&planned, "T", Some(&other), 4), None);
    }

    #[test]
    fn names_are_refused_before_anything_is_looked_up() {
        let code = |topic: &str| check_name(topic).err().map(|refused| refused.code);
        assert_eq!(code("T"), None);
        assert_eq!(code("RMQ_SYS_TRACE_TOPIC"), None);
        assert_eq!(code("Top ic"), Some(29));
        assert_eq!(code(""), Some(29));
        assert_eq!(code(&"T".repeat(128)), Some(29));
        assert_eq!(code(name::HALF_TOPIC), Some(16));
        assert_eq!(code(name::SCHEDULE_TOPIC), Some(16));
    }

    #[test]
    fn queues_up_to_the_larger_count_exist_and_negative_ones_are_chosen_among_writable() {
        let name: Arc<str> = Arc::from("T");
        let queues = (0..4).map(|n| Arc::new(Queue::new(QueueId(n), QueueId(0), Arc::clone(&name), n))).collect();
        let settings = TopicSettings { write_queues: 2, read_queues: 3, ..TopicSettings::new("T", 0) };
        let topic = Topic { settings, queues };
        let index = |queue_id| queue_of(&topic, queue_id).map(|queue| queue.index);
        assert_eq!((index(0), index(2), index(3)), (Some(0), Some(2), None));
        for _ in 0..10 {
            assert!(index(-1).is_some_and(|index| index < 2));
        }
    }
}
