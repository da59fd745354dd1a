//! Helpers for all tests of a whole broker: settings, requests by hand, and waiting.

use std::path::Path;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::CreateTopicHeader;
use escrowmq_common::message::{Message, decode_units, properties};
use escrowmq_common::ports::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::BrokerConfig;

/// Longest wait for something that must happen; long enough for a busy machine whose disk stands still for a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Settings of a broker for a test, in this folder.
pub(crate) fn settings(folder: &Path) -> BrokerConfig {
    BrokerConfig {
        broker_name: "broker-a".to_owned(),
        broker_ip: [127, 0, 0, 1].into(),
        bind_address: "127.0.0.1".to_owned(),
        listen_port: 0,
        store_path: Some(folder.to_owned()),
        segment_bytes: 4 << 20,
        ..BrokerConfig::default()
    }
}

/// A property string.
pub(crate) fn text(properties: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in properties {
        properties::append(&mut text, name, value);
    }
    text
}

pub(crate) fn create_topic(topic: &str, queues: i32) -> Frame {
    Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&CreateTopicHeader::new(topic, queues))
}

/// `END_TRANSACTION` by the group `PG`: 8 commits, 12 rolls back.
pub(crate) fn end(position: i64, counter: i64, decision: i32) -> Frame {
    Frame::request(request::END_TRANSACTION)
        .with_field("producerGroup", "PG")
        .with_field("tranStateTableOffset", counter)
        .with_field("commitLogOffset", position)
        .with_field("commitOrRollback", decision)
}

/// The messages of an answer.
pub(crate) fn messages(answer: &Frame) -> Vec<Message> {
    decode_units(answer.body.clone()).collect::<Result<_, _>>().unwrap()
}

/// The seats `n0` to `n2` of a group in this process, as `dLegerPeers` names them.
pub(crate) fn three_seats() -> String {
    [0, 1, 2].map(|number| format!("n{number}-127.0.0.1:{}", free_port().unwrap())).join(";")
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = clock::monotonic() + PATIENCE;
    while !holds().await {
        assert!(clock::monotonic() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The status and the body; `None` if nobody listens.
pub(crate) async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
