//! A cluster in memory, to test the client against: a name server and brokers that do just enough, with hooks that make
//! them misbehave on request.
//!
//! Every broker keeps messages, offsets and members; halves become visible on commit ([`transactions`]). A hook sees each request before
//! its broker and may answer for it, stay silent or cut the connection.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use escrowmq_common::body::{
    BrokerData, ConsumerIdList, Form, HeartbeatData, LockBatchBody, LockBatchResponse, QueueData, TopicRouteData, json,
};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    ConsumerSendMsgBackHeader, OffsetResponse, PullMessageHeader, PullMessageResponse, QueryConsumerOffsetHeader,
    SendMessageHeader, SendMessageResponse, UnregisterClientHeader, UpdateConsumerOffsetHeader,
};
use escrowmq_common::message::properties::{Properties, name};
use escrowmq_common::message::{OffsetMessageId, PropertyEditor, SysFlag, UnitBuilder, batch};
use escrowmq_common::name::{dead_letter_topic, is_retry_topic, retry_topic};
use escrowmq_common::remoting::{Connection, ServeLimits, Service, serve};
use escrowmq_common::task::{Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::net::TcpListener;

mod transactions;

use transactions::{NewHalf, Transactions};

/// A request as a broker saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) broker: String,
    pub(crate) connection: u64,
    pub(crate) frame: Frame,
}

impl Seen {
    /// A field of the request.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.frame.fields.get(name).map(str::to_owned)
    }

    /// A property of the message that was sent.
    pub(crate) fn property(&self, name: &str) -> Option<String> {
        let text = self.frame.fields.get("i")?;
        Properties::new(text).get(name).map(str::to_owned)
    }
}

/// A hook's decision.
pub(crate) enum Hook {
    /// Let the broker do its work.
    Pass,
    /// Answer with this code and remark instead.
    Answer(i32, &'static str),
    /// Answer with what this makes of the request.
    Reply(fn(&Frame) -> Frame),
    /// Never answer.
    Silence,
    /// Do the work, but never answer.
    SwallowAnswer,
    /// Close the connection.
    Cut,
}

type HookFn = Box<dyn Fn(&Seen) -> Hook + Send + Sync>;

#[derive(Clone)]
struct Stored {
    topic: String,
    body: Bytes,
    properties: String,
    sys_flag: i32,
    flag: i32,
    reconsume_times: i32,
}

#[derive(Default)]
struct BrokerState {
    /// By position: every message ever stored.
    log: Vec<Stored>,
    /// Topic and queue to positions.
    queues: HashMap<(String, i32), Vec<usize>>,
    transactions: Transactions,
    offsets: BTreeMap<(String, String, i32), i64>,
    /// Group to client id to connection.
    consumers: BTreeMap<String, BTreeMap<String, Arc<Connection>>>,
    producers: BTreeMap<String, BTreeMap<String, Arc<Connection>>>,
    locks: HashMap<(String, String, i32), String>,
}

pub(crate) struct Broker {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    /// The kind that it announces itself as.
    kind: Mutex<Kind>,
    state: Mutex<BrokerState>,
    seen: Mutex<Vec<Seen>>,
    hook: Mutex<Option<HookFn>>,
    shutdown: Shutdown,
    tasks: Tasks,
    arrived: tokio::sync::Notify,
    /// The code in the answers to successful sends.
    level: Mutex<i32>,
}

/// The abilities of a broker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Confirms no decisions.
    Apache,
    /// Ours, as it was before it knew transactions of several messages.
    Confirming,
    /// Ours.
    Ours,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) namesrv: String,
    pub(crate) brokers: Vec<Arc<Broker>>,
    topics: Arc<Mutex<BTreeMap<String, i32>>>,
    /// Topics that are on one broker only.
    homes: Arc<Mutex<BTreeMap<String, String>>>,
    looked_up: Arc<Mutex<Vec<String>>>,
    lie: Lie,
    /// The name server takes questions and answers none.
    is_mute: Arc<AtomicBool>,
    shutdown: Shutdown,
    tasks: Tasks,
}

/// The name server's answer to every question about a route, instead of the truth.
type Lie = Arc<Mutex<Option<Bytes>>>;

