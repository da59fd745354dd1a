//! Heartbeats, leaving, questions about members, and what is relayed to them.

use escrowmq_common::code::request;
use serde_json::{Value, json};

use super::draft::Draft;
use super::scene::Scene;
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 8, ..valid(request::HEART_BEAT, Target::Broker, &[0], heartbeat) },
    Generator { weight: 2, ..valid(request::UNREGISTER_CLIENT, Target::Broker, &[0], unregister) },
    Generator { weight: 1, ..valid(request::GET_CONSUMER_LIST_BY_GROUP, Target::Broker, &[0, 1], members) },
    Generator { weight: 3, ..valid(request::CHECK_CLIENT_CONFIG, Target::Broker, Accepts::ANY, check_client) },
    valid(request::GET_CLIENT_CONFIG, Target::Broker, &[3], |_| Draft::new(request::GET_CLIENT_CONFIG)),
    valid(request::QUERY_ASSIGNMENT, Target::Broker, &[0, 3], assignment),
    valid(request::SET_MESSAGE_REQUEST_MODE, Target::Broker, &[0, 3], request_mode),
    valid(request::GET_ALL_MESSAGE_REQUEST_MODE, Target::Broker, &[0, 3], |_| {
        Draft::new(request::GET_ALL_MESSAGE_REQUEST_MODE)
    }),
    Generator { weight: 3, ..valid(request::INVOKE_BROKER_TO_RESET_OFFSET, Target::Broker, Accepts::ANY, reset) },
    Generator {
        weight: 2,
        ..valid(request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, Target::Broker, Accepts::ANY, status)
    },
    Generator { weight: 2, ..valid(request::GET_CONSUMER_RUNNING_INFO, Target::Broker, Accepts::ANY, running_info) },
    Generator { weight: 2, ..valid(request::CONSUME_MESSAGE_DIRECTLY, Target::Broker, Accepts::ANY, consume_directly) },
];

/// A subscription as clients write it.
fn subscription(scene: &mut Scene<'_>, topic: &str) -> Value {
    let (kind, text) =
        *scene.dice.pick(&[("TAG", "*"), ("TAG", "a || b"), ("SQL92", "a = 1 OR b LIKE 'x%'"), ("SQL92", "a >")]);
    json!({
        "classFilterMode": false,
        "codeSet": [97, 98],
        "expressionType": kind,
        "subString": text,
        "subVersion": scene.now + if scene.dice.one_in(6) { 1 << 40 } else { 0 },
        "tagsSet": ["a", "b"],
        "topic": topic,
    })
}

fn heartbeat(scene: &mut Scene<'_>) -> Draft {
    let (group, client, producers, topic) = (scene.group(), scene.client(), scene.producers(), scene.topic());
    let retry = format!("%RETRY%{group}");
    Draft::new(request::HEART_BEAT).with_json(json!({
        "clientID": client,
        "consumerDataSet": [{
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
            "consumeType": "CONSUME_PASSIVELY",
            "groupName": group,
            "messageModel": *scene.dice.pick(&["CLUSTERING", "BROADCASTING"]),
            "subscriptionDataSet": [subscription(scene, &topic), subscription(scene, &retry)],
            "unitMode": false,
        }],
        "heartbeatFingerprint": scene.dice.below(3),
        "producerDataSet": [{"groupName": producers}, {"groupName": "CLIENT_INNER_PRODUCER"}],
        "withoutSub": scene.dice.one_in(6),
    }))
}

fn unregister(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::UNREGISTER_CLIENT)
        .with("clientID", scene.client())
        .with("producerGroup", scene.producers())
        .with("consumerGroup", scene.group())
}

fn members(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::GET_CONSUMER_LIST_BY_GROUP).with("consumerGroup", scene.group())
}

fn check_client(scene: &mut Scene<'_>) -> Draft {
    let topic = scene.topic();
    Draft::new(request::CHECK_CLIENT_CONFIG).with_json(json!({
        "clientId": scene.client(),
        "group": scene.group(),
        "namespace": "",
        "subscriptionData": subscription(scene, &topic),
    }))
}

fn assignment(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::QUERY_ASSIGNMENT).with_json(json!({
        "clientId": scene.client(),
        "consumerGroup": scene.group(),
        "messageModel": "CLUSTERING",
        "strategyName": "AVG",
        "topic": scene.topic(),
    }))
}

fn request_mode(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::SET_MESSAGE_REQUEST_MODE).with_json(json!({
        "consumerGroup": scene.group(),
        "mode": *scene.dice.pick(&["POP", "PULL"]),
        "popShareQueueNum": 0,
        "topic": scene.topic(),
    }))
}

fn reset(scene: &mut Scene<'_>) -> Draft {
    let draft = Draft::new(request::INVOKE_BROKER_TO_RESET_OFFSET)
        .with("topic", scene.topic())
        .with("group", scene.group())
        .with_number("timestamp", *scene.dice.pick(&[-1, 0, scene.now]))
        .with("isForce", *scene.dice.pick(&["true", "false"]));
    if scene.dice.one_in(2) {
        return draft.with_number("queueId", scene.queue()).with_number("offset", scene.offset()).waiting();
    }
    draft.waiting()
}

fn status(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS)
        .with("topic", scene.topic())
        .with("group", scene.group())
        .with("clientAddr", "")
        .waiting()
}

fn running_info(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::GET_CONSUMER_RUNNING_INFO)
        .with("consumerGroup", scene.group())
        .with("clientId", scene.client())
        .with("jstackEnable", "false")
        .waiting()
}

fn consume_directly(scene: &mut Scene<'_>) -> Draft {
    let message = scene.stored();
    // Nobody named: whoever of the group is there.
    let client = if scene.dice.one_in(3) { scene.client() } else { String::new() };
    Draft::new(request::CONSUME_MESSAGE_DIRECTLY)
        .with("consumerGroup", scene.group())
        .with("clientId", client)
        .with("msgId", message.message_id)
        .with("brokerName", "broker-a")
        .with("topic", message.topic)
        .waiting()
}
