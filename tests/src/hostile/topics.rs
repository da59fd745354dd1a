//! Topics and groups: made, changed, deleted, shown.

use escrowmq_common::code::request;
use serde_json::{Value, json};

use super::draft::Draft;
use super::scene::{GROUPS, Scene, TOPICS};
use super::values::{self, filled};
use super::{Accepts, Generator, Target, valid};
use crate::dice::Dice;

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 6, ..valid(request::UPDATE_AND_CREATE_TOPIC, Target::Broker, Accepts::ANY, create) },
    Generator { weight: 3, ..valid(request::UPDATE_AND_CREATE_TOPIC_LIST, Target::Broker, Accepts::ANY, create_list) },
    Generator { weight: 1, ..valid(request::DELETE_TOPIC_IN_BROKER, Target::Broker, Accepts::ANY, delete) },
    valid(request::GET_TOPIC_CONFIG, Target::Broker, &[0, 17], show),
    Generator { weight: 2, ..valid(request::GET_ALL_TOPIC_CONFIG, Target::Broker, &[0], show_all) },
    valid(request::UPDATE_AND_CREATE_STATIC_TOPIC, Target::Broker, Accepts::ANY, create_static),
    valid(request::GET_TOPIC_STATS_INFO, Target::Broker, &[0, 17], |scene| {
        about_topic(scene, request::GET_TOPIC_STATS_INFO)
    }),
    valid(request::QUERY_TOPIC_CONSUME_BY_WHO, Target::Broker, Accepts::ANY, |scene| {
        about_topic(scene, request::QUERY_TOPIC_CONSUME_BY_WHO)
    }),
    valid(request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, Target::Broker, &[0], |_| {
        Draft::new(request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER)
    }),
    Generator { weight: 5, ..valid(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, Target::Broker, Accepts::ANY, group) },
    Generator {
        weight: 3,
        ..valid(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, Target::Broker, Accepts::ANY, group_list)
    },
    Generator { weight: 2, ..valid(request::DELETE_SUBSCRIPTIONGROUP, Target::Broker, Accepts::ANY, delete_group) },
    valid(request::GET_SUBSCRIPTIONGROUP_CONFIG, Target::Broker, &[0, 26], |scene| {
        Draft::new(request::GET_SUBSCRIPTIONGROUP_CONFIG).with("group", scene.group())
    }),
    valid(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, Target::Broker, &[0], show_groups),
    valid(request::QUERY_TOPICS_BY_CONSUMER, Target::Broker, Accepts::ANY, |scene| {
        Draft::new(request::QUERY_TOPICS_BY_CONSUMER).with("group", scene.group())
    }),
    valid(request::QUERY_SUBSCRIPTION_BY_CONSUMER, Target::Broker, Accepts::ANY, |scene| {
        group_topic(scene, request::QUERY_SUBSCRIPTION_BY_CONSUMER)
    }),
    valid(request::QUERY_CONSUME_TIME_SPAN, Target::Broker, Accepts::ANY, |scene| {
        group_topic(scene, request::QUERY_CONSUME_TIME_SPAN)
    }),
    Generator { weight: 2, ..valid(request::GET_CONSUME_STATS, Target::Broker, Accepts::ANY, consume_stats) },
    valid(request::GET_CONSUMER_CONNECTION_LIST, Target::Broker, &[0, 206], |scene| {
        Draft::new(request::GET_CONSUMER_CONNECTION_LIST).with("consumerGroup", scene.group())
    }),
    valid(request::GET_PRODUCER_CONNECTION_LIST, Target::Broker, &[0, 1], |scene| {
        Draft::new(request::GET_PRODUCER_CONNECTION_LIST).with("producerGroup", scene.producers())
    }),
    valid(request::GET_ALL_PRODUCER_INFO, Target::Broker, &[0], |_| Draft::new(request::GET_ALL_PRODUCER_INFO)),
    valid(request::UPDATE_AND_GET_GROUP_FORBIDDEN, Target::Broker, Accepts::ANY, forbidden),
];

