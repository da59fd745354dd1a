//! Recorded frames decode to what was recorded, and encode to frames that say the same.

use bytes::BytesMut;
use escrowmq_common::frame::{Frame, FrameDecoder, HeaderEncoding};
use escrowmq_common::message::decode_units;
use serde_json::Value;

use super::vectors::{self, Golden};

fn decode(golden: &Golden) -> Frame {
    let mut buffer = BytesMut::from(golden.bytes());
    let frame = FrameDecoder::default()
        .next(&mut buffer)
        .unwrap_or_else(|error| panic!("{}: {error}", golden.place))
        .unwrap_or_else(|| panic!("{}: not whole", golden.place));
    assert!(buffer.is_empty(), "{}", golden.place);
    frame
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Fields sorted by key, for comparing without order.
fn sorted_fields(frame: &Frame) -> Vec<(String, String)> {
    let mut fields: Vec<_> = frame.fields.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    fields.sort();
    fields
}

/// A binary header has 16 bits for the code, which cuts off those above 32767; the decoder puts them right again.
fn code_meant(golden: &Golden) -> i32 {
    match golden.code {
        code @ (3442..=3448 | 3543) if golden.header_encoding != "JSON" => code - 3442 + 200_050,
        code => code,
    }
}

#[test]
fn every_frame_decodes_to_what_was_recorded() {
    for golden in vectors::frames() {
        let place = &golden.place;
        let frame = decode(&golden);
        let number = |field: &str| golden.decoded[field].as_i64().map(|value| value as i32);
        assert_eq!(frame.code, code_meant(&golden), "{place}");
        assert_eq!(frame.body.len(), golden.body_len, "{place}");
        assert_eq!(Some(frame.opaque), number("opaque"), "{place}");
        assert_eq!(Some(frame.version), number("version"), "{place}");
        assert_eq!(Some(frame.flag), number("flag"), "{place}");
        assert_eq!(frame.is_response(), golden.is_response(), "{place}");
        assert_eq!(frame.is_oneway(), golden.kind == "oneway", "{place}");
        let encoding = if golden.header_encoding == "JSON" { HeaderEncoding::Json } else { HeaderEncoding::Binary };
        assert_eq!(frame.encoding, encoding, "{place}");
        assert_eq!(frame.remark.as_deref(), golden.decoded["remark"].as_str(), "{place}");
        match &golden.decoded["language"] {
            // A code without a name, tried on purpose.
            Value::Number(code) => assert_eq!(Some(u64::from(frame.language.code())), code.as_u64(), "{place}"),
            // A name that nobody knows reads as the one for others.
            name if golden.is_hand_made() && frame.language.name() == "OTHER" => {
                assert_ne!(name, "JAVA", "{place}");
            }
            name => assert_eq!(frame.language.name(), name, "{place}"),
        }
        let mut expected: Vec<_> = match golden.decoded["extFields"].as_object() {
            Some(fields) => fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
            None => Vec::new(),
        };
        expected.sort();
        assert_eq!(sorted_fields(&frame), expected, "{place}");
    }
}

#[test]
fn binary_frames_encode_to_the_same_bytes() {
    let mut compared = 0;
    for golden in vectors::frames() {
        if golden.header_encoding == "JSON" {
            continue;
        }
        let mut out = BytesMut::new();
        decode(&golden).encode(&mut out);
        assert_eq!(out, golden.bytes(), "{}", golden.place);
        compared += 1;
    }
    assert!(compared > 50, "only {compared} binary frames");
}

#[test]
fn json_frames_encode_to_frames_that_say_the_same() {
    for golden in vectors::frames() {
        let frame = decode(&golden);
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let again = FrameDecoder::default().next(&mut out).unwrap().unwrap();
        let place = &golden.place;
        assert_eq!(again.code, frame.code, "{place}");
        assert_eq!(again.opaque, frame.opaque, "{place}");
        assert_eq!(again.version, frame.version, "{place}");
        assert_eq!(again.flag, frame.flag, "{place}");
        assert_eq!(again.language, frame.language, "{place}");
        assert_eq!(again.remark, frame.remark, "{place}");
        assert_eq!(again.encoding, frame.encoding, "{place}");
        assert_eq!(again.body, frame.body, "{place}");
        assert_eq!(sorted_fields(&again), sorted_fields(&frame), "{place}");
    }
}

/// JSON headers of the Java side have one form: keys sorted, no blanks. Ours is the same except for the order of the
/// extension fields, so both have the same length.
#[test]
fn json_headers_are_as_compact_as_the_recorded_ones() {
    for golden in vectors::frames() {
        if golden.header_encoding != "JSON" || golden.is_hand_made() {
            continue;
        }
        let mut out = BytesMut::new();
        decode(&golden).encode(&mut out);
        assert!(out.len() <= golden.bytes().len() + 16, "{}: {out:?}", golden.place);
    }
}

#[test]
fn message_units_in_bodies_read_as_recorded() {
    let mut units = 0;
    for golden in vectors::frames() {
        let Some(expected) = &golden.decoded_messages else {
            continue;
        };
        let place = &golden.place;
        let messages: Result<Vec<_>, _> = decode_units(decode(&golden).body).collect();
        let messages = messages.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(messages.len(), expected.len(), "{place}");
        for (message, expected) in messages.iter().zip(expected) {
            assert_eq!(message.topic, expected["topic"], "{place}");
            assert_eq!(message.queue_id, expected["queueId"], "{place}");
            assert_eq!(message.queue_offset, expected["queueOffset"], "{place}");
            assert_eq!(message.position, expected["commitLogOffset"], "{place}");
            assert_eq!(message.sys_flag.0, expected["sysFlag"], "{place}");
            assert_eq!(message.flag, expected["flag"], "{place}");
            assert_eq!(message.reconsume_times, expected["reconsumeTimes"], "{place}");
            assert_eq!(message.prepared_offset, expected["preparedTransactionOffset"], "{place}");
            assert_eq!(message.property_text, expected["properties"], "{place}");
            assert_eq!(escrowmq_common::message::body_crc(&message.body), message.body_crc, "{place}");
            units += 1;
        }
    }
    assert!(units > 60, "only {units} units");
}
