//! Changes to a request that was valid: one or a few, so that the rest of it still leads deep into its handler.

use escrowmq_common::message::CompressionType;
use escrowmq_common::message::properties::name;

use super::draft::{Body, Draft, Member};
use super::json::Json;
use super::values::{self, filled, hostile, long, number};
use crate::dice::Dice;

/// Fields that requests of other kinds have, to stand where nobody expects them.
#[rustfmt::skip] // a table
const FOREIGN: &[&str] = &[
    "bname", "transactionFirst", "retryAfterMillis", "lo", "ns", "nsd", "queueId", "topic", "group", "consumerGroup",
    "producerGroup", "offset", "batch", "m", "i", "backupId", "halfId", "force", "brokerId", "compressed",
    "__ZONE_MODE", "acceptStandardJsonOnly", "setZeroIfNotFound", "escrowmqPart", "escrowmqTerm", "QueueId", "oway", "Signature", "AccessKey",
];

/// Properties that mean something to a broker.
#[rustfmt::skip] // a table
const PROPERTIES: &[&str] = &[
    name::KEYS, name::TAGS, name::WAIT, name::DELAY, name::UNIQUE_KEY, name::TRANSACTION_PREPARED, name::PRODUCER_GROUP,
    name::TRANSACTION_ID, name::CHECK_IMMUNITY_TIME, name::TRANSACTION_PREPARED_QUEUE_OFFSET,
    name::TRANSACTION_CHECK_TIMES, name::REAL_TOPIC, name::REAL_QUEUE_ID, name::RETRY_TOPIC, name::ORIGIN_MESSAGE_ID,
    name::RECONSUME_TIME, name::MAX_RECONSUME_TIMES, name::MIN_OFFSET, name::MSG_REGION, name::TRACE_ON, name::CLUSTER,
    name::INSTANCE_ID, name::MESSAGE_TYPE, name::CORRELATION_ID, name::REPLY_TO_CLIENT, name::TTL, name::POP_CK,
    name::INNER_NUM, name::INNER_MULTI_DISPATCH, name::SHARDING_KEY, name::TIMER_DELAY_SECONDS, name::TIMER_DELAY_MS,
    name::TIMER_DELIVER_MS, name::TIMER_OUT_MS, name::TIMER_DELETE_UNIQUE_KEY, name::CRC32, "__RMQ.TRANSIENT.x",
];

/// Most bytes that a value which is repeated may come to.
const REPEATED_BYTES: usize = 2 << 20;

/// Most bytes of a body that grows by a mutation.
const FRAME_BYTES: usize = 16 << 20;

/// Does one thing to the request.
pub(super) fn mutate(draft: &mut Draft, dice: &mut Dice) {
    let has_body = !matches!(&draft.body, Body::Raw(bytes) if bytes.is_empty());
    let deed = match dice.below(40) {
        0 => flags(draft, dice),
        1 => sender(draft, dice),
        2 => foreign_field(draft, dice),
        3 => body_from_nothing(draft, dice),
        4 => every_field(draft, dice),
        5 => up_to_the_frame(draft, dice),
        _ if draft.fields.is_empty() && !has_body => foreign_field(draft, dice),
        _ if draft.fields.is_empty() => body(draft, dice),
        _ if has_body && dice.one_in(3) => body(draft, dice),
        _ => field(draft, dice),
    };
    draft.deeds.push(deed);
}

fn flags(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    draft.flag = *dice.pick(&[1, 2, 2, 3, 4, -1, i32::MIN, i32::MAX]);
    "flags"
}

fn sender(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    match dice.below(3) {
        0 => draft.version = *dice.pick(&[0, 1, 36, 61, 62, 317, 400, 413, -1, i32::MIN, i32::MAX, 32_767, 32_768]),
        1 => draft.language = hostile(dice, b"GO").bytes(),
        _ => draft.remark = Some(hostile(dice, b"why").bytes()),
    }
    "sender"
}

fn foreign_field(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    let name = dice.pick(FOREIGN).as_bytes().to_vec();
    let name = if dice.one_in(6) { hostile(dice, &name).bytes() } else { name };
    let value = hostile(dice, b"0");
    // More than a frame may have, or one. A long name repeated would fill this process's memory, not the broker's.
    let count = if dice.one_in(20) { 5_000 } else { 1 };
    let count = if name.len() + value.bytes().len() > 300 { 1 } else { count };
    draft.fields.extend(std::iter::repeat_n((name, value), count));
    "a field of others"
}

