//! A broker in a folder of its own, a client that speaks frames, and a look at what was stored.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::SendMessageHeader;
use escrowmq_common::message::{Message, OffsetMessageId};
use escrowmq_common::remoting::{Connection, Remote, RemoteOptions, Service};
use parking_lot::Mutex;

use crate::config::BrokerConfig;
use crate::start::{RunningBroker, start};
use crate::terms::{HalfId, QueueOffset};
use crate::tests::support::{self, until};
pub(crate) use crate::tests::support::{PATIENCE, create_topic, settings, text};

/// A running broker and a client of it.
pub struct Stage {
    pub running: RunningBroker,
    pub address: String,
    pub remote: Remote,
    pub incoming: Arc<Incoming>,
    _folder: Option<tempfile::TempDir>,
}

/// Requests of the broker to the client, answered with this code.
#[derive(Default)]
pub struct Incoming {
    pub seen: Mutex<Vec<Frame>>,
    pub code: Mutex<i32>,
}

impl Service for Incoming {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        connection.reply(&Frame::response(&request, *self.code.lock()));
        self.seen.lock().push(request);
    }
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = settings(folder.path());
        change(&mut config);
        Self { _folder: Some(folder), ..Self::open(config).await }
    }

    pub async fn open(config: BrokerConfig) -> Self {
        let running = start(config).await.unwrap();
        let address = running.local_addr().to_string();
        let incoming = Arc::new(Incoming::default());
        let remote = Remote::new(RemoteOptions::default(), Arc::clone(&incoming) as Arc<dyn Service>);
        Self { running, address, remote, incoming, _folder: None }
    }

    pub async fn call(&self, request: Frame) -> Frame {
        self.remote.call(&self.address, request, PATIENCE).await.unwrap()
    }

    /// Calls, and checks that the answer is a success.
    pub async fn done(&self, request: Frame) -> Frame {
        let answer = self.call(request).await;
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
        answer
    }

    /// Makes this connection a producer of the group.
    pub async fn producer(&self, client: &str, group: &str) {
        let body = format!(r#"{{"clientID":"{client}","producerDataSet":[{{"groupName":"{group}"}}]}}"#);
        self.done(Frame::request(request::HEART_BEAT).with_body(body)).await;
    }

    /// All messages of a queue, as consumers would get them.
    pub fn stored(&self, topic: &str, queue: i32) -> Vec<Message> {
        let shard = &self.running.broker().shard;
        let Some(topic) = shard.topics().get(topic) else { return Vec::new() };
        let queue = topic.queue(queue).expect("a queue of the topic");
        let entries = shard.entries(queue, QueueOffset::ZERO, usize::MAX, usize::MAX, |_| true).unwrap().wanted;
        let unit = |entry| {
            let mut unit = BytesMut::new();
            shard.unit(queue, entry, &mut unit).unwrap();
            Message::decode(&unit.freeze()).unwrap()
        };
        entries.iter().map(unit).collect()
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        until(what, async || condition(self)).await;
    }
}

/// The header of a send, to be changed at will.
pub fn header<'a>(topic: &'a str, properties: &'a str) -> SendMessageHeader<'a> {
    SendMessageHeader { flag: 7, ..SendMessageHeader::new("PG", topic, 0, 1_700_000_000_000, properties) }
}

/// A send of one message to queue 0.
pub fn send(topic: &str, properties: &[(&str, &str)]) -> Frame {
    of(&header(topic, &text(properties)))
}

/// A send with this header.
pub fn of(header: &SendMessageHeader<'_>) -> Frame {
    Frame::request(request::SEND_MESSAGE_V2).with_header(header).with_body("a body")
}

pub fn field<'a>(answer: &'a Frame, name: &str) -> Option<&'a str> {
    answer.fields.get(name)
}

/// The log position that an answer's message id names.
pub fn position(answer: &Frame) -> i64 {
    field(answer, "msgId").unwrap().parse::<OffsetMessageId>().unwrap().position
}

/// The half that an answer is about.
pub fn half_id(answer: &Frame) -> HalfId {
    HalfId(position(answer).cast_unsigned())
}

/// `END_TRANSACTION` for the half that this answer is about: 8 commits, 12 rolls back.
pub fn end(half: &Frame, decision: i32) -> Frame {
    support::end(position(half), field(half, "queueOffset").unwrap().parse().unwrap(), decision)
}

pub fn bytes_of(hex: &str) -> Bytes {
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks_exact(2).map(byte).collect()
}
