//! `RECALL_MESSAGE`: takes a timer message back before its time.
//!
//! Success means that the message is not delivered from now on. So it is the answer, too, where nothing waits any more before
//! its time: the message was taken back before, by a request whose answer was lost, say. Once its time has come, and if other
//! messages have its id, the answer is an error.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::RecallMessageHeader;
use escrowmq_common::message::RecallHandle;

use super::slow;
use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::index::timer;
use crate::reply::{Refused, Reply};
use crate::shard::{Admission, Command, Outcome, Waiting};
use crate::terms::{Position, Stamp};

/// So often the message is looked for again, because its bytes were moved between look and command.
const LOOKS_MAX: u32 = 4;

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let handle = match checked(broker, &request) {
        Ok(handle) => handle,
        Err(refused) => return answer(broker, reply, Err(refused)),
    };
    let recalling = Arc::clone(broker);
    broker.tasks.spawn("recall", async move {
        let done = recall(&recalling, handle).await;
        answer(&recalling, reply, done);
    });
}

/// Answers the unique key of the message that was taken back.
fn answer(broker: &Broker, reply: Reply, done: Result<String, Refused>) {
    let config = broker.config();
    match done {
        Ok(unique_key) => reply.send(
            response::SUCCESS,
            None,
            |fields| {
                fields.text("msgId", &unique_key);
                fields.text("MSG_REGION", &config.region_id);
            },
            &[],
        ),
        Err(Refused { code, remark }) => {
            reply.send(code, Some(&remark), |fields| fields.text("MSG_REGION", &config.region_id), &[]);
        }
    }
}

fn checked(broker: &Broker, request: &Frame) -> Result<RecallHandle, Refused> {
    let config = broker.config();
    if !config.recall_message_enable {
        return Err(Refused::new(response::NO_PERMISSION, "recall failed, operation is forbidden"));
    }
    let header: RecallMessageHeader<'_> = request.header()?;
    if broker.shard.topics().get(header.topic).is_none() {
        let remark = format!("recall failed, the topic[{}] not exist", header.topic);
        return Err(Refused::new(response::TOPIC_NOT_EXIST, remark));
    }
    let handle = header.recall_handle.parse::<RecallHandle>();
    let handle = handle.map_err(|_| Refused::new(response::ILLEGAL_OPERATION, "recall failed, handle is invalid"))?;
    match objection(&config, &handle, header.topic, broker.now()) {
        None => Ok(handle),
        Some(why) => Err(Refused::new(response::ILLEGAL_OPERATION, format!("recall failed, {why}"))),
    }
}

/// Why this handle names nothing that can be taken back here, if so.
fn objection(config: &BrokerConfig, handle: &RecallHandle, topic: &str, now: Stamp) -> Option<&'static str> {
    if handle.topic != topic {
        return Some("topic not match");
    }
    if handle.broker != config.broker_name {
        return Some("broker service not available");
    }
    let limit = now.saturating_add(config.timer_max_delay.as_millis() as u64);
    match u64::try_from(handle.deliver_timestamp).map(Stamp) {
        Ok(due) if due > now && due <= limit => None,
        _ => Some("timestamp invalid"),
    }
}

async fn recall(broker: &Arc<Broker>, handle: RecallHandle) -> Result<String, Refused> {
    let due = Stamp(handle.deliver_timestamp.cast_unsigned());
    for _ in 0..LOOKS_MAX {
        let waiting = look(broker, &handle).await?;
        if let Some(why) = ambiguity(&waiting) {
            return Err(Refused::new(response::ILLEGAL_OPERATION, format!("recall failed, {why}")));
        }
        // Nothing is delivered before its time.
        if waiting.rows.is_empty() {
            return if broker.now() < due { Ok(handle.unique_key) } else { Err(too_late()) };
        }
        // Copies that a producer's retries made are one message.
        let mut all = true;
        for row in &waiting.rows {
            all &= cancel(broker, due, row.position).await?;
        }
        if all {
            return Ok(handle.unique_key);
        }
    }
    Err(Refused::new(response::SYSTEM_BUSY, "recall failed, the message is being moved; try again"))
}

async fn look(broker: &Arc<Broker>, handle: &RecallHandle) -> Result<Waiting, Refused> {
    let (reader, topic, unique_key) = (Arc::clone(broker), handle.topic.clone(), handle.unique_key.clone());
    let due = Stamp(handle.deliver_timestamp.cast_unsigned());
    let found = slow::read_vital(broker, "find timer", move || reader.shard.waiting(due, &topic, &unique_key));
    Ok(found.await??)
}

/// Why it cannot be said which message is meant, if so. Nothing is taken back then.
fn ambiguity(waiting: &Waiting) -> Option<&'static str> {
    if waiting.rows.iter().any(|row| row.flags.is_committed()) {
        return Some("the message belongs to a transaction that has ended with its commit");
    }
    if !waiting.is_one {
        return Some(
            "different messages wait under this id, and which one is meant cannot be told; none was taken back",
        );
    }
    if waiting.rows.is_empty() && !waiting.is_all {
        return Some("more messages are due at that millisecond than are looked through");
    }
    None
}

/// Says whether the message was taken back by this; else it was by another request, or its bytes were moved meanwhile.
async fn cancel(broker: &Arc<Broker>, due: Stamp, position: Position) -> Result<bool, Refused> {
    match broker.shard.propose(&Command::Cancel { due, position }, Admission::Reserved).await {
        Ok(Outcome::Handled(1..)) => Ok(true),
        Ok(Outcome::Handled(0)) => match timer::fired(broker.shard.index(), position) {
            Ok(None) => Ok(false),
            Ok(Some(_)) => Err(too_late()),
            Err(error) => Err(error.into()),
        },
        Ok(
            Outcome::Published(_)
            | Outcome::Prepared(_)
            | Outcome::Settled(_)
            | Outcome::Locked(_)
            | Outcome::Done
            | Outcome::Refused(_),
        ) => unreachable!("a cancel says how many it took"),
        Err(error) => Err(error.into()),
    }
}

fn too_late() -> Refused {
    Refused::new(response::ILLEGAL_OPERATION, "recall failed, the time of the message has come")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_must_fit_topic_broker_and_time() {
        let config = BrokerConfig { broker_name: "b".into(), ..BrokerConfig::default() };
        let handle = |topic: &str, broker: &str, deliver_timestamp| RecallHandle {
            topic: topic.into(),
            broker: broker.into(),
            deliver_timestamp,
            unique_key: "U".into(),
        };
        let objection = |handle: &RecallHandle| objection(&config, handle, "T", Stamp(1_000));
        assert_eq!(objection(&handle("T", "b", 1_001)), None);
        assert_eq!(objection(&handle("X", "b", 1_001)), Some("topic not match"));
        assert_eq!(objection(&handle("T", "c", 1_001)), Some("broker service not available"));
        for time in [1_000, 0, -1, i64::MAX] {
            assert_eq!(objection(&handle("T", "b", time)), Some("timestamp invalid"), "{time}");
        }
    }
}
