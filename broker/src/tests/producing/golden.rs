//! Recorded requests of clients and tools of RocketMQ 5.3.3, byte for byte, against what its broker answered: the same
//! code, and at least the same fields.

use std::collections::BTreeSet;

use bytes::BytesMut;
use escrowmq_common::frame::{Frame, FrameDecoder};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Stage, bytes_of, create_topic};

#[derive(Deserialize)]
struct Pair {
    name: String,
    request: String,
    response: String,
}

fn names(frame: &Frame) -> BTreeSet<String> {
    frame.fields.iter().map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test]
async fn recorded_requests_get_the_recorded_codes_and_fields() {
    let stage = Stage::new().await;
    for topic in ["TopicBasic", "TopicTx", "TopicBasicBin", "TopicTxBin"] {
        stage.done(create_topic(topic, 4)).await;
    }
    let mut stream = TcpStream::connect(&stage.address).await.unwrap();
    let mut buffer = BytesMut::new();
    let mut wrong = Vec::new();
    for line in include_str!("golden.jsonl").lines() {
        let pair: Pair = serde_json::from_str(line).unwrap();
        let recorded = Frame::decode(bytes_of(&pair.response).slice(4..)).unwrap();
        stream.write_all(&bytes_of(&pair.request)).await.unwrap();
        let answer = loop {
            if let Some(frame) = FrameDecoder::default().next(&mut buffer).unwrap() {
                break frame;
            }
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "{}: the connection was closed", pair.name);
        };
        assert_eq!(answer.opaque, recorded.opaque, "{}", pair.name);
        let missing: Vec<_> = names(&recorded).difference(&names(&answer)).cloned().collect();
        if answer.code != recorded.code || !missing.is_empty() {
            wrong.push(format!(
                "{}: code {} instead of {}, without {missing:?}: {:?}",
                pair.name, answer.code, recorded.code, answer.remark
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    stage.running.stop().await.unwrap();
}
