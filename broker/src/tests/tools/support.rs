//! A broker in a folder of its own, and a client that speaks frames.

use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::body::json::from_slice;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, Language};
use escrowmq_common::header::SendMessageHeader;
use escrowmq_common::message::OffsetMessageId;
use escrowmq_common::remoting::{Connection, Remote, RemoteOptions, Service};
use parking_lot::Mutex;

use crate::config::BrokerConfig;
use crate::start::{RunningBroker, start};
use crate::tests::support::{PATIENCE, end, settings, text};

/// A running broker and a connection to it.
pub(crate) struct Bench {
    pub broker: RunningBroker,
    pub address: String,
    remote: Remote,
    /// The broker's requests to this client, and the answers to them.
    pub incoming: Arc<Incoming>,
    _folder: tempfile::TempDir,
}

/// Answers requests of the broker as a consumer would.
#[derive(Default)]
pub(crate) struct Incoming {
    pub seen: Mutex<Vec<Frame>>,
    /// The body of every answer; none is given without.
    pub answer: Mutex<Option<Bytes>>,
}

impl Service for Incoming {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        if let Some(body) = self.answer.lock().clone() {
            connection.reply(&Frame::response(&request, response::SUCCESS).with_body(body));
        }
        self.seen.lock().push(request);
    }
}

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = settings(folder.path());
        change(&mut config);
        let broker = start(config).await.unwrap();
        let incoming = Arc::new(Incoming::default());
        let options = RemoteOptions { language: Language::JAVA, ..RemoteOptions::default() };
        let remote = Remote::new(options, Arc::clone(&incoming) as Arc<dyn Service>);
        let address = broker.local_addr().to_string();
        Self { broker, address, remote, incoming, _folder: folder }
    }

    pub(crate) async fn call(&self, request: Frame) -> Frame {
        self.remote.call(&self.address, request, PATIENCE).await.unwrap()
    }

    /// Sends a request that nobody waits for.
    pub(crate) async fn oneway(&self, request: Frame) {
        self.remote.oneway(&self.address, request).await.unwrap();
    }

    /// Calls, and checks that the answer is a success.
    pub(crate) async fn done(&self, request: Frame) -> Frame {
        let code = request.code;
        let answer = self.call(request).await;
        assert_eq!(answer.code, response::SUCCESS, "request {code}: {:?}", answer.remark);
        answer
    }

    /// A JSON body as a value, whatever its keys look like.
    pub(crate) async fn json(&self, request: Frame) -> serde_json::Value {
        from_slice(&self.done(request).await.body).unwrap()
    }

    /// Sends a message and says where it is.
    pub(crate) async fn send(&self, topic: &str, properties: &[(&str, &str)]) -> Sent {
        Sent::of(&self.done(send_request(topic, properties)).await)
    }

    /// Decides a half message: 8 commits, 12 rolls back.
    pub(crate) async fn decide(&self, half: &Sent, decision: i32) -> Frame {
        self.call(end(half.id.position, half.offset, decision)).await
    }

    pub(crate) async fn create_group(&self, group: &str) {
        let body = format!(r#"{{"groupName":"{group}"}}"#);
        self.done(Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body)).await;
    }

    /// Registers this connection as a push consumer of the topic.
    pub(crate) async fn subscribe(&self, group: &str, topic: &str, model: &str) {
        let body = format!(
            r#"{{"clientID":"me","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"{group}","messageModel":"{model}","subscriptionDataSet":[{{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],"topic":"{topic}"}}],"unitMode":false}}],"producerDataSet":[{{"groupName":"PG"}}]}}"#
        );
        self.done(Frame::request(request::HEART_BEAT).with_body(body)).await;
    }
}

/// Where a message was stored.
pub(crate) struct Sent {
    pub id: OffsetMessageId,
    pub offset: i64,
}

impl Sent {
    /// Where the answer to a send says that the message is.
    pub(crate) fn of(answer: &Frame) -> Self {
        let id = answer.fields.get("msgId").unwrap().parse().unwrap();
        Self { id, offset: answer.fields.get("queueOffset").unwrap().parse().unwrap() }
    }
}

/// A send to queue 0.
pub(crate) fn send_request(topic: &str, properties: &[(&str, &str)]) -> Frame {
    let properties = text(properties);
    let header = SendMessageHeader::new("PG", topic, 0, clock::wall_ms(), &properties);
    Frame::request(request::SEND_MESSAGE_V2).with_header(&header).with_body("a body")
}

/// A request about a topic.
pub(crate) fn of_topic(code: i32, topic: &str) -> Frame {
    Frame::request(code).with_field("topic", topic)
}
