//! Every codec takes back what it wrote, and takes any bytes without a panic.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use escrowmq_common::body::{
    ConsumerStatus, Form, HeartbeatData, MessageQueue, QueueTable, RegisterBrokerBody, ResetOffsetBody, TopicConfig,
    TopicRouteData, json,
};
use escrowmq_common::frame::{Frame, FrameDecoder, HeaderEncoding};
use escrowmq_common::message::pop::{self, MessageOffsets, PopReceipt, PopTopic};
use escrowmq_common::message::{
    CompressionType, Message, MessageUnit, OffsetMessageId, Properties, PropertyEditor, RecallHandle, SysFlag,
    TransactionType, UniqueIdParts, UnitBuilder, UnitPatch, batch, decode_units,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Characters that names and values of properties may have.
fn property_text() -> impl Strategy<Value = String> {
    "[^\u{1}\u{2}]{1,12}"
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

fn word() -> impl Strategy<Value = String> {
    "[A-Za-z0-9%_|-]{1,20}"
}

fn queue() -> impl Strategy<Value = MessageQueue> {
    // Names in bodies may be anything, so quotes and backslashes are tried as well.
    ("[ -~ü\\\\\"{}]{0,12}", word(), any::<i32>()).prop_map(|(topic, broker, id)| MessageQueue::new(topic, broker, id))
}

fn pop_topic() -> impl Strategy<Value = PopTopic> {
    prop_oneof![Just(PopTopic::Normal), Just(PopTopic::RetryV1), Just(PopTopic::RetryV2)]
}

#[derive(Clone, Debug)]
struct Parts {
    topic: String,
    numbers: (i32, i32, i32, i32),
    offsets: (i64, i64, i64),
    times: (i64, i64),
    hosts: (SocketAddr, SocketAddr),
    body: Vec<u8>,
    properties: String,
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        "[a-z%_]{0,255}",
        any::<(i32, i32, i32, i32)>(),
        any::<(i64, i64, i64)>(),
        any::<(i64, i64)>(),
        (address(), address()),
        vec(any::<u8>(), 0..300),
        ".{0,100}",
    )
        .prop_map(|(topic, numbers, offsets, times, hosts, body, properties)| Parts {
            topic,
            numbers,
            offsets,
            times,
            hosts,
            body,
            properties,
        })
}

fn write(parts: &Parts, out: &mut BytesMut) {
    UnitBuilder {
        topic: &parts.topic,
        queue_id: parts.numbers.0,
        flag: parts.numbers.1,
        queue_offset: parts.offsets.0,
        position: parts.offsets.1,
        sys_flag: SysFlag(parts.numbers.2),
        born_timestamp: parts.times.0,
        born_host: parts.hosts.0,
        store_timestamp: parts.times.1,
        store_host: parts.hosts.1,
        reconsume_times: parts.numbers.3,
        prepared_offset: parts.offsets.2,
        body: &parts.body,
        body_crc: None,
        properties: &[&parts.properties],
    }
    .write(out)
    .unwrap();
}

proptest! {
    #[test]
    fn units(all in vec(parts(), 1..4)) {
        let mut out = BytesMut::new();
        for parts in &all {
            write(parts, &mut out);
        }
        let read: Vec<Message> = decode_units(out.freeze()).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read.len(), all.len());
        for (message, parts) in read.iter().zip(&all) {
            prop_assert_eq!(&message.topic, &parts.topic);
            prop_assert_eq!(
                (message.queue_id, message.flag, message.reconsume_times),
                (parts.numbers.0, parts.numbers.1, parts.numbers.3)
            );
            prop_assert_eq!(message.sys_flag.without(48), SysFlag(parts.numbers.2).without(48));
            prop_assert_eq!(
                (message.queue_offset, message.position, message.prepared_offset),
                parts.offsets
            );
            prop_assert_eq!((message.born_timestamp, message.store_timestamp), parts.times);
            prop_assert_eq!((message.born_host, message.store_host), parts.hosts);
            prop_assert_eq!(&message.body, &parts.body);
            prop_assert_eq!(&message.property_text, &parts.properties);
        }
    }

    #[test]
    fn a_patched_unit_is_the_unit_written_with_these_fields(
        parts in parts(), queue_id: i32, offsets: (i64, i64, i64), store_timestamp: i64, decision in 0..4,
    ) {
        let mut out = BytesMut::new();
        write(&parts, &mut out);
        let transaction = TransactionType::from_bits(decision << 2).unwrap();
        let (queue_offset, position, prepared_offset) = offsets;
        UnitPatch { queue_id, queue_offset, position, transaction, store_timestamp, prepared_offset }
            .apply(&mut out)
            .unwrap();
        let expected = Parts {
            numbers: (
                queue_id,
                parts.numbers.1,
                SysFlag(parts.numbers.2).with_transaction(transaction).0,
                parts.numbers.3,
            ),
            offsets,
            times: (parts.times.0, store_timestamp),
            ..parts
        };
        let mut again = BytesMut::new();
        write(&expected, &mut again);
        prop_assert_eq!(out, again);
    }

    #[test]
    fn a_cut_or_damaged_unit_is_an_error_or_another_unit(
        parts in parts(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut out = BytesMut::new();
        write(&parts, &mut out);
        prop_assert!(MessageUnit::decode(&out[..cut.index(out.len())]).is_err());
        let at = at.index(out.len());
        out[at] = byte;
        if let Ok(unit) = MessageUnit::decode(&out) {
            prop_assert!(unit.size() <= out.len());
        }
    }

    #[test]
    fn properties(map in btree_map(property_text(), property_text(), 0..8)) {
        let mut editor = PropertyEditor::default();
        for (name, value) in &map {
            editor.set(name, value).unwrap();
        }
        let text = editor.finish();
        let read: BTreeMap<String, String> = Properties::new(&text)
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        prop_assert_eq!(&read, &map);
        prop_assert_eq!(PropertyEditor::new(&text).finish(), text);
    }

    /// The search from the end agrees with reading everything, whatever the text.
    #[test]
    fn a_property_found_is_the_last_one(text in "[ab\u{1}\u{2}]{0,40}", name in "[ab]{1,2}") {
        let read = Properties::new(&text);
        let last = read.iter().filter(|(other, _)| *other == name).last();
        prop_assert_eq!(read.get(&name), last.map(|(_, value)| value));
        let editor = PropertyEditor::new(&text);
        prop_assert_eq!(editor.get(&name), read.get(&name));
    }

    #[test]
    fn batches(all in vec((any::<i32>(), vec(any::<u8>(), 0..50), ".{0,20}"), 0..6)) {
        let mut out = BytesMut::new();
        for (flag, body, properties) in &all {
            batch::BatchMessage { flag: *flag, body, properties }.write(&mut out).unwrap();
        }
        let read: Vec<_> = batch::messages(&out)
            .map(|message| message.map(|one| (one.flag, one.body.to_vec(), one.properties.to_owned())))
            .collect::<Result<_, _>>()
            .unwrap();
        prop_assert_eq!(read, all);
    }

    #[test]
    fn ids(host in address(), position: i64, rubbish in ".{0,60}") {
        let id = OffsetMessageId { host, position };
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let _ = rubbish.parse::<OffsetMessageId>();
        let _ = rubbish.parse::<UniqueIdParts>();
    }

    #[test]
    fn pop_texts(
        numbers: (i64, i64, i64, i32, i32, i64), topic in pop_topic(), broker in word(),
        offsets in vec((pop_topic(), any::<i32>(), vec(any::<i64>(), 1..5)), 0..4),
        bits in prop::collection::btree_set(0_usize..500, 0..20), rubbish in "[0-9 ,;%qo-]{0,40}",
    ) {
        let receipt = PopReceipt {
            start_offset: numbers.0,
            pop_time: numbers.1,
            invisible_time: numbers.2,
            revive_queue_id: numbers.3,
            topic,
            broker,
            queue_id: numbers.4,
            offset: numbers.5,
        };
        prop_assert_eq!(receipt.to_string().parse(), Ok(receipt));
        let offsets: Vec<_> = offsets
            .into_iter()
            .map(|(topic, queue_id, offsets)| MessageOffsets { topic, queue_id, offsets })
            .collect();
        let text = pop::write_message_offsets(&offsets);
        prop_assert_eq!(pop::parse_message_offsets(&text), Ok(offsets));
        let bits: Vec<_> = bits.into_iter().collect();
        prop_assert_eq!(pop::parse_ack_bits(&pop::write_ack_bits(&bits).unwrap()), Ok(bits));
        let _ = rubbish.parse::<PopReceipt>();
        let _ = pop::parse_start_offsets(&rubbish);
        let _ = pop::parse_message_offsets(&rubbish);
        let _ = pop::parse_order_counts(&rubbish);
        let _ = pop::parse_ack_bits(&rubbish);
    }

    #[test]
    fn recall_handles(topic in word(), broker in word(), deliver_timestamp: i64, unique_key in word()) {
        let handle = RecallHandle { topic, broker, deliver_timestamp, unique_key };
        prop_assert_eq!(handle.to_string().parse(), Ok(handle));
    }

    #[test]
    fn compressed_bodies(body in vec(0_u8..4, 0..5000), level in 0_u32..12, damage: (prop::sample::Index, u8)) {
        for kind in [CompressionType::Lz4, CompressionType::Zstd, CompressionType::Zlib] {
            let mut compressed = kind.compress(&body, level).unwrap();
            prop_assert_eq!(kind.decompress(&compressed, body.len()).unwrap(), &body);
            let at = damage.0.index(compressed.len());
            compressed[at] ^= damage.1;
            if let Ok(plain) = kind.decompress(&compressed, 6000) {
                prop_assert!(plain.len() <= 6000);
            }
        }
    }

    #[test]
    fn frames(
        code: i16, opaque: i32, is_binary: bool, remark in prop::option::of(".{1,30}"),
        fields in btree_map("[ -~ü标\u{0}-\u{1f}]{1,10}", ".{1,20}", 0..6), body in vec(any::<u8>(), 0..60),
    ) {
        let mut frame = Frame::request(i32::from(code)).with_body(body);
        frame.opaque = opaque;
        frame.encoding = if is_binary { HeaderEncoding::Binary } else { HeaderEncoding::Json };
        frame.remark = remark;
        for (key, value) in &fields {
            frame = frame.with_field(key, value);
        }
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let read = FrameDecoder::default().next(&mut out).unwrap().unwrap();
        prop_assert!(out.is_empty());
        // Codes that a binary header has to cut are put right by the reader.
        if !(3442..=3543).contains(&code) {
            prop_assert_eq!(read.code, frame.code);
        }
        prop_assert_eq!((read.opaque, read.flag, &read.remark), (opaque, frame.flag, &frame.remark));
        prop_assert_eq!(&read.body, &frame.body);
        let read: BTreeMap<String, String> =
            read.fields.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        prop_assert_eq!(read, fields);
    }

    #[test]
    fn queue_tables(entries in btree_map(queue(), any::<i64>(), 0..5)) {
        let body = ResetOffsetBody { offset_table: QueueTable(entries) };
        for written in [
            json::to_bytes(&body, Form::Loose),
            json::to_bytes(&body, Form::Strict),
            body.encode_as_list(),
        ] {
            prop_assert_eq!(&json::from_slice::<ResetOffsetBody>(&written).unwrap(), &body);
        }
    }

    #[test]
    fn registrations(
        topics in btree_map(word(), (any::<i32>(), any::<i32>(), 0..16_i32, btree_map(".{0,8}", ".{0,8}", 0..3)), 0..8),
        counter: i64,
    ) {
        let mut body = RegisterBrokerBody::default();
        let table = &mut body.topic_config_serialize_wrapper;
        table.data_version.counter = counter;
        for (name, (read, write, perm, attributes)) in topics {
            let config = TopicConfig {
                topic_name: name.clone(),
                read_queue_nums: read,
                write_queue_nums: write,
                perm,
                attributes,
                ..TopicConfig::default()
            };
            table.topic_config_table.insert(name, config);
        }
        prop_assert_eq!(&RegisterBrokerBody::decode(&body.encode(), false).unwrap(), &body);
        prop_assert_eq!(&RegisterBrokerBody::decode(&body.encode_compressed(), true).unwrap(), &body);
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Frame::decode(bytes.clone());
        let _ = FrameDecoder::default().next(&mut BytesMut::from(&bytes[..]));
        let _ = decode_units(bytes.clone()).count();
        let _ = batch::messages(&bytes).count();
        let _ = RegisterBrokerBody::decode(&bytes, true);
        let _ = UnitPatch::default().apply(&mut bytes.to_vec());
    }

    /// Random brackets, quotes and numbers reach deeper into the reader than random bytes.
    #[test]
    fn any_text_that_looks_like_json_is_taken(text in "[{}\\[\\]\",:0a\\\\ -]{0,60}") {
        let text = text.as_bytes();
        let _ = json::from_slice::<serde_json::Value>(text);
        let _ = json::from_slice::<HeartbeatData>(text);
        let _ = json::from_slice::<TopicRouteData>(text);
        let _ = json::from_slice::<ConsumerStatus>(text);
        // Our parser accepts everything that a strict one accepts: it only adds to the language.
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) {
            prop_assert_eq!(
                json::from_slice::<serde_json::Value>(text).unwrap(),
                without_nulls(value)
            );
        }
    }
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
