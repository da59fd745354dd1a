//! Bad input costs its sender a clear error, and nobody else anything.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use bytes::BytesMut;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use support::{PATIENCE, Stage, registration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends raw bytes and reads to the end.
async fn until_closed(stage: &Stage, input: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(stage.nameserver.local_addr()).await.unwrap();
    stream.write_all(input).await.unwrap();
    let mut output = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut output)).await;
    // A reset is as good as an end.
    let _ = read.expect("the connection is closed");
    output
}

#[tokio::test]
async fn what_is_no_frame_closes_its_connection_only() {
    let stage = Stage::start().await;
    stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let mut header_beyond = vec![0, 0, 0, 0x14, 0, 0, 1, 0x90];
    header_beyond.extend([b'x'; 16]);
    let mut unknown_type = vec![0, 0, 0, 0x18, 7, 0, 0, 0x14];
    unknown_type.extend([b'x'; 20]);
    let huge = [1, 3, 0x66, 0x40, 0, 0, 0, 0x14, b'x', b'x'];
    let negative = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let tiny = [0, 0, 0, 1, 0, 0, 0, 0];
    let inputs: [&[u8]; 6] = [&header_beyond, &unknown_type, &huge, &negative, &tiny, b"GET / HTTP/1.1\r\n\r\n"];
    for input in inputs {
        assert_eq!(until_closed(&stage, input).await, b"", "{input:?}");
    }
    assert!(stage.route("T").await.is_some());
}

#[tokio::test]
async fn broken_registrations_are_answered_and_change_nothing() {
    let stage = Stage::start().await;
    let plain = || registration("h:1", 0, 1, &["T", "U"]);
    let mut compressed = plain();
    compressed.fields.insert("compressed", true);
    let mut negative = plain();
    negative.fields.insert("brokerId", -1);
    let mut nameless = plain();
    nameless.fields.insert("brokerName", "");
    let mut forging = plain();
    forging.fields.insert("brokerName", "a\n2026 INFO all is well");
    let mut no_number = plain();
    no_number.fields.insert("brokerId", "zero");
    let deep = "[".repeat(100_000);
    let bodies: [&str; 7] = [
        "{",
        "nonsense",
        "{\"topicConfigSerializeWrapper\":7}",
        "{\"topicConfigSerializeWrapper\":{\"topicConfigTable\":[1]}}",
        "{\"topicConfigSerializeWrapper\":{\"dataVersion\":{\"counter\":\"x\"}}}",
        "\u{0}\u{1}",
        &deep,
    ];
    let broken = bodies.map(|body| plain().with_body(body.to_owned()));
    let requests = broken.into_iter().chain([compressed, negative, nameless, forging, no_number]);
    for request in requests.chain([Frame::request(request::REGISTER_BROKER)]) {
        let shown = format!("{:?} {:?}", request.fields, request.body.slice(..request.body.len().min(80)));
        let answer = stage.call(request).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "{shown}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{shown}");
    }
    assert_eq!(stage.route("T").await, None);
    assert_eq!(stage.call(plain()).await.code, response::SUCCESS);
}

#[tokio::test]
async fn every_request_lives_without_its_fields_and_with_any_body() {
    let stage = Stage::start().await;
    let codes = [
        100, 101, 102, 103, 104, 105, 106, 205, 206, 216, 217, 219, 224, 304, 311, 312, 313, 318, 319, 322, 327, 901,
        904, 37, -1, 0, 40000,
    ];
    for code in codes {
        for body in ["", "{", "[1,2", "\u{fffd}", "a=b=c\\u00", "{\"queueDatas\":[{}]}"] {
            let answer = stage.call(Frame::request(code).with_body(body.to_owned())).await;
            assert!(answer.is_response(), "{code} {body:?}");
        }
    }
    assert_eq!(stage.call(Frame::request(40_000)).await.remark.as_deref(), Some(" request type 40000 not supported"));
}

#[tokio::test]
async fn oneway_requests_are_never_answered() {
    let stage = Stage::start().await;
    let mut stream = TcpStream::connect(stage.nameserver.local_addr()).await.unwrap();
    let mut out = BytesMut::new();
    for code in [
        request::END_TRANSACTION,
        request::GET_ROUTEINFO_BY_TOPIC,
        request::REGISTER_BROKER,
        request::PUT_KV_CONFIG,
        9999,
    ] {
        let mut oneway = Frame::request(code).with_field("topic", "T");
        oneway.set_oneway();
        oneway.encode(&mut out);
    }
    let mut asked = Frame::request(request::GET_BROKER_CLUSTER_INFO);
    asked.opaque = 77;
    asked.encode(&mut out);
    stream.write_all(&out).await.unwrap();
    let mut input = BytesMut::new();
    let decoder = escrowmq_common::frame::FrameDecoder::default();
    let answer = loop {
        if let Some(answer) = decoder.next(&mut input).unwrap() {
            break answer;
        }
        assert!(stream.read_buf(&mut input).await.unwrap() > 0);
    };
    assert_eq!(answer.opaque, 77, "only the last one is answered");
    assert!(input.is_empty());
}
