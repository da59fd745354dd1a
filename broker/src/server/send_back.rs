//! `CONSUMER_SEND_MSG_BACK`: a message that its consumer could not handle comes again later, or becomes a dead letter.

use std::sync::Arc;

use bytes::BytesMut;
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{ConsumerSendMsgBackHeader, VERSION_WITH_RETRY_LIMIT};
use escrowmq_common::message::properties::{PropertyEditor, name as property};
use escrowmq_common::message::{MessageUnit, UnitBuilder, tags_code};
use escrowmq_common::name;

use super::send::{next_of, not_writable};
use super::slow;
use crate::broker::Broker;
use crate::config::DelayLevels;
use crate::creation::Maker;
use crate::reply::{Refused, Reply};
use crate::shard::{Admission, Command, Message, MessageList, Outcome, Publish, Queue, Topic, WriteUnit};
use crate::terms::{GroupSettings, Position, TopicSettings, When};

/// The level of the first retry, 10 seconds.
const FIRST_RETRY_LEVEL: i32 = 3;

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let wanted = match request.header::<ConsumerSendMsgBackHeader<'_>>() {
        Ok(header) => Wanted {
            group: header.group.to_owned(),
            position: header.offset,
            delay_level: header.delay_level,
            limit: header.max_reconsume_times.filter(|_| request.version >= VERSION_WITH_RETRY_LIMIT),
        },
        Err(error) => return finish(broker, reply, Err(error.into())),
    };
    let retrying = Arc::clone(broker);
    broker.tasks.spawn("send back", async move {
        let done = send_back(&retrying, reply.connection().id(), wanted).await;
        finish(&retrying, reply, done);
    });
}

/// The request, without the frame.
#[derive(Debug)]
struct Wanted {
    group: String,
    /// Position of the message in the log, as the client got it.
    position: i64,
    delay_level: i32,
    limit: Option<i32>,
}

fn finish(broker: &Broker, reply: Reply, done: Result<(), Refused>) {
    match done {
        Ok(()) => {
            broker.metrics.send_backs.record(response::SUCCESS);
            reply.ok();
        }
        Err(refused) => {
            broker.metrics.send_backs.record(refused.code);
            reply.refuse(refused);
        }
    }
}

async fn send_back(broker: &Arc<Broker>, connection: u64, wanted: Wanted) -> Result<(), Refused> {
    // The retry topic of a group that is there is made even on a full disk; a group that a client names is not.
    let is_there = broker.shard.groups().get(&wanted.group).is_some();
    let maker = if is_there { Maker::Broker } else { Maker::Connection(connection) };
    let group = broker.creations.group_of(maker, &wanted.group).await?;
    if broker.config().broker_permission & TopicSettings::WRITE == 0 {
        let remark = format!("the broker[{}] sending message is forbidden", broker.config().broker_ip);
        return Err(Refused::new(response::NO_PERMISSION, remark));
    }
    if group.retry_queues == 0 {
        // The group wants no retries: done, and nothing comes again.
        return Ok(());
    }
    let stored = read(broker, wanted.position).await?;
    let unit = MessageUnit::decode(&stored).map_err(|error| Refused::new(response::SYSTEM_ERROR, error.to_string()))?;
    let fate = fate(&wanted, &group, unit.reconsume_times(), &broker.config().delay_levels);
    let topic = broker.creations.topic_of(Maker::Broker, fate.topic(&group)).await?;
    if !topic.is_writable() {
        return Err(Refused::new(response::NO_PERMISSION, not_writable(&topic.settings.name)));
    }
    let queue = fate.queue(&group, &topic).ok_or_else(|| {
        Refused::new(response::SYSTEM_ERROR, format!("topic[{}] has no queue to write to", topic.settings.name))
    })?;
    let properties = properties(&unit, &fate, &topic, &queue);
    let pieces = [properties.as_str()];
    let retry = Retry(UnitBuilder {
        queue_id: queue.index.cast_signed(),
        queue_offset: 0,
        position: 0,
        store_timestamp: 0,
        store_host: broker.store_host,
        reconsume_times: unit.reconsume_times().saturating_add(1),
        prepared_offset: 0,
        ..UnitBuilder::rewrite(&unit, &topic.settings.name, &pieces)
    });
    retry.0.size().map_err(|error| Refused::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
    let tag_hash = tags_code(escrowmq_common::message::Properties::new(&properties));
    let messages = MessageList::One(Message::new(tag_hash, &retry));
    let command = Command::Publish(Publish { queue: queue.id, when: fate.when(), messages, once: None });
    // A message that is not taken back is consumed again at once by a client that has it already: it goes before new ones.
    let outcome = broker.shard.propose(&command, Admission::Reserved).await;
    match outcome {
        Ok(Outcome::Published(_)) => {
            if let Fate::DeadLetter = fate {
                broker.metrics.dead_letters.add_one();
            }
            Ok(())
        }
        Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
        Ok(Outcome::Prepared(_) | Outcome::Settled(_) | Outcome::Locked(_) | Outcome::Handled(_) | Outcome::Done) => {
            unreachable!("a message is published or refused")
        }
        Err(error) => Err(error.into()),
    }
}

/// The unit of the message at a position, as consumers got it.
async fn read(broker: &Arc<Broker>, position: i64) -> Result<BytesMut, Refused> {
    let reader = Arc::clone(broker);
    let read = slow::read_vital(broker, "read for send back", move || {
        let Ok(position) = u64::try_from(position) else { return Ok(None) };
        let Some(located) = reader.shard.unit_at(Position(position))? else { return Ok(None) };
        let mut unit = BytesMut::with_capacity(located.entry.length as usize);
        reader.shard.unit(&located.queue, &located.entry, &mut unit)?;
        Ok::<_, crate::shard::ReadError>(Some(unit))
    });
    read.await??.ok_or_else(|| {
        let remark = format!("look message by offset failed, there is none at {position}");
        Refused::new(response::SYSTEM_ERROR, remark)
    })
}

/// The fate of a message that was sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It comes again after the milliseconds of this level.
    Retry { level: i32, millis: u64 },
    /// It has been tried often enough, or its consumer has given it up.
    DeadLetter,
}