/// Makes again what attackers have deleted, so that their later requests meet something.
pub(super) fn ground(scene: &mut Scene<'_>) -> Draft {
    let (topic, group) = (scene.dice.below(TOPICS), scene.dice.below(GROUPS));
    if scene.dice.one_in(3) {
        let name = format!("evil-group-{group}");
        return Draft::new(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_json(group_config(&name));
    }
    topic_header(&format!("Evil{topic}"), 4).with("attributes", "")
}

fn topic_header(name: &str, queues: i32) -> Draft {
    Draft::new(request::UPDATE_AND_CREATE_TOPIC)
        .with("topic", name)
        .with("defaultTopic", "TBW102")
        .with_number("readQueueNums", queues)
        .with_number("writeQueueNums", queues)
        .with_number("perm", 6)
        .with("topicFilterType", "SINGLE_TAG")
        .with_number("topicSysFlag", 0)
        .with("order", "false")
}

fn create(scene: &mut Scene<'_>) -> Draft {
    let topic = scene.topic();
    // Many queues are many rows: now and then, and of few topics.
    if scene.dice.one_in(20) {
        let name = format!("EvilWide-{}", scene.dice.below(3));
        return topic_header(&name, 16_384).with("attributes", attributes(scene));
    }
    let queues = *scene.dice.pick(&[1, 4, 4, 4, 8, 16]);
    topic_header(&topic, queues).with("attributes", attributes(scene))
}

/// The attributes that topics have in broker/src/server/attributes.rs, each with a value that it takes.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("message.type", "NORMAL"),
    ("queue.type", "SimpleCQ"),
    ("cleanup.policy", "DELETE"),
    ("reserve.time", "-1"),
    ("duplicate.window.seconds", "60"),
];

/// An attribute that is known, so that what it is set to is looked at.
fn known_attribute(dice: &mut Dice) -> (&'static str, Vec<u8>) {
    let (name, usual) = *dice.pick(ATTRIBUTES);
    let value = match dice.below(4) {
        0 => values::number(dice).as_bytes().to_vec(),
        _ => values::hostile(dice, usual.as_bytes()).bytes(),
    };
    (name, value)
}

/// The same as a member of a configuration, as a change or as it is.
fn attribute_member(dice: &mut Dice) -> Value {
    let (name, value) = known_attribute(dice);
    let sign = *dice.pick(&["", "", "+", "-"]);
    json!({ format!("{sign}{name}"): String::from_utf8_lossy(&value) })
}

/// Changes of attributes: known ones, others, and as many bytes as a limit or the frame allows.
fn attributes(scene: &mut Scene<'_>) -> Vec<u8> {
    let dice = &mut scene.dice;
    let length = match dice.below(40) {
        0 => dice.between((16 << 20) - 66_000, (16 << 20) - 1_000),
        1..=3 => *dice.pick(&[65_500, 65_535, 65_536, 65_537, 131_072, 1 << 20]),
        4..=12 => return Vec::new(),
        13..=16 => return b"+message.type=DELAY,+queue.type=SimpleCQ".to_vec(),
        17..=20 => return b"+duplicate.window.seconds=60".to_vec(),
        21..=24 => return b"-message.type,+cleanup.policy=COMPACTION,+a=b,junk,+=,-".to_vec(),
        25..=28 => return [b"+a=b,".to_vec(), filled(dice, 1_000)].concat(),
        29..=34 => {
            let (name, value) = known_attribute(dice);
            return [b"+", name.as_bytes(), b"=", &value].concat();
        }
        _ => return b"+message.type=NORMAL".to_vec(),
    };
    let mut text = dice.pick(&["+a=", "+message.type=", "+duplicate.window.seconds="]).as_bytes().to_vec();
    text.resize(length, b'x');
    text
}

