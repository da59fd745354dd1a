//! Values computed with the official classes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use escrowmq_common::frame::{Frame, FrameDecoder, HeaderEncoding};
use escrowmq_common::message::pop::{
    PopReceipt, PopTopic, parse_ack_bits, parse_message_offsets, parse_order_counts, parse_start_offsets,
    write_ack_bits, write_message_offsets, write_order_counts, write_start_offsets,
};
use escrowmq_common::message::{
    CompressionType, Message, MessageUnit, OffsetMessageId, Properties, PropertyEditor, RecallHandle, SysFlag,
    UniqueIdParts, UnitBuilder, batch, body_crc, java_hash,
};
use serde_json::Value;

use super::vectors::{codec, hex_field, text};

fn map_of(value: &Value) -> BTreeMap<&str, &str> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

#[test]
fn string_hashes() {
    for vector in codec("java_string_hash") {
        assert_eq!(java_hash(text(&vector, "input")), vector["hash_i32"], "{vector}");
    }
}

#[test]
fn body_checksums() {
    for vector in codec("body_crc") {
        assert_eq!(body_crc(&hex_field(&vector, "input_hex")), vector["crc32_masked"], "{vector}");
    }
}

#[test]
fn offset_message_ids() {
    let expected: [(&str, i64); 2] = [("192.0.2.1:10911", 123_456_789), ("[2001:db8::1]:10911", 1)];
    let vectors = codec("offset_msg_id");
    assert_eq!(vectors.len(), expected.len());
    for (vector, (host, position)) in vectors.iter().zip(expected) {
        let id = OffsetMessageId { host: host.parse().unwrap(), position };
        assert_eq!(id.to_string(), text(vector, "id"));
        assert_eq!(text(vector, "id").parse(), Ok(id));
    }
}

#[test]
fn property_strings() {
    let kinds = codec("properties").into_iter().chain(codec("properties_parse"));
    for vector in kinds {
        let bytes = hex_field(&vector, "hex");
        let read = Properties::new(str::from_utf8(&bytes).unwrap());
        let expected = map_of(&vector["map"]);
        // Collecting into a map lets the last of equal names win, as readers do.
        assert_eq!(read.iter().collect::<BTreeMap<_, _>>(), expected, "{vector}");
        for (name, value) in expected {
            assert_eq!(read.get(name), Some(value), "{vector}");
        }
    }
    for vector in codec("properties") {
        let bytes = hex_field(&vector, "hex");
        let editor = PropertyEditor::new(str::from_utf8(&bytes).unwrap());
        assert_eq!(editor.finish().as_bytes(), bytes);
    }
}

/// `host port`, as the vectors write addresses.
fn address(value: &Value) -> SocketAddr {
    let (host, port) = value.as_str().unwrap().split_once(' ').unwrap();
    SocketAddr::new(host.parse().unwrap(), port.parse().unwrap())
}

#[test]
fn stored_messages() {
    for vector in codec("stored_message") {
        let bytes = hex_field(&vector, "hex");
        let expected = &vector["decoded"];
        let note = text(&vector, "note");
        let mut message = Message::decode(&bytes).unwrap_or_else(|error| panic!("{note}: {error}"));
        assert_eq!(message.store_size, bytes.len(), "{note}");
        assert_eq!(message.topic, expected["topic"], "{note}");
        assert_eq!(message.queue_id, expected["queueId"], "{note}");
        assert_eq!(message.queue_offset, expected["queueOffset"], "{note}");
        assert_eq!(message.position, expected["commitLogOffset"], "{note}");
        assert_eq!(message.flag, expected["flag"], "{note}");
        assert_eq!(message.body_crc, expected["bodyCrc"], "{note}");
        assert_eq!(message.born_timestamp, expected["bornTimestamp"], "{note}");
        assert_eq!(message.born_host, address(&expected["bornHost"]), "{note}");
        assert_eq!(message.store_timestamp, expected["storeTimestamp"], "{note}");
        assert_eq!(message.store_host, address(&expected["storeHost"]), "{note}");
        assert_eq!(message.reconsume_times, expected["reconsumeTimes"], "{note}");
        assert_eq!(message.prepared_offset, expected["preparedTransactionOffset"], "{note}");
        assert_eq!(message.offset_message_id().to_string(), expected["msgId"], "{note}");
        let read: BTreeMap<_, _> = message.properties().iter().collect();
        assert_eq!(read, map_of(&expected["properties"]), "{note}");
        MessageUnit::decode(&bytes).unwrap().check_crc().unwrap();
        // The official reader decompresses, clears the compressed bit and keeps the type bits.
        message.decompress(4096).unwrap();
        assert_eq!(message.sys_flag.0, expected["sysFlag"], "{note}");
        assert_eq!(message.body, hex_field(expected, "bodyAfterDecompression_hex"), "{note}");
    }
}