fn fate(wanted: &Wanted, group: &GroupSettings, reconsume_times: i32, levels: &DelayLevels) -> Fate {
    let limit = wanted.limit.unwrap_or(group.retry_max_times);
    if reconsume_times >= limit || wanted.delay_level < 0 {
        return Fate::DeadLetter;
    }
    let level = match wanted.delay_level {
        0 => FIRST_RETRY_LEVEL.saturating_add(reconsume_times),
        given => given,
    };
    match (levels.clip(level), levels.millis(level)) {
        (Some(level), Some(millis)) => Fate::Retry { level, millis },
        // A count that wrapped below zero: the first level.
        _ => Fate::Retry { level: 1, millis: levels.millis(1).unwrap_or_default() },
    }
}

impl Fate {
    /// The settings of its topic, if that has to be created.
    fn topic(self, group: &GroupSettings) -> TopicSettings {
        match self {
            Self::Retry { .. } => TopicSettings::new(name::retry_topic(&group.name), group.retry_queues),
            Self::DeadLetter => TopicSettings::new(name::dead_letter_topic(&group.name), 1),
        }
    }

    fn queue(self, group: &GroupSettings, topic: &Topic) -> Option<Arc<Queue>> {
        let queue = match self {
            Self::Retry { .. } => next_of(group.retry_queues.min(topic.settings.queue_count())),
            Self::DeadLetter => 0,
        };
        topic.queue(queue.cast_signed()).cloned()
    }

    fn when(self) -> When {
        match self {
            Self::Retry { millis, .. } => When::After(millis),
            Self::DeadLetter => When::Now,
        }
    }
}

/// The properties of the message that comes again: the old ones, and where it came from.
fn properties(unit: &MessageUnit<'_>, fate: &Fate, topic: &Topic, queue: &Queue) -> String {
    let text = unit.properties_text();
    let mut editor = PropertyEditor::new(&text);
    let id = unit.offset_message_id().to_string();
    let queue_number = queue.index.to_string();
    // The values are ours, or come from a property string or a topic's name: none holds a separator.
    let mut set = |name: &'static str, value: String| {
        let _ = editor.set(name, value);
    };
    match fate {
        Fate::Retry { level, .. } => {
            set(property::DELAY, level.to_string());
            set(property::REAL_TOPIC, topic.settings.name.clone());
            set(property::REAL_QUEUE_ID, queue_number);
        }
        Fate::DeadLetter => {
            editor.remove(property::DELAY).remove(property::REAL_TOPIC).remove(property::REAL_QUEUE_ID);
        }
    }
    let _ = editor.set(property::WAIT, "false");
    let _ = editor.set_default(property::RETRY_TOPIC, unit.topic());
    let _ = editor.set_default(property::ORIGIN_MESSAGE_ID, id);
    editor.finish()
}