fn body_from_nothing(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    let length = dice.below(300);
    draft.body = match dice.below(6) {
        0 => Body::Raw(dice.bytes(length)),
        1 => Body::Json(values::raw(dice)),
        2 => Body::Raw(nested(dice)),
        3 => Body::Raw(long(dice)),
        4 => Body::Raw(bomb(dice)),
        _ => Body::Raw(Vec::new()),
    };
    "another body"
}

fn every_field(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    let length = draft.fields.len();
    for (_, value) in &mut draft.fields {
        if length < 4 || dice.one_in(2) {
            let was = value.bytes();
            *value = hostile(dice, &was);
        }
    }
    "most fields"
}

/// One field as long as the frame takes, give or take a few bytes.
fn up_to_the_frame(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    // Sixteen megabytes each time would leave no time for others.
    if draft.fields.is_empty() || !dice.one_in(8) {
        return foreign_field(draft, dice);
    }
    let at = dice.below(draft.fields.len());
    let slack = dice.between(0, 70_000);
    draft.fields[at].1 = Json::Text(vec![b'x'; FRAME_BYTES - 2_000 - slack]);
    "a field that fills the frame"
}

/// Changes one field, or the properties in it.
fn field(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    let at = dice.below(draft.fields.len());
    let is_properties = matches!(&draft.fields[at].0[..], b"i" | b"properties");
    if is_properties && !dice.one_in(4) {
        let was = draft.fields[at].1.bytes();
        draft.fields[at].1 = Json::Text(properties(&was, dice));
        return "properties";
    }
    match dice.below(12) {
        0 | 1 => {
            draft.fields.remove(at);
            "a field left out"
        }
        2 => {
            let (name, value) = draft.fields[at].clone();
            let value = hostile(dice, &value.bytes());
            draft.fields.push((name, value));
            "a field twice"
        }
        3 => {
            let other = dice.below(draft.fields.len());
            let value = draft.fields[other].1.clone();
            draft.fields[at].1 = value;
            "the value of another field"
        }
        4 => {
            let name = draft.fields[at].0.clone();
            draft.fields[at].0 = hostile(dice, &name).bytes();
            "another name for a field"
        }
        _ => {
            let was = draft.fields[at].1.bytes();
            draft.fields[at].1 = hostile(dice, &was);
            "a field's value"
        }
    }
}

/// Changes a property string.
fn properties(was: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut pairs: Vec<Vec<u8>> =
        was.split(|byte| *byte == 2).filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect();
    let deeds = 1 + dice.below(2);
    for _ in 0..deeds {
        let at = dice.below(pairs.len() + 1);
        match dice.below(8) {
            0 if at < pairs.len() => drop(pairs.remove(at)),
            1..=3 if at < pairs.len() => {
                let name = pairs[at].split(|byte| *byte == 1).next().unwrap_or_default().to_vec();
                let value = pairs[at].get(name.len() + 1..).unwrap_or_default().to_vec();
                pairs[at] = [name, vec![1], hostile(dice, &value).bytes()].concat();
            }
            4 if at < pairs.len() => pairs[at] = hostile(dice, &pairs[at].clone()).bytes(),
            _ => {
                let name = dice.pick(PROPERTIES).as_bytes().to_vec();
                let value = if dice.one_in(2) { Json::text(number(dice)) } else { hostile(dice, b"true") };
                pairs.insert(at, [name, vec![1], value.bytes()].concat());
            }
        }
    }
    let mut text = pairs.join(&2);
    if !dice.one_in(8) {
        text.push(2);
    }
    text
}

fn body(draft: &mut Draft, dice: &mut Dice) -> &'static str {
    let is_properties_text = matches!(draft.code, 25 | 318);
    match &mut draft.body {
        Body::Json(json) if !dice.one_in(6) => {
            json_body(json, dice);
            "a value of the body"
        }
        Body::Batch(members) if !dice.one_in(6) => {
            batch(members, dice);
            "a member of the batch"
        }
        Body::Raw(text) if is_properties_text && !dice.one_in(4) => {
            let line = [b"traceOn=".to_vec(), hostile(dice, b"true").bytes()].concat();
            text.extend_from_slice(&line);
            "a line of the settings"
        }
        _ => {
            let bytes = draft.body.written();
            draft.body = Body::Raw(damaged(bytes, dice));
            "bytes of the body"
        }
    }
}