#[test]
fn stored_messages_are_written_byte_for_byte() {
    for vector in codec("stored_message") {
        let bytes = hex_field(&vector, "hex");
        let unit = MessageUnit::decode(&bytes).unwrap();
        let properties = unit.properties_text();
        let (first, second) = properties.split_at(properties.len() / 2);
        let pieces = [first, second];
        let mut builder = UnitBuilder::rewrite(&unit, unit.topic(), &pieces);
        builder.body_crc = None;
        let mut out = BytesMut::new();
        assert_eq!(builder.write(&mut out), Ok(bytes.len()));
        assert_eq!(out, bytes, "{}", text(&vector, "note"));
    }
}

#[test]
fn compressed_bodies() {
    for vector in codec("compression") {
        let flag = SysFlag(vector["sysFlag"].as_i64().unwrap() as i32);
        let kind = flag.compression().unwrap().unwrap();
        let name = format!("{kind:?}").to_uppercase();
        assert_eq!(name, text(&vector, "type"));
        assert_eq!(SysFlag::default().with_compression(kind), flag);
        let plain = hex_field(&vector, "plain_hex");
        let compressed = hex_field(&vector, "compressed_hex");
        assert_eq!(kind.decompress(&compressed, plain.len()).unwrap(), plain);
        assert!(kind.decompress(&compressed, plain.len() - 1).is_err());
        let again = kind.compress(&plain, 5).unwrap();
        assert_eq!(kind.decompress(&again, plain.len()).unwrap(), plain);
    }
    // Our output starts as the Java readers expect it.
    assert_eq!(CompressionType::Zlib.compress(b"x", 5).unwrap()[0], 0x78);
    assert_eq!(CompressionType::Lz4.compress(b"x", 5).unwrap()[..4], [0x04, 0x22, 0x4d, 0x18]);
    assert_eq!(CompressionType::Zstd.compress(b"x", 5).unwrap()[..4], [0x28, 0xb5, 0x2f, 0xfd]);
}

#[test]
fn batch_bodies() {
    for vector in codec("batch_body") {
        let body = hex_field(&vector, "hex");
        let messages: Result<Vec<_>, _> = batch::messages(&body).collect();
        let messages = messages.unwrap();
        assert_eq!(messages.len(), 3);
        let mut out = BytesMut::new();
        for (number, message) in messages.iter().enumerate() {
            assert_eq!(message.flag, number as i32);
            assert_eq!(message.body, format!("b{number}").as_bytes());
            let properties = Properties::new(message.properties);
            assert_eq!(properties.get("KEYS"), Some(format!("key{number}").as_str()));
            assert_eq!(properties.get("n"), Some(number.to_string().as_str()));
            message.write(&mut out).unwrap();
        }
        assert_eq!(out, body);
    }
}