struct NameServer {
    brokers: Vec<Arc<Broker>>,
    topics: Arc<Mutex<BTreeMap<String, i32>>>,
    homes: Arc<Mutex<BTreeMap<String, String>>>,
    looked_up: Arc<Mutex<Vec<String>>>,
    lie: Lie,
    is_mute: Arc<AtomicBool>,
}

impl Cluster {
    /// This many brokers, named `a`, `b`, ..., and these topics with the given number of queues on each.
    pub(crate) async fn start(brokers: usize, kind: Kind, topics: &[(&str, i32)]) -> Cluster {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new();
        let mut all = Vec::new();
        for index in 0..brokers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let broker = Arc::new(Broker {
                name: char::from(b'a' + index as u8).to_string(),
                addr: listener.local_addr().expect("bound"),
                kind: Mutex::new(kind),
                state: Mutex::default(),
                seen: Mutex::default(),
                hook: Mutex::default(),
                shutdown: shutdown.child(),
                tasks: tasks.clone(),
                arrived: tokio::sync::Notify::new(),
                level: Mutex::new(response::SUCCESS),
            });
            let service = Arc::new(BrokerService(Arc::clone(&broker)));
            tasks.spawn("fake broker", serve(listener, service, ServeLimits::default(), broker.shutdown.clone()));
            all.push(broker);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let namesrv = listener.local_addr().expect("bound").to_string();
        let topics: BTreeMap<String, i32> = topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        let topics = Arc::new(Mutex::new(topics));
        let homes: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        let (looked_up, lie): (Arc<Mutex<Vec<String>>>, Lie) = (Arc::default(), Arc::default());
        let is_mute = Arc::<AtomicBool>::default();
        let service = Arc::new(NameServer {
            brokers: all.clone(),
            topics: Arc::clone(&topics),
            homes: Arc::clone(&homes),
            looked_up: Arc::clone(&looked_up),
            lie: Arc::clone(&lie),
            is_mute: Arc::clone(&is_mute),
        });
        tasks.spawn("fake name server", serve(listener, service, ServeLimits::default(), shutdown.clone()));
        Cluster { namesrv, brokers: all, topics, homes, looked_up, lie, is_mute, shutdown, tasks }
    }

    /// How often the name server was asked for the route of this topic.
    pub(crate) fn look_ups(&self, topic: &str) -> usize {
        self.looked_up.lock().iter().filter(|other| *other == topic).count()
    }

    /// Makes the name server answer this body to every question about a route.
    pub(crate) fn lie(&self, body: impl Into<Bytes>) {
        *self.lie.lock() = Some(body.into());
    }

    /// The name server answers no question from now on.
    pub(crate) fn mute_names(&self) {
        self.is_mute.store(true, Ordering::Release);
    }

    /// Every request with this code, of all brokers, each broker's in order.
    pub(crate) fn seen(&self, code: i32) -> Vec<Seen> {
        self.brokers.iter().flat_map(|broker| broker.seen(code)).collect()
    }

    /// Makes all brokers call this before their work.
    pub(crate) fn hook(&self, hook: impl Fn(&Seen) -> Hook + Send + Sync + Clone + 'static) {
        for broker in &self.brokers {
            broker.hook(hook.clone());
        }
    }

    /// Changes how many queues a topic has.
    pub(crate) fn set_topic(&self, topic: &str, queues: i32) {
        self.topics.lock().insert(topic.to_owned(), queues);
    }

    /// Leaves a topic on this broker only.
    pub(crate) fn set_home(&self, topic: &str, broker: &str) {
        self.homes.lock().insert(topic.to_owned(), broker.to_owned());
    }

    /// The broker with this name.
    pub(crate) fn broker(&self, name: &str) -> &Arc<Broker> {
        self.brokers.iter().find(|broker| broker.name == name).expect("a broker of that name")
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

impl Broker {
    pub(crate) fn hook(&self, hook: impl Fn(&Seen) -> Hook + Send + Sync + 'static) {
        *self.hook.lock() = Some(Box::new(hook));
    }

    pub(crate) fn seen(&self, code: i32) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| seen.frame.code == code).cloned().collect()
    }

    /// The codes of all requests, in order.
    pub(crate) fn codes(&self) -> Vec<i32> {
        self.seen.lock().iter().map(|seen| seen.frame.code).collect()
    }

    /// Stores from now on with less than it is configured for, and says so with this code.
    pub(crate) fn lower_level(&self, code: i32) {
        *self.level.lock() = code;
    }