fn topic_config(scene: &mut Scene<'_>) -> Value {
    let queues = *scene.dice.pick(&[1, 4, 4, 4, 8]);
    let topic = scene.topic();
    let attributes =
        if scene.dice.one_in(4) { attribute_member(&mut scene.dice) } else { json!({"message.type": "NORMAL"}) };
    json!({
        "attributes": attributes,
        "order": false,
        "perm": *scene.dice.pick(&[6, 6, 4, 2, 0, 7]),
        "readQueueNums": queues,
        "topicFilterType": "SINGLE_TAG",
        "topicName": topic,
        "topicSysFlag": 0,
        "writeQueueNums": queues,
    })
}

fn create_list(scene: &mut Scene<'_>) -> Draft {
    let list = [topic_config(scene), topic_config(scene)];
    Draft::new(request::UPDATE_AND_CREATE_TOPIC_LIST).with_json(json!({"topicConfigList": list}))
}

fn create_static(scene: &mut Scene<'_>) -> Draft {
    let topic = scene.topic();
    let mut draft = topic_header(&topic, 4).with("force", "false").with_json(json!({
        "bname": "evil-broker", "currIdMap": {"0": 0}, "dirty": false, "epoch": 1, "hostedQueues": {}, "topic": topic,
        "totalQueues": 4,
    }));
    draft.code = request::UPDATE_AND_CREATE_STATIC_TOPIC;
    draft
}

fn about_topic(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code).with("topic", scene.topic())
}

fn delete(scene: &mut Scene<'_>) -> Draft {
    about_topic(scene, request::DELETE_TOPIC_IN_BROKER)
}

fn show(scene: &mut Scene<'_>) -> Draft {
    about_topic(scene, request::GET_TOPIC_CONFIG).with("lo", "true")
}

