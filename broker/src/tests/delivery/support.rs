//! A broker in a temporary folder, and a client that speaks the protocol by hand.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::body::json::{Form, to_bytes};
use escrowmq_common::body::{ConsumerData, HeartbeatData, MessageModel, ProducerData, SubscriptionData};
use escrowmq_common::clock::Clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{PullMessageHeader, SendMessageHeader};
use escrowmq_common::remoting::{Connection, Remote, RemoteOptions, Service};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::config::BrokerConfig;
use crate::start::{Embedding, RunningBroker, start, start_embedded};
pub(crate) use crate::tests::support::{PATIENCE, messages, until};
use crate::tests::support::{settings, text};

/// A broker of its own.
pub(crate) struct Node {
    running: Option<RunningBroker>,
    config: BrokerConfig,
    folder: TempDir,
}

impl Node {
    /// Starts with the defaults.
    pub(crate) async fn start() -> Node {
        Node::with(|_| {}).await
    }

    /// Starts with settings changed.
    pub(crate) async fn with(change: impl FnOnce(&mut BrokerConfig)) -> Node {
        Node::on(Clock::system(), change).await
    }

    /// Starts with settings changed, on this clock.
    pub(crate) async fn on(clock: Clock, change: impl FnOnce(&mut BrokerConfig)) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let mut config = BrokerConfig { segment_bytes: 8 << 20, ..settings(folder.path()) };
        change(&mut config);
        let running = start_embedded(config.clone(), Embedding { clock, told_port: None }).await.unwrap();
        Node { running: Some(running), config, folder }
    }

    pub(crate) fn running(&self) -> &RunningBroker {
        self.running.as_ref().unwrap()
    }

    /// Stops and starts again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
        self.running = Some(start(self.config.clone()).await.unwrap());
    }

    /// Where its data is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn client(&self, id: &str) -> Client {
        Client::connect(id, self.running().local_addr().to_string())
    }

    pub(crate) async fn stop(mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }
}

/// Hands on what the broker asks.
struct Incoming(mpsc::UnboundedSender<Frame>);

impl Service for Incoming {
    fn on_request(&self, _connection: &Arc<Connection>, request: Frame) {
        let _ = self.0.send(request);
    }
}

/// One client with one connection.
pub(crate) struct Client {
    pub(crate) id: String,
    address: String,
    remote: Remote,
    incoming: mpsc::UnboundedReceiver<Frame>,
}

impl Client {
    fn connect(id: &str, address: String) -> Client {
        let (sender, incoming) = mpsc::unbounded_channel();
        let remote = Remote::new(RemoteOptions::default(), Arc::new(Incoming(sender)));
        Client { id: id.to_owned(), address, remote, incoming }
    }

    /// The client of another instance that can be used beside this one, on the same connection.
    pub(crate) fn remote(&self) -> (Remote, String) {
        (self.remote.clone(), self.address.clone())
    }

    pub(crate) async fn call(&self, request: Frame) -> Frame {
        self.remote.call(&self.address, request, PATIENCE).await.unwrap()
    }

    pub(crate) async fn oneway(&self, request: Frame) {
        self.remote.oneway(&self.address, request).await.unwrap();
    }

    /// The next request of the broker with this code.
    pub(crate) async fn incoming(&mut self, code: i32) -> Frame {
        let next = async {
            loop {
                let request = self.incoming.recv().await.expect("the client lives");
                if request.code == code {
                    return request;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the broker asks in time")
    }

    pub(crate) async fn close(self) {
        self.remote.close().await;
    }

    /// Sends a message and returns its queue offset.
    pub(crate) async fn send(&self, topic: &str, queue: i32, body: &[u8], properties: &[(&str, &str)]) -> i64 {
        let answer = self.try_send(topic, queue, body, properties).await;
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        answer.fields.get("queueOffset").unwrap().parse().unwrap()
    }

    pub(crate) async fn try_send(&self, topic: &str, queue: i32, body: &[u8], properties: &[(&str, &str)]) -> Frame {
        let text = text(properties);
        let header = SendMessageHeader::new("PG", topic, queue, 1, &text);
        let body = Bytes::copy_from_slice(body);
        self.call(Frame::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(body)).await
    }

    /// Enters a consumer group.
    pub(crate) async fn join(&self, group: &str, topic: &str, expression: &str) -> Frame {
        self.heartbeat(&heartbeat(&self.id, group, topic, expression)).await
    }

    pub(crate) async fn heartbeat(&self, data: &HeartbeatData) -> Frame {
        self.call(Frame::request(request::HEART_BEAT).with_body(to_bytes(data, Form::Loose))).await
    }
}

/// The heartbeat of one consumer.
pub(crate) fn heartbeat(client: &str, group: &str, topic: &str, expression: &str) -> HeartbeatData {
    HeartbeatData {
        client_id: client.to_owned(),
        consumer_data_set: vec![ConsumerData {
            group_name: group.to_owned(),
            message_model: MessageModel::Clustering,
            subscription_data_set: vec![SubscriptionData {
                topic: topic.to_owned(),
                sub_string: expression.to_owned(),
                sub_version: 10,
                ..SubscriptionData::default()
            }],
            ..ConsumerData::default()
        }],
        producer_data_set: vec![ProducerData { group_name: "CLIENT_INNER_PRODUCER".to_owned() }],
        ..HeartbeatData::default()
    }
}

/// A pull that names its own subscription and waits for nothing; change what differs.
pub(crate) fn pull<'a>(group: &'a str, topic: &'a str, queue_id: i32, queue_offset: i64) -> PullMessageHeader<'a> {
    PullMessageHeader { expression_type: None, ..PullMessageHeader::new(group, topic, queue_id, queue_offset, 32) }
}

pub(crate) fn pull_request(header: &PullMessageHeader<'_>) -> Frame {
    Frame::request(request::PULL_MESSAGE).with_header(header)
}

/// A number among the fields of an answer.
pub(crate) fn number(answer: &Frame, field: &str) -> i64 {
    answer.fields.get(field).unwrap_or_else(|| panic!("{field} in {answer:?}")).parse().unwrap()
}
