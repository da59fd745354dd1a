//! Requests that store messages, and those about one message that is stored.

use escrowmq_common::code::request;
use escrowmq_common::message::CompressionType;

use super::draft::{Draft, Member};
use super::scene::{Scene, property_string};
use super::values::filled;
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 6, ..valid(request::SEND_MESSAGE_V2, Target::Broker, Accepts::SENT, plain_short) },
    Generator { weight: 3, ..valid(request::SEND_MESSAGE, Target::Broker, Accepts::SENT, plain_long) },
    Generator { weight: 10, ..valid(request::SEND_MESSAGE_V2, Target::Broker, Accepts::SENT, half) },
    Generator { weight: 4, ..valid(request::SEND_MESSAGE_V2, Target::Broker, Accepts::SENT, later) },
    Generator { weight: 4, ..valid(request::SEND_BATCH_MESSAGE, Target::Broker, Accepts::SENT, batch) },
    Generator { weight: 2, ..valid(request::SEND_REPLY_MESSAGE, Target::Broker, Accepts::ANY, reply) },
    Generator { weight: 2, ..valid(request::SEND_REPLY_MESSAGE_V2, Target::Broker, Accepts::ANY, reply_short) },
    Generator { weight: 4, ..valid(request::CONSUMER_SEND_MSG_BACK, Target::Broker, Accepts::FOUND, send_back) },
    Generator { weight: 2, ..valid(request::RECALL_MESSAGE, Target::Broker, &[0, 604], recall) },
];

/// A body of a usual size, or of one at a limit.
fn body(scene: &mut Scene<'_>) -> Vec<u8> {
    match scene.dice.below(60) {
        0 => filled(&mut scene.dice, (4 << 20) - 100),
        1 => filled(&mut scene.dice, 4 << 20),
        2 => filled(&mut scene.dice, 70_000),
        _ => format!("evil body {}", scene.dice.roll()).into_bytes(),
    }
}

/// The fields of a send; `properties` is an encoded string.
fn fields(scene: &mut Scene<'_>, code: i32, is_short: bool, properties: &str) -> Draft {
    let name = |short: &'static str, long: &'static str| if is_short { short } else { long };
    let sys_flag = if properties.contains("TRAN_MSG") { 4 } else { 0 };
    Draft::new(code)
        .with(name("a", "producerGroup"), scene.producers())
        .with(name("b", "topic"), scene.topic())
        .with(name("c", "defaultTopic"), "TBW102")
        .with_number(name("d", "defaultTopicQueueNums"), 4)
        .with_number(name("e", "queueId"), scene.queue())
        .with_number(name("f", "sysFlag"), sys_flag)
        .with_number(name("g", "bornTimestamp"), scene.now)
        .with_number(name("h", "flag"), scene.dice.below(3))
        .with(name("i", "properties"), properties)
        .with_number(name("j", "reconsumeTimes"), 0)
        .with(name("k", "unitMode"), "false")
        .with(name("m", "batch"), "false")
        .with(name("n", "bname"), "broker-a")
}

fn plain_properties(scene: &mut Scene<'_>) -> String {
    let unique_id = scene.unique_id();
    let tag = *scene.dice.pick(&["a", "b", "", "a || b"]);
    property_string(&[("UNIQ_KEY", &unique_id), ("KEYS", "evil-key other"), ("TAGS", tag), ("WAIT", "true")])
}

fn plain_short(scene: &mut Scene<'_>) -> Draft {
    let properties = plain_properties(scene);
    let draft = fields(scene, request::SEND_MESSAGE_V2, true, &properties);
    if scene.dice.one_in(10) {
        // Compressed, and what it becomes is more than a message may have.
        let zeros = vec![0; 1 << 20];
        let mut draft = draft.with_body(CompressionType::Zlib.compress(&zeros, 9).unwrap_or_default());
        draft.fields[5].1 = super::json::Json::text("769");
        return draft;
    }
    draft.with_body(body(scene))
}

fn plain_long(scene: &mut Scene<'_>) -> Draft {
    let properties = plain_properties(scene);
    fields(scene, request::SEND_MESSAGE, false, &properties).with_body(body(scene))
}

