//! Pulls, offsets, messages by id and key, queue locks.

use escrowmq_common::code::request;
use serde_json::json;

use super::draft::Draft;
use super::scene::Scene;
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 8, ..valid(request::PULL_MESSAGE, Target::Broker, Accepts::PULLED, pull) },
    Generator { weight: 2, ..valid(request::LITE_PULL_MESSAGE, Target::Broker, Accepts::PULLED, lite_pull) },
    Generator { weight: 3, ..valid(request::QUERY_CONSUMER_OFFSET, Target::Broker, &[0, 22], query_offset) },
    Generator { weight: 6, ..valid(request::UPDATE_CONSUMER_OFFSET, Target::Broker, Accepts::ANY, update_offset) },
    Generator { weight: 1, ..valid(request::GET_MAX_OFFSET, Target::Broker, &[0], max_offset) },
    Generator { weight: 1, ..valid(request::GET_MIN_OFFSET, Target::Broker, &[0], min_offset) },
    Generator { weight: 3, ..valid(request::SEARCH_OFFSET_BY_TIMESTAMP, Target::Broker, &[0], search_offset) },
    Generator { weight: 1, ..valid(request::GET_EARLIEST_MSG_STORETIME, Target::Broker, &[0], earliest) },
    Generator { weight: 3, ..valid(request::VIEW_MESSAGE_BY_ID, Target::Broker, &[0, 1], view) },
    Generator { weight: 3, ..valid(request::QUERY_MESSAGE, Target::Broker, &[0, 22], query) },
    Generator { weight: 4, ..valid(request::LOCK_BATCH_MQ, Target::Broker, &[0], lock) },
    Generator { weight: 4, ..valid(request::UNLOCK_BATCH_MQ, Target::Broker, &[0], unlock) },
    Generator { weight: 3, ..valid(request::QUERY_CONSUME_QUEUE, Target::Broker, &[0, 1], queue_entries) },
    valid(request::QUERY_BROKER_OFFSET, Target::Broker, &[3], |_| Draft::new(request::QUERY_BROKER_OFFSET)),
];

fn pull(scene: &mut Scene<'_>) -> Draft {
    pull_of(scene, request::PULL_MESSAGE)
}

fn lite_pull(scene: &mut Scene<'_>) -> Draft {
    pull_of(scene, request::LITE_PULL_MESSAGE)
}

fn pull_of(scene: &mut Scene<'_>, code: i32) -> Draft {
    // 1 commits, 2 may be held, 4 brings its own subscription.
    let sys_flag = *scene.dice.pick(&[4, 4, 5, 6, 7, 0]);
    let (kind, filter) = *scene.dice.pick(&[
        ("TAG", "*"),
        ("TAG", "a || b"),
        ("SQL92", "a > 1 AND b IN ('x','y') OR c IS NULL"),
        ("SQL92", "TAGS = 'a' AND NOT (d BETWEEN 1 AND 9)"),
    ]);
    Draft::new(code)
        .with("consumerGroup", scene.group())
        .with("topic", scene.topic())
        .with_number("queueId", scene.queue().max(0))
        .with_number("queueOffset", scene.offset())
        .with_number("maxMsgNums", *scene.dice.pick(&[32, 1, 1024, i32::MAX]))
        .with_number("sysFlag", sys_flag)
        .with_number("commitOffset", scene.offset())
        .with_number("suspendTimeoutMillis", *scene.dice.pick(&[0, 100, 15_000]))
        .with("subscription", filter)
        .with_number("subVersion", scene.now)
        .with("expressionType", kind)
        .with_number("maxMsgBytes", *scene.dice.pick(&[262_144, i32::MAX, 1]))
        .with("bname", "broker-a")
        .waiting()
}

fn queue(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code).with("topic", scene.topic()).with_number("queueId", scene.queue().max(0))
}

fn group_queue(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code)
        .with("consumerGroup", scene.group())
        .with("topic", scene.topic())
        .with_number("queueId", scene.queue().max(0))
}

fn query_offset(scene: &mut Scene<'_>) -> Draft {
    let draft = group_queue(scene, request::QUERY_CONSUMER_OFFSET);
    if scene.dice.one_in(3) { draft.with("setZeroIfNotFound", "false") } else { draft }
}

fn update_offset(scene: &mut Scene<'_>) -> Draft {
    let draft = group_queue(scene, request::UPDATE_CONSUMER_OFFSET);
    draft.with_number("commitOffset", scene.offset())
}

fn max_offset(scene: &mut Scene<'_>) -> Draft {
    queue(scene, request::GET_MAX_OFFSET).with("committed", "true")
}

fn min_offset(scene: &mut Scene<'_>) -> Draft {
    queue(scene, request::GET_MIN_OFFSET)
}

fn earliest(scene: &mut Scene<'_>) -> Draft {
    queue(scene, request::GET_EARLIEST_MSG_STORETIME)
}

fn search_offset(scene: &mut Scene<'_>) -> Draft {
    let time = scene.now - *scene.dice.pick(&[0, 1_000, 100_000]);
    queue(scene, request::SEARCH_OFFSET_BY_TIMESTAMP)
        .with_number("timestamp", time)
        .with("boundaryType", *scene.dice.pick(&["LOWER", "UPPER"]))
}

fn view(scene: &mut Scene<'_>) -> Draft {
    let message = scene.stored();
    let position = if scene.dice.one_in(4) { scene.half().position } else { message.position };
    Draft::new(request::VIEW_MESSAGE_BY_ID).with_number("offset", position).with("topic", message.topic)
}

fn query(scene: &mut Scene<'_>) -> Draft {
    let message = scene.stored();
    let (key, is_unique): (&[u8], _) = match scene.dice.below(4) {
        0 => (&message.unique_id, "true"),
        1 => (message.message_id.as_bytes(), "true"),
        2 => (b"other", "false"),
        _ => (b"evil-key", "false"),
    };
    Draft::new(request::QUERY_MESSAGE)
        .with("topic", message.topic)
        .with("key", key)
        .with_number("maxNum", *scene.dice.pick(&[32, 1, 64, i32::MAX]))
        .with_number("beginTimestamp", 0)
        .with_number("endTimestamp", *scene.dice.pick(&[i64::MAX, scene.now]))
        .with("_UNIQUE_KEY_QUERY", is_unique)
}

fn lock_of(scene: &mut Scene<'_>, code: i32) -> Draft {
    let (topic, count) = (scene.topic(), scene.dice.between(1, 5));
    let queues: Vec<_> =
        (0..count).map(|queue| json!({"brokerName": "broker-a", "queueId": queue, "topic": topic})).collect();
    Draft::new(code).with_json(json!({
        "clientId": scene.client(),
        "consumerGroup": scene.group(),
        "mqSet": queues,
        "onlyThisBroker": false,
    }))
}

fn lock(scene: &mut Scene<'_>) -> Draft {
    lock_of(scene, request::LOCK_BATCH_MQ)
}

fn unlock(scene: &mut Scene<'_>) -> Draft {
    lock_of(scene, request::UNLOCK_BATCH_MQ)
}

fn queue_entries(scene: &mut Scene<'_>) -> Draft {
    queue(scene, request::QUERY_CONSUME_QUEUE)
        .with_number("index", scene.offset())
        .with_number("count", *scene.dice.pick(&[10, 1_000, i32::MAX]))
        .with("consumerGroup", scene.group())
}
