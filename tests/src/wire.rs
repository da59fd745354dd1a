//! Single frames, each of them exactly as a test wants it: no retries, no routes, no background.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::body::{ConsumerData, Form, HeartbeatData, ProducerData, SubscriptionData, json};
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    CheckTransactionStateHeader, ConsumerSendMsgBackHeader, CreateTopicHeader, EndTransactionHeader, PullMessageHeader,
    PullMessageResponse, QueryMessageHeader, SendMessageHeader, SendMessageResponse, UpdateConsumerOffsetHeader,
    ViewMessageHeader,
};
use escrowmq_common::message::properties::{self, name};
use escrowmq_common::message::{Message, OffsetMessageId, decode_units};
use escrowmq_common::remoting::{CallError, Connection, Remote, RemoteOptions, Service};
use parking_lot::Mutex;

use crate::wait::until;

/// How long one answer may take. A restart under load included, no test provokes more.
const ANSWER: Duration = Duration::from_secs(10);

/// A half message as a decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// Producer group.
    pub group: String,
    /// Topic.
    pub topic: String,
    /// Unique id, which is the transaction id.
    pub unique_id: String,
    /// Position in the log.
    pub position: i64,
    /// The broker's counter.
    pub counter: i64,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Consumers get it.
    Commit,
    /// Nobody gets it.
    Rollback,
    /// Not decided.
    Unknown,
}

impl End {
    /// The other one of commit and rollback.
    ///
    /// # Panics
    ///
    /// For [`End::Unknown`].
    #[must_use]
    pub fn opposite(self) -> End {
        match self {
            End::Commit => End::Rollback,
            End::Rollback => End::Commit,
            End::Unknown => panic!("not knowing has no opposite"),
        }
    }

    fn number(self) -> i32 {
        match self {
            End::Commit => EndTransactionHeader::COMMIT,
            End::Rollback => EndTransactionHeader::ROLLBACK,
            End::Unknown => EndTransactionHeader::UNKNOWN,
        }
    }
}

/// The answer to a pull.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Response code.
    pub code: i32,
    /// Text of a refusal.
    pub remark: String,
    /// Messages.
    pub messages: Vec<Message>,
    /// Where to go on.
    pub next: i64,
    /// The queue's end.
    pub max: i64,
}

/// A question of the broker.
#[derive(Clone, Debug)]
pub struct Check {
    /// Position of the half message, to be sent back.
    pub position: i64,
    /// Counter of the half message, to be sent back.
    pub counter: i64,
    /// Transaction id.
    pub transaction_id: String,
}

/// One connection to one process.
#[derive(Debug)]
pub struct Wire {
    remote: Remote,
    address: String,
    checks: Arc<Checks>,
}

#[derive(Debug, Default)]
struct Checks {
    seen: Mutex<Vec<Check>>,
}

impl Service for Checks {
    fn on_request(&self, _: &Arc<Connection>, request: Frame) {
        if request.code != request::CHECK_TRANSACTION_STATE {
            return;
        }
        let header: CheckTransactionStateHeader<'_> = request.header().expect("a check is well-formed");
        self.seen.lock().push(Check {
            position: header.commit_log_offset,
            counter: header.tran_state_table_offset,
            transaction_id: header.transaction_id.unwrap_or_default().to_owned(),
        });
    }
}

impl Wire {
    /// To the process at this address; connects with the first frame.
    pub fn to(address: String) -> Wire {
        let checks = Arc::new(Checks::default());
        let incoming: Arc<dyn Service> = Arc::<Checks>::clone(&checks);
        Wire { remote: Remote::new(RemoteOptions::default(), incoming), address, checks }
    }

    /// The same, with something else that takes what the broker asks: [`checks`](Wire::checks) are none then.
    pub fn answering(address: String, service: Arc<dyn Service>) -> Wire {
        Wire { remote: Remote::new(RemoteOptions::default(), service), address, checks: Arc::default() }
    }

    /// Sends a request and waits for the answer.
    pub async fn call(&self, frame: Frame) -> Result<Frame, CallError> {
        self.remote.call(&self.address, frame, ANSWER).await
    }

    /// Like [`call`](Wire::call), and expects success.
    ///
    /// # Panics
    ///
    /// For anything but success.
    pub async fn ask(&self, frame: Frame) -> Frame {
        let code = frame.code;
        let answer = self.call(frame).await.unwrap_or_else(|error| panic!("request {code}: {error}"));
        assert_eq!(answer.code, response::SUCCESS, "request {code}: {:?}", answer.remark);
        answer
    }

    /// Says hello as a producer and, with subscriptions, as a consumer of the same group name.
    pub async fn greet(&self, client_id: &str, group: &str, subscriptions: &[(&str, &str)]) {
        let mut data = HeartbeatData {
            client_id: client_id.to_owned(),
            producer_data_set: vec![ProducerData { group_name: group.to_owned() }],
            ..HeartbeatData::default()
        };
        if !subscriptions.is_empty() {
            let subscriptions = subscriptions.iter().map(|(topic, tags)| SubscriptionData {
                topic: (*topic).to_owned(),
                sub_string: (*tags).to_owned(),
                ..SubscriptionData::default()
            });
            data.consumer_data_set.push(ConsumerData {
                group_name: group.to_owned(),
                subscription_data_set: subscriptions.collect(),
                ..ConsumerData::default()
            });
        }
        self.ask(Frame::request(request::HEART_BEAT).with_body(json::to_bytes(&data, Form::Strict))).await;
    }

