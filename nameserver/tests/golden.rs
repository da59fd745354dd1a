//! Recorded requests of RocketMQ 5.3.3 brokers, clients and tools, byte for byte, against what its nameserver
//! answered: the same code, remark and fields, and bodies that say the same.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use escrowmq_common::frame::{Frame, FrameDecoder};
use serde::Deserialize;
use support::{PATIENCE, Stage, text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Deserialize)]
struct Pair {
    name: String,
    request: String,
    /// Missing for requests that are not answered.
    response: Option<String>,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

fn frame(hex: &str) -> Frame {
    Frame::decode(Bytes::from(bytes(hex)).slice(4..)).expect("a recorded frame")
}

/// A raw connection: the recorded bytes go out as they are.
struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    async fn ask(&mut self, request: &[u8]) -> Frame {
        self.stream.write_all(request).await.unwrap();
        loop {
            if let Some(frame) = FrameDecoder::default().next(&mut self.buffer).unwrap() {
                return frame;
            }
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the connection was closed instead of an answer");
        }
    }
}

fn fields(frame: &Frame) -> BTreeMap<String, String> {
    let owned = frame.fields.iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    owned.collect()
}

/// Bodies are compared to the byte, except that lists of topics have no order.
fn comparable(body: &Bytes) -> BTreeSet<String> {
    let body = text(body);
    let list = body.strip_prefix("{\"topicList\":[").and_then(|b| b.strip_suffix("]}"));
    list.map_or_else(|| BTreeSet::from([body.clone()]), |list| list.split(',').map(str::to_owned).collect())
}

#[tokio::test]
async fn recorded_requests_are_answered_as_recorded() {
    let stage = Stage::start().await;
    let stream = TcpStream::connect(stage.nameserver.local_addr()).await.unwrap();
    let mut wire = Wire { stream, buffer: BytesMut::new() };
    let mut answered = 0;
    for line in include_str!("golden.jsonl").lines() {
        let pair: Pair = serde_json::from_str(line).unwrap();
        let request = bytes(&pair.request);
        let Some(expected) = pair.response else {
            // An answer to this would be taken for the next request's, whose opaque or code then differs.
            wire.stream.write_all(&request).await.unwrap();
            continue;
        };
        let expected = frame(&expected);
        let answer = tokio::time::timeout(PATIENCE, wire.ask(&request)).await.unwrap();
        let name = format!("{} {:?}", pair.name, fields(&frame(&pair.request)));
        assert_eq!(answer.code, expected.code, "{name}: {:?}", answer.remark);
        assert_eq!(answer.opaque, expected.opaque, "{name}");
        assert!(answer.is_response(), "{name}");
        assert_eq!(answer.remark, expected.remark, "{name}");
        assert_eq!(fields(&answer), fields(&expected), "{name}");
        assert_eq!(comparable(&answer.body), comparable(&expected.body), "{name}");
        answered += 1;
    }
    assert_eq!(answered, 37);
}