/// A half message: with its group in the properties, or in the header alone; alone, or one more of a transaction.
fn half(scene: &mut Scene<'_>) -> Draft {
    let (unique_id, group) = (scene.unique_id(), scene.producers());
    let mut pairs = vec![("TRAN_MSG", "true"), ("UNIQ_KEY", unique_id.as_str()), ("KEYS", "evil-key"), ("TAGS", "a")];
    if !scene.dice.one_in(3) {
        pairs.push(("PGROUP", group.as_str()));
    }
    match scene.dice.below(8) {
        0 => pairs.push(("CHECK_IMMUNITY_TIME_IN_SECONDS", "1")),
        1 => pairs.push(("DELAY", "1")),
        _ => {}
    }
    let properties = property_string(&pairs);
    let mut draft = fields(scene, request::SEND_MESSAGE_V2, true, &properties);
    // Groups whose length lies at the limit of a length field: checked by nobody but who writes them.
    if scene.dice.one_in(10) {
        let length = *scene.dice.pick(&[120, 121, 255, 256, 32_767, 65_400, 65_480, 65_500, 65_520, 65_535, 65_536]);
        draft.fields[0].1 = super::json::Json::Text(filled(&mut scene.dice, length));
    }
    if scene.dice.one_in(4) {
        let first = scene.half();
        draft = draft.with_number("transactionFirst", first.position);
        if !scene.dice.one_in(4) {
            draft.fields[0].1 = super::json::Json::Text(first.group);
        }
    }
    draft.with_body(body(scene))
}

/// A message that waits: for a delay level or for a moment.
fn later(scene: &mut Scene<'_>) -> Draft {
    let unique_id = scene.unique_id();
    let soon = (scene.now + 2_000).to_string();
    let due = *scene.dice.pick(&[
        ("DELAY", "1"),
        ("DELAY", "18"),
        ("TIMER_DELAY_SEC", "1"),
        ("TIMER_DELAY_SEC", "3600"),
        ("TIMER_DELAY_MS", "1500"),
        ("TIMER_DELIVER_MS", ""),
    ]);
    let due = if due.1.is_empty() { (due.0, soon.as_str()) } else { due };
    let properties = property_string(&[("UNIQ_KEY", &unique_id), ("KEYS", "evil-key"), due]);
    fields(scene, request::SEND_MESSAGE_V2, true, &properties).with_body(body(scene))
}

fn batch(scene: &mut Scene<'_>) -> Draft {
    let (unique_id, count) = (scene.unique_id(), scene.dice.between(1, 6));
    let members = (0..count).map(|number| {
        let pairs =
            property_string(&[("UNIQ_KEY", &format!("{unique_id}{number}")), ("KEYS", "evil-key"), ("TAGS", "a")]);
        Member::new(format!("evil member {number}"), pairs)
    });
    let members = members.collect();
    let mut draft = fields(
        scene,
        request::SEND_BATCH_MESSAGE,
        true,
        &property_string(&[("UNIQ_KEY", &unique_id), ("WAIT", "true")]),
    );
    if let Some((_, batch)) = draft.fields.iter_mut().find(|(name, _)| name == b"m") {
        *batch = super::json::Json::text("true");
    }
    draft.with_batch(members)
}

fn reply_properties(scene: &mut Scene<'_>) -> String {
    let client = scene.client();
    property_string(&[
        ("CORRELATION_ID", "evil-1"),
        ("REPLY_TO_CLIENT", &client),
        ("MSG_TYPE", "reply"),
        ("TTL", "3000"),
    ])
}

fn reply(scene: &mut Scene<'_>) -> Draft {
    let properties = reply_properties(scene);
    fields(scene, request::SEND_REPLY_MESSAGE, false, &properties).with_body("evil reply").waiting()
}

fn reply_short(scene: &mut Scene<'_>) -> Draft {
    let properties = reply_properties(scene);
    fields(scene, request::SEND_REPLY_MESSAGE_V2, true, &properties).with_body("evil reply").waiting()
}

fn send_back(scene: &mut Scene<'_>) -> Draft {
    let message = scene.stored();
    // The position of a half: it must not come out by this way.
    let position = if scene.dice.one_in(6) { scene.half().position } else { message.position };
    Draft::new(request::CONSUMER_SEND_MSG_BACK)
        .with_number("offset", position)
        .with("group", scene.group())
        .with_number("delayLevel", *scene.dice.pick(&[0, 1, 3, -1]))
        .with("originMsgId", message.message_id)
        .with("originTopic", message.topic)
        .with("unitMode", "false")
        .with_number("maxReconsumeTimes", *scene.dice.pick(&[16, 0, 1, -1]))
}

fn recall(scene: &mut Scene<'_>) -> Draft {
    let handle = scene.known.handles.pick(&mut scene.dice).cloned();
    let (topic, handle) = handle.unwrap_or((b"Evil0".to_vec(), b"djEgRXZpbDAgYnJva2VyLWEgMSBY".to_vec()));
    Draft::new(request::RECALL_MESSAGE)
        .with("producerGroup", scene.producers())
        .with("topic", topic)
        .with("recallHandle", handle)
}