    /// Creates a topic on this broker.
    pub async fn create_topic(&self, topic: &str, queues: i32) {
        let header = CreateTopicHeader::new(topic, queues);
        self.ask(Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)).await;
    }

    /// Creates a topic with attributes (`+name=value,+name=value`) on this broker.
    pub async fn create_topic_with(&self, topic: &str, queues: i32, attributes: &str) {
        let header = CreateTopicHeader { attributes: Some(attributes), ..CreateTopicHeader::new(topic, queues) };
        self.ask(Frame::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header)).await;
    }

    /// Sends a message as it stands.
    pub async fn send(
        &self,
        topic: &str,
        queue: i32,
        body: impl Into<Bytes>,
        properties: &[(&str, &str)],
    ) -> Result<Frame, CallError> {
        self.call(send_request("wire-producer", topic, queue, body, properties)).await
    }

    /// Sends a half message.
    pub async fn send_half(&self, group: &str, topic: &str, unique_id: &str, body: &str) -> Result<Half, CallError> {
        let answer = self.call(half_request(group, topic, unique_id, body)).await?;
        assert_eq!(answer.code, response::SUCCESS, "half message: {:?}", answer.remark);
        Ok(half_of(&answer, group, topic, unique_id))
    }

    /// Sends a half message; `None` if it is refused, or nobody knows.
    pub async fn try_half(
        &self,
        group: &str,
        topic: &str,
        unique_id: &str,
        body: &str,
    ) -> Result<Option<Half>, CallError> {
        let answer = self.call(half_request(group, topic, unique_id, body)).await?;
        Ok((answer.code == response::SUCCESS).then(|| half_of(&answer, group, topic, unique_id)))
    }

    /// Sends a half message and expects success.
    ///
    /// # Panics
    ///
    /// For anything but success.
    pub async fn half(&self, group: &str, topic: &str, unique_id: &str, body: &str) -> Half {
        self.send_half(group, topic, unique_id, body).await.expect("the half message is stored")
    }

    /// Decides, and waits for the answer.
    pub async fn end(&self, half: &Half, end: End) -> Result<Frame, CallError> {
        self.call(end_request(half, end, false)).await
    }

    /// Hands a decision to the socket and does not wait for the answer.
    pub async fn end_without_waiting(&self, half: &Half, end: End) -> Result<(), CallError> {
        let mut frame = end_request(half, end, false);
        frame.set_oneway();
        self.remote.oneway(&self.address, frame).await
    }

    /// The checks that the broker sent so far.
    pub fn checks(&self) -> Vec<Check> {
        self.checks.seen.lock().clone()
    }

    /// Waits for a check of this transaction.
    pub async fn until_checked(&self, transaction_id: &str) -> Check {
        let of = |check: &Check| check.transaction_id == transaction_id;
        until(&format!("check of {transaction_id}"), async || self.checks().into_iter().find(of)).await
    }

    /// Pulls up to `count` messages, without being held.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub async fn pull(&self, group: &str, topic: &str, queue: i32, offset: i64, count: i32) -> Pulled {
        self.try_pull(group, topic, queue, offset, count).await.expect("a pull is answered")
    }

    /// Like [`pull`](Wire::pull), for where the broker may be killed meanwhile.
    pub async fn try_pull(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        offset: i64,
        count: i32,
    ) -> Result<Pulled, CallError> {
        let answer = self.call(pull_request(group, topic, queue, offset, count)).await?;
        let fields: Option<PullMessageResponse> = answer.header().ok();
        Ok(Pulled {
            code: answer.code,
            remark: answer.remark.clone().unwrap_or_default(),
            messages: messages(answer.body.clone()),
            next: fields.as_ref().map_or(0, |fields| fields.next_begin_offset),
            max: fields.as_ref().map_or(0, |fields| fields.max_offset),
        })
    }

    /// Says that a group has consumed a queue up to here.
    ///
    /// # Panics
    ///
    /// For anything but success.
    pub async fn commit_offset(&self, group: &str, topic: &str, queue: i32, offset: i64) {
        let header =
            UpdateConsumerOffsetHeader { consumer_group: group, topic, queue_id: queue, commit_offset: offset };
        self.ask(Frame::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header)).await;
    }

    /// Everything in a queue, from 0 to its end.
    ///
    /// # Panics
    ///
    /// If a pull is refused.
    pub async fn read_queue(&self, topic: &str, queue: i32) -> Vec<Message> {
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let pulled = self.pull("wire-reader", topic, queue, offset, 32).await;
            match pulled.code {
                response::SUCCESS | response::PULL_RETRY_IMMEDIATELY => {
                    found.extend(pulled.messages);
                    assert!(pulled.next > offset, "a pull that found something goes on");
                    offset = pulled.next;
                }
                response::PULL_NOT_FOUND => return found,
                response::PULL_OFFSET_MOVED if pulled.next == offset => return found,
                code => panic!("pull of {topic}:{queue} at {offset}: {code} {}", pulled.remark),
            }
        }
    }

    /// The message at a position of the log, if the broker shows it.
    pub async fn view(&self, topic: &str, position: i64) -> Option<Message> {
        let header = ViewMessageHeader { offset: position, topic: Some(topic) };
        let answer = self.call(Frame::request(request::VIEW_MESSAGE_BY_ID).with_header(&header)).await;
        let answer = answer.expect("a view is answered");
        (answer.code == response::SUCCESS).then(|| Message::decode(&answer.body).expect("a message unit"))
    }

    /// The messages that have this key, or this unique id.
    ///
    /// # Panics
    ///
    /// If there is no answer, or one that is neither success nor "nothing found".
    pub async fn query(&self, topic: &str, key: &str, is_unique_id: bool) -> Vec<Message> {
        let answer = self.call(query_request(topic, key, is_unique_id)).await.expect("a query is answered");
        match answer.code {
            response::SUCCESS => messages(answer.body),
            response::QUERY_NOT_FOUND => Vec::new(),
            code => panic!("query of {key}: {code} {:?}", answer.remark),
        }
    }

    /// Sends the message at a position back, to be retried by `group`; answers the response code.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub async fn send_back(&self, group: &str, topic: &str, position: i64, delay_level: i32) -> i32 {
        let header = ConsumerSendMsgBackHeader {
            offset: position,
            group,
            delay_level,
            origin_msg_id: None,
            origin_topic: Some(topic),
            unit_mode: false,
            max_reconsume_times: Some(16),
            broker_name: None,
        };
        let answer = self.call(Frame::request(request::CONSUMER_SEND_MSG_BACK).with_header(&header)).await;
        answer.expect("a send-back is answered").code
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.remote.close().await;
    }
}