    /// Stops listening and cuts all connections.
    pub(crate) fn kill(&self) {
        self.shutdown.cancel();
    }

    /// Stores a message without a producer.
    pub(crate) fn store(&self, topic: &str, queue: i32, body: &str, tag: &str) {
        let properties = format!("TAGS\u{1}{tag}\u{2}UNIQ_KEY\u{1}{body}\u{2}");
        let message = Stored {
            topic: topic.to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            properties,
            sys_flag: 0,
            flag: 0,
            reconsume_times: 0,
        };
        self.append(message, topic, queue);
    }

    /// A message as a broker would hand it out, that is in no queue.
    pub(crate) fn loose_unit(&self, topic: &str, body: &str) -> Bytes {
        let message = Stored {
            topic: topic.to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            properties: String::new(),
            sys_flag: 0,
            flag: 0,
            reconsume_times: 0,
        };
        self.unit(&message, topic, 0, 0, 0)
    }

    /// Bodies in a queue, in order.
    pub(crate) fn bodies(&self, topic: &str, queue: i32) -> Vec<String> {
        let state = self.state.lock();
        let positions = state.queues.get(&(topic.to_owned(), queue)).cloned().unwrap_or_default();
        positions.iter().map(|position| String::from_utf8_lossy(&state.log[*position].body).into_owned()).collect()
    }

    pub(crate) fn offset(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        self.state.lock().offsets.get(&(group.to_owned(), topic.to_owned(), queue)).copied()
    }

