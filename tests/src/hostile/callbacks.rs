//! Requests that servers send to clients: a server that gets one must not take it for anything. And what attackers answer
//! when a broker asks them.

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use serde_json::json;

use super::draft::Draft;
use super::mutate::mutate;
use super::scene::Scene;
use super::{Accepts, Generator, Target, valid};
use crate::dice::Dice;

pub(super) const GENERATORS: &[Generator] = &[
    valid(request::CHECK_TRANSACTION_STATE, Target::Broker, Accepts::UNKNOWN, check),
    valid(request::NOTIFY_CONSUMER_IDS_CHANGED, Target::Broker, Accepts::UNKNOWN, |scene| {
        Draft::new(request::NOTIFY_CONSUMER_IDS_CHANGED).with("consumerGroup", scene.group())
    }),
    valid(request::RESET_CONSUMER_CLIENT_OFFSET, Target::Broker, Accepts::UNKNOWN, |scene| {
        let topic = scene.topic();
        Draft::new(request::RESET_CONSUMER_CLIENT_OFFSET)
            .with("topic", &topic)
            .with("group", scene.group())
            .with_number("timestamp", -1)
            .with("isForce", "true")
            .with_json(json!({"offsetTable": [{"brokerName": "broker-a", "queueId": 0, "topic": topic, "offset": 0}]}))
    }),
    valid(request::GET_CONSUMER_STATUS_FROM_CLIENT, Target::Broker, Accepts::UNKNOWN, |scene| {
        Draft::new(request::GET_CONSUMER_STATUS_FROM_CLIENT).with("topic", scene.topic()).with("group", scene.group())
    }),
    valid(request::PUSH_REPLY_MESSAGE_TO_CLIENT, Target::Broker, Accepts::UNKNOWN, push_reply),
    valid(request::NOTIFY_MIN_BROKER_ID_CHANGE, Target::Nameserver, Accepts::UNKNOWN, |_| {
        Draft::new(request::NOTIFY_MIN_BROKER_ID_CHANGE)
            .with_number("minBrokerId", 0)
            .with("brokerName", "evil-broker-0")
            .with("minBrokerAddr", "192.0.2.1:10911")
    }),
    Generator { weight: 4, ..valid(super::UNKNOWN_CODE, Target::Broker, Accepts::UNKNOWN, unknown) },
];

/// A code that nobody knows.
fn unknown(scene: &mut Scene<'_>) -> Draft {
    let code =
        *scene.dice.pick(&[-1, 0, 1, 9, 16, 19, 99, 350, 1_000, 2_001, 3_001, 30_000, 30_999, i32::MAX, i32::MIN]);
    Draft::new(code).with("topic", scene.topic()).with("group", scene.group()).with_body("body")
}

fn check(scene: &mut Scene<'_>) -> Draft {
    let half = scene.half();
    Draft::new(request::CHECK_TRANSACTION_STATE)
        .with("topic", half.topic)
        .with_number("tranStateTableOffset", half.counter)
        .with_number("commitLogOffset", half.position)
        .with("msgId", &half.unique_id)
        .with("transactionId", half.unique_id)
        .with("offsetMsgId", half.message_id)
        .with_body("body")
}

fn push_reply(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::PUSH_REPLY_MESSAGE_TO_CLIENT)
        .with("producerGroup", scene.producers())
        .with("topic", scene.topic())
        .with_number("queueId", 0)
        .with_number("sysFlag", 0)
        .with_number("bornTimestamp", scene.now)
        .with_number("flag", 0)
        .with("properties", "CORRELATION_ID\u{1}evil-1\u{2}")
        .with("bornHost", "192.0.2.1:1")
        .with("storeHost", "192.0.2.1:1")
        .with_number("storeTimestamp", scene.now)
        .with_body("body")
}

/// An attacker's answer to a request of the broker, if any.
pub(super) fn answer(asked: &Frame, dice: &mut Dice) -> Option<Draft> {
    if dice.one_in(4) {
        return None;
    }
    let field = |name| asked.fields.get(name).unwrap_or_default().to_owned();
    let mut draft = match asked.code {
        request::CHECK_TRANSACTION_STATE => Draft::new(request::END_TRANSACTION)
            .with("producerGroup", format!("evil-producer-{}", dice.below(super::scene::GROUPS)))
            .with("tranStateTableOffset", field("tranStateTableOffset"))
            .with("commitLogOffset", field("commitLogOffset"))
            .with_number("commitOrRollback", *dice.pick(&[8, 12, 0, 3]))
            .with("fromTransactionCheck", "true")
            .with("msgId", field("msgId"))
            .with("transactionId", field("transactionId")),
        request::GET_CONSUMER_STATUS_FROM_CLIENT => Draft::new(0).with_json(json!({
            "messageQueueTable": [{"brokerName": "broker-a", "queueId": 0, "topic": "Evil0", "offset": 5}],
        })),
        request::GET_CONSUMER_RUNNING_INFO => {
            Draft::new(0).with_json(json!({"properties": {"a": "b"}, "mqTable": {}, "statusTable": {}}))
        }
        request::CONSUME_MESSAGE_DIRECTLY => {
            Draft::new(0).with_json(json!({"consumeResult": "CR_SUCCESS", "order": false, "spentTimeMills": 1}))
        }
        _ => Draft::new(*dice.pick(&[0, 1, -1])),
    };
    if asked.code != request::CHECK_TRANSACTION_STATE {
        draft.flag = 1;
    }
    if !dice.one_in(3) {
        mutate(&mut draft, dice);
    }
    Some(draft)
}