/// The half that an answer names.
fn half_of(answer: &Frame, group: &str, topic: &str, unique_id: &str) -> Half {
    let header: SendMessageResponse<'_> = answer.header().expect("the answer to a send is well-formed");
    let id: OffsetMessageId = header.msg_id.parse().expect("an offset message id");
    assert_eq!(header.transaction_id, Some(unique_id));
    Half {
        group: group.to_owned(),
        topic: topic.to_owned(),
        unique_id: unique_id.to_owned(),
        position: id.position,
        counter: header.queue_offset,
    }
}

/// The messages in the body of an answer.
///
/// # Panics
///
/// If it holds anything else.
pub fn messages(body: Bytes) -> Vec<Message> {
    decode_units(body).map(|unit| unit.expect("a message unit")).collect()
}

/// A pull of up to `count` messages that is not held.
pub fn pull_request(group: &str, topic: &str, queue: i32, offset: i64, count: i32) -> Frame {
    let header = PullMessageHeader::new(group, topic, queue, offset, count);
    Frame::request(request::PULL_MESSAGE).with_header(&header)
}

/// A search for the messages that have this key, or this unique id.
pub fn query_request(topic: &str, key: &str, is_unique_id: bool) -> Frame {
    let header = QueryMessageHeader::new(topic, key, is_unique_id, 32);
    Frame::request(request::QUERY_MESSAGE).with_header(&header)
}

/// A half message for the first queue of a topic.
pub fn half_request(group: &str, topic: &str, unique_id: &str, body: &str) -> Frame {
    let keys = format!("key-{unique_id}");
    let properties = [
        (name::TRANSACTION_PREPARED, "true"),
        (name::PRODUCER_GROUP, group),
        (name::UNIQUE_KEY, unique_id),
        (name::KEYS, &keys),
        (name::TAGS, "tag"),
    ];
    send_request(group, topic, 0, body.to_owned(), &properties)
}

/// A send with everything that the protocol asks for.
pub fn send_request(
    group: &str,
    topic: &str,
    queue: i32,
    body: impl Into<Bytes>,
    properties: &[(&str, &str)],
) -> Frame {
    let mut text = String::new();
    for (name, value) in properties {
        properties::append(&mut text, name, value);
    }
    let is_half = properties.iter().any(|(name, _)| *name == name::TRANSACTION_PREPARED);
    let header = SendMessageHeader {
        sys_flag: if is_half { 4 } else { 0 },
        ..SendMessageHeader::new(group, topic, queue, clock::wall_ms(), &text)
    };
    Frame::request(request::SEND_MESSAGE_V2).with_header(&header).with_body(body)
}

/// A decision on a half message, by itself or as the answer to a check.
pub fn end_request(half: &Half, end: End, from_transaction_check: bool) -> Frame {
    let header = EndTransactionHeader {
        producer_group: &half.group,
        tran_state_table_offset: half.counter,
        commit_log_offset: half.position,
        commit_or_rollback: end.number(),
        from_transaction_check,
        msg_id: Some(&half.unique_id),
        transaction_id: Some(&half.unique_id),
        topic: Some(&half.topic),
        broker_name: None,
    };
    Frame::request(request::END_TRANSACTION).with_header(&header)
}
