//! Pop and what belongs to it. This broker does not serve it yet; the requests come all the same.

use escrowmq_common::code::request;
use serde_json::json;

use super::draft::Draft;
use super::scene::Scene;
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    valid(request::POP_MESSAGE, Target::Broker, Accepts::ANY, pop),
    valid(request::ACK_MESSAGE, Target::Broker, Accepts::ANY, |scene| ack(scene, request::ACK_MESSAGE)),
    valid(request::CHANGE_MESSAGE_INVISIBLETIME, Target::Broker, Accepts::ANY, |scene| {
        ack(scene, request::CHANGE_MESSAGE_INVISIBLETIME).with_number("invisibleTime", 1000)
    }),
    valid(request::PEEK_MESSAGE, Target::Broker, Accepts::ANY, |scene| queue(scene, request::PEEK_MESSAGE)),
    valid(request::NOTIFICATION, Target::Broker, Accepts::ANY, |scene| {
        queue(scene, request::NOTIFICATION).with_number("pollTime", 1000).with_number("bornTime", scene.now).waiting()
    }),
    valid(request::POLLING_INFO, Target::Broker, Accepts::ANY, |scene| queue(scene, request::POLLING_INFO)),
    valid(request::POP_ROLLBACK, Target::Broker, Accepts::ANY, |scene| queue(scene, request::POP_ROLLBACK)),
    valid(request::BATCH_ACK_MESSAGE, Target::Broker, Accepts::ANY, batch_ack),
];

fn queue(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code)
        .with("consumerGroup", scene.group())
        .with("topic", scene.topic())
        .with_number("queueId", scene.queue())
        .with_number("maxMsgNums", 32)
}

fn pop(scene: &mut Scene<'_>) -> Draft {
    queue(scene, request::POP_MESSAGE)
        .with_number("invisibleTime", 60_000)
        .with_number("pollTime", *scene.dice.pick(&[0, 100, 15_000]))
        .with_number("bornTime", scene.now)
        .with_number("initMode", 0)
        .with("expType", "TAG")
        .with("exp", "*")
        .with("order", *scene.dice.pick(&["true", "false"]))
        .with("attemptId", "evil")
        .waiting()
}

fn ack(scene: &mut Scene<'_>, code: i32) -> Draft {
    let message = scene.stored();
    let receipt = format!("{} {} 60000 0 0 broker-a {} {}", message.offset, scene.now, message.queue, message.offset);
    Draft::new(code)
        .with("consumerGroup", scene.group())
        .with("topic", message.topic)
        .with_number("queueId", message.queue)
        .with("extraInfo", receipt)
        .with_number("offset", message.offset)
}

fn batch_ack(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::BATCH_ACK_MESSAGE).with_json(json!({
        "brokerName": "broker-a",
        "acks": [{
            "b": "AQ==", "c": scene.group(), "it": 60_000, "pt": scene.now, "q": 0, "r": "0", "rq": 0, "so": 0,
            "t": scene.topic(),
        }],
    }))
}