fn page(scene: &mut Scene<'_>, code: i32, from: &str, count: &str) -> Draft {
    let draft = Draft::new(code);
    if scene.dice.one_in(2) {
        return draft;
    }
    draft
        .with_number(from, *scene.dice.pick(&[0, 1, 5, i32::MAX, -1]))
        .with_number(count, *scene.dice.pick(&[1, 100, i32::MAX, 0, -1]))
        .with("dataVersion", r#"{"counter":1,"stateVersion":0,"timestamp":1}"#)
}

fn show_all(scene: &mut Scene<'_>) -> Draft {
    page(scene, request::GET_ALL_TOPIC_CONFIG, "topicSeq", "maxTopicNum")
}

fn show_groups(scene: &mut Scene<'_>) -> Draft {
    page(scene, request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "groupSeq", "maxGroupNum")
}

fn group_config(name: &str) -> Value {
    json!({
        "attributes": {},
        "brokerId": 0,
        "consumeBroadcastEnable": true,
        "consumeEnable": true,
        "consumeFromMinEnable": true,
        "consumeMessageOrderly": false,
        "consumeTimeoutMinute": 15,
        "groupName": name,
        "groupRetryPolicy": {"type": "CUSTOMIZED"},
        "groupSysFlag": 0,
        "notifyConsumerIdsChangedEnable": true,
        "retryMaxTimes": 16,
        "retryQueueNums": 1,
        "whichBrokerWhenConsumeSlowly": 1,
    })
}

fn group(scene: &mut Scene<'_>) -> Draft {
    let name = scene.group();
    let mut config = group_config(&name);
    match scene.dice.below(13) {
        0 => config["consumeEnable"] = json!(false),
        1 => config["retryQueueNums"] = json!(*scene.dice.pick(&[0, 8, 1_024, 1_025, -1, i32::MAX])),
        2 => config["retryMaxTimes"] = json!(*scene.dice.pick(&[0, -1, i32::MAX])),
        3 => {
            let length = *scene.dice.pick(&[100, 65_535, 65_536, 70_000, 1 << 20]);
            let value = String::from_utf8_lossy(&filled(&mut scene.dice, length)).into_owned();
            config["attributes"] = json!({ "a": value });
        }
        // Groups have none: one that topics have is unknown there as well.
        4 => config["attributes"] = attribute_member(&mut scene.dice),
        5 => config["groupRetryPolicy"] = json!({"type": "EXPONENTIAL", "exponentialRetryPolicy": {"max": i64::MAX}}),
        _ => {}
    }
    Draft::new(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_json(config)
}

fn group_list(scene: &mut Scene<'_>) -> Draft {
    let names = [scene.group(), scene.group()];
    let list: Vec<Value> = names.iter().map(|name| group_config(name)).collect();
    Draft::new(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST).with_json(json!({"groupConfigList": list}))
}

fn delete_group(scene: &mut Scene<'_>) -> Draft {
    let group = if scene.dice.one_in(10) { values::long(&mut scene.dice) } else { scene.group().into_bytes() };
    Draft::new(request::DELETE_SUBSCRIPTIONGROUP)
        .with("groupName", group)
        .with(scene.dice.pick::<&str>(&["cleanOffset", "removeOffset"]), *scene.dice.pick(&["true", "false"]))
}

fn group_topic(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code).with("group", scene.group()).with("topic", scene.topic())
}

fn consume_stats(scene: &mut Scene<'_>) -> Draft {
    let draft = Draft::new(request::GET_CONSUME_STATS).with("consumerGroup", scene.group());
    match scene.dice.below(3) {
        0 => draft.with("topic", scene.topic()),
        1 => draft.with("topicList", "Evil0;Evil1;;nothing"),
        _ => draft,
    }
}

fn forbidden(scene: &mut Scene<'_>) -> Draft {
    let draft = group_topic(scene, request::UPDATE_AND_GET_GROUP_FORBIDDEN);
    if scene.dice.one_in(2) { draft.with("readable", *scene.dice.pick(&["true", "false"])) } else { draft }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::known::Known;
    use super::*;

    /// How long the texts are that `text` finds in requests of this kind, and how they begin.
    fn heads(make: fn(&mut Scene<'_>) -> Draft, text: fn(&Draft) -> Vec<u8>) -> Vec<(usize, Vec<u8>)> {
        let known = Known::default();
        let draft = |step| make(&mut Scene { dice: Dice::of_step(5, step), known: &known, is_far: true, now: 7 });
        let texts = (0..2_000).map(|step| text(&draft(step)));
        texts.map(|text| (text.len(), text[..text.len().min(4_096)].to_vec())).collect()
    }

    /// The attributes that some text gives another value than the usual one, with `between` in front of it.
    fn oddly_set(heads: &[(usize, Vec<u8>)], between: &str) -> BTreeSet<&'static str> {
        let is_odd = |head: &[u8], name: &str, usual: &str| {
            let begin = format!("{name}{between}").into_bytes();
            let mut places = head.windows(begin.len()).enumerate().filter(|(_, window)| *window == begin);
            places.any(|(at, _)| !head[at + begin.len()..].starts_with(usual.as_bytes()))
        };
        let odd = ATTRIBUTES.iter().filter(|(name, usual)| heads.iter().any(|(_, head)| is_odd(head, name, usual)));
        odd.map(|(name, _)| *name).collect()
    }

    #[test]
    fn every_known_attribute_gets_values_that_it_should_not() {
        let changes = heads(create, |draft| draft.field("attributes").unwrap_or_default());
        assert_eq!(oddly_set(&changes, "=").len(), ATTRIBUTES.len());
        let longest = changes.iter().filter(|(_, head)| head.starts_with(b"+message.type=")).map(|(length, _)| *length);
        assert!(longest.max().is_some_and(|longest| longest > 65_536));
        for make in [create_list, group] {
            let configs = heads(make, |draft| draft.body.written());
            assert_eq!(oddly_set(&configs, "\":\"").len(), ATTRIBUTES.len());
        }
    }
}