/// A unit on its way into a batch. Its size was checked, so writing it cannot fail.
struct Retry<'a>(UnitBuilder<'a>);

impl WriteUnit for Retry<'_> {
    fn write_unit(&self, out: &mut BytesMut) {
        self.0.write(out).expect("the size was checked before");
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_common::message::Properties;

    use super::*;
    use crate::terms::QueueId;

    fn wanted(delay_level: i32, limit: Option<i32>) -> Wanted {
        Wanted { group: "G".into(), position: 0, delay_level, limit }
    }

    #[test]
    fn each_retry_waits_longer_until_the_message_is_dead() {
        let (group, levels) = (GroupSettings::new("G"), DelayLevels::default());
        let fate = |wanted: &Wanted, times| fate(wanted, &group, times, &levels);
        assert_eq!(fate(&wanted(0, None), 0), Fate::Retry { level: 3, millis: 10_000 });
        assert_eq!(fate(&wanted(0, None), 1), Fate::Retry { level: 4, millis: 30_000 });
        assert_eq!(fate(&wanted(0, None), 15), Fate::Retry { level: 18, millis: 7_200_000 });
        assert_eq!(fate(&wanted(0, None), 16), Fate::DeadLetter);
        assert_eq!(fate(&wanted(0, Some(100)), 50), Fate::Retry { level: 18, millis: 7_200_000 });
        assert_eq!(fate(&wanted(0, Some(1)), 1), Fate::DeadLetter);
        assert_eq!(fate(&wanted(0, Some(0)), 0), Fate::DeadLetter);
        assert_eq!(fate(&wanted(-1, None), 0), Fate::DeadLetter);
        assert_eq!(fate(&wanted(1, None), 5), Fate::Retry { level: 1, millis: 1_000 });
        assert_eq!(fate(&wanted(0, None), i32::MIN), Fate::Retry { level: 1, millis: 1_000 });
    }

    fn changed(own: &str, fate: Fate) -> String {
        let (host, pieces) = ("127.0.0.1:30911".parse().unwrap(), [own]);
        let parts = UnitBuilder {
            queue_offset: 5,
            position: 4_711,
            born_timestamp: 1,
            born_host: "192.0.2.1:1".parse().unwrap(),
            store_timestamp: 2,
            ..UnitBuilder::to_store("T", 1, host, b"b", &pieces)
        };
        let mut bytes = BytesMut::new();
        parts.write(&mut bytes).unwrap();
        let unit = MessageUnit::decode(&bytes).unwrap();
        let queue = Arc::new(Queue::new(QueueId(1), QueueId(1), Arc::from("%RETRY%G"), 0));
        let topic = Topic { settings: fate.topic(&GroupSettings::new("G")), queues: vec![Arc::clone(&queue)] };
        properties(&unit, &fate, &topic, &queue)
    }

    #[test]
    fn a_retry_remembers_where_it_came_from() {
        let text = changed("KEYS\u{1}k\u{2}WAIT\u{1}true\u{2}", Fate::Retry { level: 3, millis: 10_000 });
        let read = Properties::new(&text);
        assert_eq!(read.get("KEYS"), Some("k"));
        assert_eq!(read.get("RETRY_TOPIC"), Some("T"));
        assert_eq!(read.get("ORIGIN_MESSAGE_ID"), Some("7F000001000078BF0000000000001267"));
        assert_eq!((read.get("DELAY"), read.get("WAIT")), (Some("3"), Some("false")));
        assert_eq!((read.get("REAL_TOPIC"), read.get("REAL_QID")), (Some("%RETRY%G"), Some("0")));
    }

    #[test]
    fn a_second_retry_keeps_the_first_origin_and_a_dead_letter_has_no_delay() {
        let own = "RETRY_TOPIC\u{1}First\u{2}ORIGIN_MESSAGE_ID\u{1}id\u{2}DELAY\u{1}3\u{2}REAL_TOPIC\u{1}%RETRY%G\u{2}";
        let text = changed(own, Fate::DeadLetter);
        let read = Properties::new(&text);
        assert_eq!((read.get("RETRY_TOPIC"), read.get("ORIGIN_MESSAGE_ID")), (Some("First"), Some("id")));
        assert_eq!((read.get("DELAY"), read.get("REAL_TOPIC")), (None, None));
    }
}