/// Changes one value of a tree.
fn json_body(json: &mut Json, dice: &mut Dice) {
    let count = json.count();
    // The leaves are more interesting than the whole.
    let number = if dice.one_in(12) { 0 } else { dice.below(count) };
    let Some(node) = json.nth(number) else { return };
    match (node, dice.below(10)) {
        (Json::Object(members), 0..=2) if !members.is_empty() => {
            let at = dice.below(members.len());
            drop(members.remove(at));
        }
        (Json::Object(members), 3 | 4) if !members.is_empty() => {
            let (key, value) = dice.pick(members).clone();
            let value = hostile(dice, &value.bytes());
            members.push((key, value));
        }
        (Json::Object(members), 5 | 6) if !members.is_empty() => {
            let at = dice.below(members.len());
            let key = members[at].0.bytes();
            members[at].0 = hostile(dice, &key);
        }
        (Json::List(items), 0..=5) if !items.is_empty() => {
            let item = dice.pick(items).clone();
            let most = (REPEATED_BYTES / item.written().len().max(1)).clamp(1, 100_000);
            let count = *dice.pick(&[1, 2, 100, 1_000, 10_001, 65_537, 100_000]);
            items.extend(std::iter::repeat_n(item, count.min(most)));
        }
        (node, 9) => *node = Json::Raw(nested(dice)),
        (node, _) => {
            let was = node.bytes();
            *node = hostile(dice, &was);
        }
    }
}

fn batch(members: &mut Vec<Member>, dice: &mut Dice) {
    if members.is_empty() || dice.one_in(10) {
        members.resize(dice.between(0, 20_000), Member::new("x", ""));
        return;
    }
    let at = dice.below(members.len());
    let member = &mut members[at];
    match dice.below(6) {
        0 => member.properties = properties(&member.properties.clone(), dice),
        1 => member.properties = long(dice),
        2 => member.body = hostile(dice, &member.body.clone()).bytes(),
        3 => member.flag = dice.roll() as i32,
        _ => member.lies[dice.below(3)] = *dice.pick(&[1, -1, 4, -4, 100, -100, i32::MAX, i32::MIN, 0x10000, 0x7fff]),
    }
}

/// Brackets in brackets.
fn nested(dice: &mut Dice) -> Vec<u8> {
    let depth = *dice.pick(&[30, 33, 63, 65, 127, 129, 1_000, 100_000]);
    let (open, close): (&[u8], &[u8]) = *dice.pick(&[(&b"["[..], &b"]"[..]), (b"{\"a\":", b"}"), (b"{{\"a\":", b"}}")]);
    let mut out = open.repeat(depth);
    out.push(b'1');
    if !dice.one_in(4) {
        out.extend(close.repeat(depth));
    }
    out
}

/// A little that becomes much when it is unpacked.
fn bomb(dice: &mut Dice) -> Vec<u8> {
    let kind = *dice.pick(&[CompressionType::Lz4, CompressionType::Zstd, CompressionType::Zlib]);
    kind.compress(&vec![0; 8 << 20], 6).unwrap_or_default()
}

/// Bytes with one place damaged.
fn damaged(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let at = dice.below(bytes.len() + 1);
    match dice.below(7) {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] = dice.roll() as u8,
        2 => {
            let junk = dice.bytes(3);
            bytes.splice(at..at, junk);
        }
        3 => bytes.extend_from_within(..),
        4 => bytes.clear(),
        5 => bytes = bomb(dice),
        _ => bytes = filled(dice, 4 << 20),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_field_stays_small() {
        for seed in 0..20_000 {
            let mut draft = Draft::new(12);
            foreign_field(&mut draft, &mut Dice::new(seed));
            let bytes: usize = draft.fields.iter().map(|(name, value)| name.len() + value.bytes().len()).sum();
            assert!(bytes <= FRAME_BYTES, "seed {seed}: {} fields of {bytes} bytes", draft.fields.len());
        }
    }

    #[test]
    fn every_part_of_a_request_is_changed_by_and_by() {
        let mut dice = Dice::new(11);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3_000 {
            let mut draft = Draft::new(10).with("topic", "T").with("properties", "a\u{1}b\u{2}").with_body("x");
            mutate(&mut draft, &mut dice);
            seen.extend(draft.deeds);
            let mut draft = Draft::new(34).with_json(serde_json::json!({"a": ["x"]}));
            mutate(&mut draft, &mut dice);
            seen.extend(draft.deeds);
        }
        assert_eq!(seen.len(), 14, "{seen:?}");
    }
}