    pub(crate) fn consumers(&self, group: &str) -> Vec<String> {
        self.state.lock().consumers.get(group).map(|members| members.keys().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn producers(&self, group: &str) -> Vec<String> {
        self.state.lock().producers.get(group).map(|members| members.keys().cloned().collect()).unwrap_or_default()
    }

    /// The connection of some member of a consumer group.
    pub(crate) fn consumer(&self, group: &str) -> Arc<Connection> {
        Arc::clone(self.state.lock().consumers[group].values().next().expect("a consumer"))
    }

    fn append(&self, message: Stored, topic: &str, queue: i32) -> (usize, i64) {
        let mut state = self.state.lock();
        let position = state.log.len();
        state.log.push(message);
        let entries = state.queues.entry((topic.to_owned(), queue)).or_default();
        entries.push(position);
        let offset = entries.len() as i64 - 1;
        drop(state);
        self.arrived.notify_waiters();
        (position, offset)
    }

    fn unit(&self, stored: &Stored, topic: &str, queue: i32, offset: i64, position: usize) -> Bytes {
        let mut out = BytesMut::new();
        let pieces = [stored.properties.as_str()];
        let unit = UnitBuilder {
            flag: stored.flag,
            queue_offset: offset,
            position: position as i64,
            sys_flag: SysFlag(stored.sys_flag),
            born_timestamp: 1,
            store_timestamp: 2,
            reconsume_times: stored.reconsume_times,
            ..UnitBuilder::to_store(topic, queue, self.addr, &stored.body, &pieces)
        };
        unit.write(&mut out).expect("a small unit");
        out.freeze()
    }

    fn handle(&self, connection: &Arc<Connection>, frame: &Frame) -> Frame {
        let ok = || Frame::response(frame, response::SUCCESS);
        let code = |code| Frame::response(frame, code);
        match frame.code {
            request::HEART_BEAT => self.heartbeat(connection, frame),
            request::UNREGISTER_CLIENT => {
                let header: UnregisterClientHeader<'_> = frame.header().expect("a good header");
                let mut state = self.state.lock();
                if let Some(group) = header.producer_group.and_then(|group| state.producers.get_mut(group)) {
                    group.remove(header.client_id);
                }
                if let Some(group) = header.consumer_group {
                    if let Some(members) = state.consumers.get_mut(group) {
                        members.remove(header.client_id);
                    }
                    Self::notify(&state, group);
                }
                ok()
            }
            request::GET_CONSUMER_LIST_BY_GROUP => {
                let members = self.consumers(frame.fields.get("consumerGroup").unwrap_or_default());
                if members.is_empty() {
                    return code(response::SYSTEM_ERROR).with_remark("no consumer for this group");
                }
                ok().with_body(json::to_bytes(&ConsumerIdList { consumer_id_list: members }, Form::Loose))
            }
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => self.send(frame),
            request::END_TRANSACTION => self.end(frame),
            request::QUERY_CONSUMER_OFFSET => {
                let header: QueryConsumerOffsetHeader<'_> = frame.header().expect("a good header");
                match self.offset(header.consumer_group, header.topic, header.queue_id) {
                    Some(offset) => ok().with_header(&OffsetResponse { offset }),
                    None => code(response::QUERY_NOT_FOUND),
                }
            }
            request::UPDATE_CONSUMER_OFFSET => {
                let header: UpdateConsumerOffsetHeader<'_> = frame.header().expect("a good header");
                let key = (header.consumer_group.to_owned(), header.topic.to_owned(), header.queue_id);
                self.state.lock().offsets.insert(key, header.commit_offset);
                ok()
            }
            request::GET_MAX_OFFSET => {
                let topic = frame.fields.get("topic").unwrap_or_default().to_owned();
                let queue = frame.fields.get("queueId").and_then(|id| id.parse().ok()).unwrap_or(0);
                let offset = self.bodies(&topic, queue).len() as i64;
                ok().with_header(&OffsetResponse { offset })
            }
            request::CONSUMER_SEND_MSG_BACK => self.send_back(frame),
            request::LOCK_BATCH_MQ | request::UNLOCK_BATCH_MQ => self.lock(frame),
            other => code(response::REQUEST_CODE_NOT_SUPPORTED).with_remark(format!("{other}")),
        }
    }

    fn heartbeat(&self, connection: &Arc<Connection>, frame: &Frame) -> Frame {
        let data: HeartbeatData = json::from_slice(&frame.body).expect("a good heartbeat");
        let mut state = self.state.lock();
        for producer in &data.producer_data_set {
            let members = state.producers.entry(producer.group_name.clone()).or_default();
            members.insert(data.client_id.clone(), Arc::clone(connection));
        }
        for consumer in &data.consumer_data_set {
            let members = state.consumers.entry(consumer.group_name.clone()).or_default();
            if members.insert(data.client_id.clone(), Arc::clone(connection)).is_none() {
                Self::notify(&state, &consumer.group_name);
            }
        }
        let answer = Frame::response(frame, response::SUCCESS);
        match *self.kind.lock() {
            Kind::Apache => answer,
            Kind::Confirming => answer.with_field("ESCROWMQ", "1"),
            Kind::Ours => answer.with_field("ESCROWMQ", "1").with_field("ESCROWMQ_TXN", "1"),
        }
    }

    fn notify(state: &BrokerState, group: &str) {
        for connection in state.consumers.get(group).into_iter().flat_map(BTreeMap::values) {
            let notice = Frame::request(request::NOTIFY_CONSUMER_IDS_CHANGED).with_field("consumerGroup", group);
            let _ = connection.send_oneway(notice);
        }
    }

    fn send(&self, frame: &Frame) -> Frame {
        let header: SendMessageHeader<'_> = frame.header().expect("a good header");
        let properties = header.properties.unwrap_or_default();
        let unique = Properties::new(properties).get(name::UNIQUE_KEY).map(str::to_owned);
        let (topic, queue) = if is_retry_topic(header.topic)
            && header.max_reconsume_times.is_some_and(|max| header.reconsume_times > max)
        {
            (dead_letter_topic(header.topic.trim_start_matches("%RETRY%")), 0)
        } else {
            (header.topic.to_owned(), header.queue_id)
        };
        let stored = |body: &[u8], properties: &str| Stored {
            topic: topic.clone(),
            body: Bytes::copy_from_slice(body),
            properties: properties.to_owned(),
            sys_flag: header.sys_flag & !SysFlag::TRANSACTION_MASK,
            flag: header.flag,
            reconsume_times: header.reconsume_times,
        };
        let id = |position: usize| OffsetMessageId { host: self.addr, position: position as i64 }.to_string();
        let (ids, offset) = if header.batch {
            let messages: Vec<_> = batch::messages(&frame.body).collect::<Result<_, _>>().expect("a good batch");
            let places = messages.iter().map(|inner| self.append(stored(inner.body, inner.properties), &topic, queue));
            let places: Vec<_> = places.collect();
            let ids: Vec<String> = places.iter().map(|(position, _)| id(*position)).collect();
            (ids.join(","), places[0].1)
        } else if Properties::new(properties).is_true(name::TRANSACTION_PREPARED) {
            let half = NewHalf {
                message: stored(&frame.body, properties),
                queue: (topic.clone(), queue),
                group: header.producer_group.to_owned(),
                unique_id: unique.clone().unwrap_or_default(),
            };
            match self.prepare(frame, half) {
                Ok(position) => (id(position), position as i64),
                Err(refusal) => return *refusal,
            }
        } else {
            let (position, offset) = self.append(stored(&frame.body, properties), &topic, queue);
            (id(position), offset)
        };
        Frame::response(frame, *self.level.lock()).with_header(&SendMessageResponse {
            msg_id: &ids,
            queue_id: header.queue_id,
            queue_offset: offset,
            transaction_id: unique.as_deref(),
            batch_uniq_id: None,
            recall_handle: None,
            region: Some("DefaultRegion"),
            trace_on: Some(true),
        })
    }

    fn send_back(&self, frame: &Frame) -> Frame {
        let header: ConsumerSendMsgBackHeader<'_> = frame.header().expect("a good header");
        let mut message = self.state.lock().log[header.offset as usize].clone();
        let exhausted = header.max_reconsume_times.is_some_and(|max| message.reconsume_times >= max);
        let mut editor = PropertyEditor::new(&message.properties);
        editor.set_default(name::RETRY_TOPIC, message.topic.clone()).expect("a good property");
        let properties = editor.finish();
        drop(editor);
        message.properties = properties;
        message.reconsume_times += 1;
        let topic = if exhausted { dead_letter_topic(header.group) } else { retry_topic(header.group) };
        self.append(message, &topic, 0);
        Frame::response(frame, response::SUCCESS)
    }

    fn lock(&self, frame: &Frame) -> Frame {
        let body: LockBatchBody = json::from_slice(&frame.body).expect("a good body");
        let mut state = self.state.lock();
        let mut locked = LockBatchResponse::default();
        for queue in body.mq_set {
            let key = (body.consumer_group.clone(), queue.topic.clone(), queue.queue_id);
            if frame.code == request::UNLOCK_BATCH_MQ {
                if state.locks.get(&key) == Some(&body.client_id) {
                    state.locks.remove(&key);
                }
                continue;
            }
            let owner = state.locks.entry(key).or_insert_with(|| body.client_id.clone());
            if *owner == body.client_id {
                locked.lock_ok_mq_set.push(queue);
            }
        }
        Frame::response(frame, response::SUCCESS).with_body(json::to_bytes(&locked, Form::Loose))
    }

    fn pull(&self, frame: &Frame) -> (Frame, bool) {
        let header: PullMessageHeader<'_> = frame.header().expect("a good header");
        let state = self.state.lock();
        let empty = Vec::new();
        let positions = state.queues.get(&(header.topic.to_owned(), header.queue_id)).unwrap_or(&empty);
        let max = positions.len() as i64;
        let answer = |code, next| {
            Frame::response(frame, code).with_header(&PullMessageResponse {
                suggest_which_broker_id: 0,
                next_begin_offset: next,
                min_offset: 0,
                max_offset: max,
                topic_sys_flag: None,
                group_sys_flag: None,
                offset_delta: None,
                forbidden_type: None,
            })
        };
        if header.queue_offset > max {
            return (answer(response::PULL_OFFSET_MOVED, max), true);
        }
        if header.queue_offset == max {
            return (answer(response::PULL_NOT_FOUND, max), false);
        }
        let end = max.min(header.queue_offset + i64::from(header.max_msg_nums));
        let mut body = BytesMut::new();
        for offset in header.queue_offset..end {
            let position = positions[offset as usize];
            body.extend_from_slice(&self.unit(&state.log[position], header.topic, header.queue_id, offset, position));
        }
        (answer(response::SUCCESS, end).with_body(body.freeze()), true)
    }
}

struct BrokerService(Arc<Broker>);

impl Service for BrokerService {
    fn on_request(&self, connection: &Arc<Connection>, frame: Frame) {
        let broker = &self.0;
        let seen = Seen { broker: broker.name.clone(), connection: connection.id(), frame: frame.clone() };
        broker.seen.lock().push(seen.clone());
        let hook = broker.hook.lock().as_ref().map_or(Hook::Pass, |hook| hook(&seen));
        match hook {
            Hook::Pass => {}
            Hook::Answer(code, remark) => {
                if !frame.is_oneway() {
                    connection.reply(&Frame::response(&frame, code).with_remark(remark));
                }
                return;
            }
            Hook::Reply(make) => {
                if !frame.is_oneway() {
                    connection.reply(&make(&frame));
                }
                return;
            }
            Hook::Silence => return,
            Hook::SwallowAnswer => {
                broker.handle(connection, &frame);
                return;
            }
            Hook::Cut => return connection.close("cut by the test"),
        }
        if frame.code == request::PULL_MESSAGE {
            let (broker, connection) = (Arc::clone(broker), Arc::clone(connection));
            let tasks = broker.tasks.clone();
            tasks.spawn("fake pull", async move {
                let hold: u64 =
                    frame.fields.get("suspendTimeoutMillis").and_then(|hold| hold.parse().ok()).unwrap_or(0);
                let ends = tokio::time::Instant::now() + Duration::from_millis(hold);
                loop {
                    let arrived = broker.arrived.notified();
                    let (answer, found) = broker.pull(&frame);
                    if found || !connection.is_open() {
                        return connection.reply(&answer);
                    }
                    tokio::select! {
                        () = broker.shutdown.cancelled() => return,
                        () = arrived => {}
                        () = tokio::time::sleep_until(ends) => return connection.reply(&broker.pull(&frame).0),
                    }
                }
            });
            return;
        }
        let answer = broker.handle(connection, &frame);
        if !frame.is_oneway() {
            connection.reply(&answer);
        }
    }

    fn on_close(&self, connection: &Arc<Connection>) {
        let mut state = self.0.state.lock();
        let mut changed = BTreeSet::new();
        for members in state.producers.values_mut() {
            members.retain(|_, other| other.id() != connection.id());
        }
        for (group, members) in &mut state.consumers {
            let before = members.len();
            members.retain(|_, other| other.id() != connection.id());
            if members.len() != before {
                changed.insert(group.clone());
            }
        }
        for group in changed {
            Broker::notify(&state, &group);
        }
    }
}

impl Service for NameServer {
    fn on_request(&self, connection: &Arc<Connection>, frame: Frame) {
        if frame.code != request::GET_ROUTEINFO_BY_TOPIC {
            connection.reply(&Frame::response(&frame, response::REQUEST_CODE_NOT_SUPPORTED));
            return;
        }
        let topic = frame.fields.get("topic").unwrap_or_default();
        self.looked_up.lock().push(topic.to_owned());
        if self.is_mute.load(Ordering::Acquire) {
            return;
        }
        if let Some(lie) = self.lie.lock().clone() {
            connection.reply(&Frame::response(&frame, response::SUCCESS).with_body(lie));
            return;
        }
        let queues = self.topics.lock().get(topic).copied();
        // A retry topic is there once its group is.
        let queues = queues.or_else(|| {
            let group = topic.strip_prefix("%RETRY%")?;
            self.brokers.iter().any(|broker| !broker.consumers(group).is_empty()).then_some(1)
        });
        let Some(queues) = queues else {
            connection.reply(&Frame::response(&frame, response::TOPIC_NOT_EXIST).with_remark("no such topic"));
            return;
        };
        let home = self.homes.lock().get(topic).cloned();
        let here = |broker: &&Arc<Broker>| home.as_ref().is_none_or(|home| *home == broker.name);
        let live = || self.brokers.iter().filter(|broker| !broker.shutdown.is_cancelled()).filter(here);
        let route = TopicRouteData {
            broker_datas: live()
                .map(|broker| BrokerData {
                    broker_addrs: BTreeMap::from([(0, broker.addr.to_string())]),
                    broker_name: broker.name.clone(),
                    cluster: "DefaultCluster".to_owned(),
                    ..BrokerData::default()
                })
                .collect(),
            queue_datas: live()
                .map(|broker| QueueData {
                    broker_name: broker.name.clone(),
                    perm: 6,
                    read_queue_nums: queues,
                    write_queue_nums: queues,
                    ..QueueData::default()
                })
                .collect(),
            ..TopicRouteData::default()
        };
        connection.reply(&Frame::response(&frame, response::SUCCESS).with_body(route.encode(Form::Strict)));
    }
}

/// Waits until the condition holds; fails the test after ten seconds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let ends = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < ends, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