#[test]
fn pop_texts() {
    for vector in codec("pop_check_point") {
        let receipt: PopReceipt = text(&vector, "text").parse().unwrap();
        assert_eq!(receipt.to_string(), text(&vector, "text"));
        assert_eq!((receipt.start_offset, receipt.offset), (100, 105));
        assert_eq!(receipt.broker, "broker-a");
        if let Some(topic) = vector["topic"].as_str() {
            assert_eq!(receipt.topic.name("TopicTest", "CG"), topic);
        } else {
            assert_eq!(receipt.topic, PopTopic::Normal);
        }
    }
    for vector in codec("pop_start_offset_info") {
        let items = parse_start_offsets(text(&vector, "text")).unwrap();
        assert_eq!((items[0].offset, items[1].topic), (100, PopTopic::RetryV1));
        assert_eq!(write_start_offsets(&items), text(&vector, "text"));
    }
    for vector in codec("pop_msg_offset_info") {
        let items = parse_message_offsets(text(&vector, "text")).unwrap();
        assert_eq!(items[0].offsets, [100, 101, 103]);
        assert_eq!(write_message_offsets(&items), text(&vector, "text"));
    }
    for vector in codec("pop_order_count_info") {
        let items = parse_order_counts(text(&vector, "text")).unwrap();
        assert_eq!((items[0].count, items[1].offset, items[1].count), (1, Some(100), 3));
        assert_eq!(write_order_counts(&items), text(&vector, "text"));
    }
    for vector in codec("batch_ack_bitset") {
        assert_eq!(parse_ack_bits(text(&vector, "base64")).unwrap(), [0, 3, 9]);
        assert_eq!(write_ack_bits(&[0, 3, 9]).unwrap(), text(&vector, "base64"));
    }
}

#[test]
fn recall_handles() {
    for vector in codec("recall_handle") {
        let handle: RecallHandle = text(&vector, "handle").parse().unwrap();
        assert_eq!(handle.topic, vector["topic"]);
        assert_eq!(handle.broker, vector["broker"]);
        assert_eq!(handle.deliver_timestamp, vector["timestamp"]);
        assert_eq!(handle.unique_key, vector["uniq"]);
        assert_eq!(handle.to_string(), text(&vector, "handle"));
    }
}

#[test]
fn unique_keys() {
    for vector in codec("uniq_key") {
        let parts: UniqueIdParts = text(&vector, "id").parse().unwrap();
        assert_eq!(parts.ip, text(&vector, "ip").parse::<std::net::IpAddr>().unwrap());
        assert_eq!(parts.counter, 0);
    }
}

/// The ordinals that the code compares with.
#[test]
fn version_ordinals() {
    let ordinals: BTreeMap<String, i64> = codec("version")
        .iter()
        .map(|vector| (text(vector, "name").to_owned(), vector["ordinal"].as_i64().unwrap()))
        .collect();
    assert_eq!(ordinals["V5_3_3"], i64::from(escrowmq_common::frame::WIRE_VERSION));
    assert_eq!(ordinals["V4_9_4"], 401);
    assert_eq!(ordinals["V5_0_0"], 413);
}

#[test]
fn single_frames() {
    let frames: Vec<Frame> = codec("frame")
        .iter()
        .map(|vector| {
            let bytes = hex_field(vector, "hex");
            let frame = FrameDecoder::default().next(&mut BytesMut::from(bytes.clone()));
            let frame = frame.unwrap().unwrap();
            if text(vector, "encoding") == "ROCKETMQ" {
                let mut out = BytesMut::new();
                frame.encode(&mut out);
                assert_eq!(out, bytes, "{vector}");
                assert_eq!(frame.encoding, HeaderEncoding::Binary);
            }
            frame
        })
        .collect();
    for frame in &frames {
        assert_eq!((frame.code, frame.opaque, frame.flag, frame.version), (17, 258, 1, 479));
        assert_eq!(frame.body, Bytes::from_static(b"body"));
    }
    assert_eq!(frames[0].remark.as_deref(), Some("no route"));
    assert_eq!(frames[0].fields.get("u"), Some("ü"));
    assert_eq!((frames[1].remark.as_deref(), frames[1].fields.len()), (None, 0));
    assert_eq!(frames[2].fields.get("u"), Some("ü"));
}
