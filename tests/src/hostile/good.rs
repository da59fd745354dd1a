//! The client that must not notice: it sends, prepares and decides, pulls and confirms, and knows what has to be there.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{
    GetRouteInfoHeader, KvKeyHeader, OffsetResponse, PutKvConfigHeader, QueryConsumerOffsetHeader, SendMessageResponse,
    UpdateConsumerOffsetHeader,
};
use escrowmq_common::message::Message;
use escrowmq_common::message::properties::name;
use escrowmq_common::remoting::CallError;

use crate::dice::Dice;
use crate::wait::since;
use crate::wire::{End, Half, Wire, half_request, messages, query_request, send_request};

/// No generator names these.
const TOPIC: &str = "GoodTopic";
const HALVES: &str = "GoodHalves";
const PRODUCERS: &str = "good-producer";
const READERS: &str = "good-reader";
const NAMESPACE: &str = "GOOD";

const QUEUES: usize = 2;

/// After `kill -9` the offsets of consumers are at most so old. Twice the promise: the machine is busy.
const OFFSETS_AGE: Duration = Duration::from_secs(2);

/// How long sends may be refused for the moment, one after the other.
const BUSY: Duration = Duration::from_secs(5);

/// Messages before the newest that each look compares, besides all new ones. The last look compares all.
const OVERLAP: i64 = 64;

/// The known facts about a queue.
#[derive(Debug, Default)]
struct Queue {
    /// Messages that were acknowledged, with their offsets.
    acknowledged: Vec<(i64, String)>,
    /// Sent when the broker was killed: there or not, in any case once.
    unknown: BTreeSet<String>,
    /// Offsets that were confirmed, with the moments; the newest last.
    confirmed: VecDeque<(Duration, i64)>,
    /// Least offset that the broker may answer, whatever happens from now on.
    floor: i64,
    compared: i64,
}

/// The good client.
#[derive(Debug)]
pub struct Good {
    producer: Wire,
    consumer: Wire,
    names: Wire,
    dice: Dice,
    queues: [Queue; QUEUES],
    /// The queue of committed halves; its messages are in the order of their commits.
    halves: Queue,
    /// Bodies of halves that were rolled back.
    rolled_back: BTreeSet<String>,
    /// Decisions without an answer: made again after the restart.
    undecided: Vec<(Half, String, End)>,
    number: usize,
    steps: usize,
    slowest: Duration,
    /// Sends that were refused for the moment.
    refused: usize,
    broker: String,
}

/// Why a step ended without what it wanted.
#[derive(Debug)]
pub struct Trouble(String);

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn trouble(text: impl Into<String>) -> Trouble {
    Trouble(text.into())
}

impl Good {
    /// Creates topics and groups, and stores the first messages.
    pub async fn start(broker: String, nameserver: String, seed: u64) -> Good {
        let good = Good {
            producer: Wire::to(broker.clone()),
            consumer: Wire::to(broker.clone()),
            names: Wire::to(nameserver),
            dice: Dice::new(seed ^ 0x900d),
            queues: Default::default(),
            halves: Queue::default(),
            rolled_back: BTreeSet::new(),
            undecided: Vec::new(),
            number: 0,
            steps: 0,
            slowest: Duration::ZERO,
            refused: 0,
            broker,
        };
        good.producer.create_topic(TOPIC, QUEUES as i32).await;
        good.producer.create_topic(HALVES, 1).await;
        good.producer.greet("good-client", PRODUCERS, &[]).await;
        good.consumer.greet("good-client", READERS, &[(TOPIC, "*")]).await;
        // The group by which everything is compared.
        good.read(HALVES, 0, 0).await.expect("an empty queue can be read");
        let put = PutKvConfigHeader { namespace: NAMESPACE, key: "key", value: "value" };
        good.names.ask(Frame::request(request::PUT_KV_CONFIG).with_header(&put)).await;
        good
    }

    /// How many things it did, how often it was refused for the moment, and how long the slowest took.
    pub fn figures(&self) -> (usize, usize, Duration) {
        (self.steps, self.refused, self.slowest)
    }

    /// Does one thing. The error says what another client would have seen of the attack.
    pub async fn step(&mut self) -> Result<(), Trouble> {
        let began = clock::monotonic();
        match self.dice.below(10) {
            0..=3 => self.send().await?,
            4 | 5 => self.transact().await?,
            6 | 7 => self.consume().await?,
            8 => self.look().await?,
            _ => self.ask_names().await?,
        }
        self.steps += 1;
        self.slowest = self.slowest.max(since(began));
        Ok(())
    }

    fn next_body(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{what}-{}", self.number)
    }

    async fn send(&mut self) -> Result<(), Trouble> {
        let body = self.next_body("good");
        let at = self.dice.below(QUEUES);
        let key = format!("key-{body}");
        let queue = &mut self.queues[at];
        queue.unknown.insert(body.clone());
        let properties = [(name::KEYS, key.as_str()), (name::UNIQUE_KEY, body.as_str())];
        let request = send_request("good-plain", TOPIC, at as i32, body.clone(), &properties);
        let answer = patiently(&self.producer, &request, &mut self.refused).await;
        let answer = answer.map_err(|error| trouble(format!("send of {body}: {error}")))?;
        let sent: SendMessageResponse<'_> = succeeded(&answer, "send")?;
        queue.unknown.remove(&body);
        queue.acknowledged.push((sent.queue_offset, body));
        Ok(())
    }

    /// A half message and its decision.
    async fn transact(&mut self) -> Result<(), Trouble> {
        let body = self.next_body("half");
        let end = if self.dice.one_in(3) { End::Rollback } else { End::Commit };
        let request = half_request(PRODUCERS, HALVES, &body, &body);
        let answer = patiently(&self.producer, &request, &mut self.refused).await;
        let answer = answer.map_err(|error| trouble(format!("half {body}: {error}")))?;
        let sent: SendMessageResponse<'_> = succeeded(&answer, "half")?;
        let id: escrowmq_common::message::OffsetMessageId =
            sent.msg_id.parse().map_err(|_| trouble(format!("half {body}: message id '{}'", sent.msg_id)))?;
        let half = Half {
            group: PRODUCERS.to_owned(),
            topic: HALVES.to_owned(),
            unique_id: body.clone(),
            position: id.position,
            counter: sent.queue_offset,
        };
        self.decide(half, body, end).await
    }

    async fn decide(&mut self, half: Half, body: String, end: End) -> Result<(), Trouble> {
        if end == End::Commit {
            self.halves.unknown.insert(body.clone());
        } else {
            self.rolled_back.insert(body.clone());
        }
        let answer = match self.producer.end(&half, end).await {
            Ok(answer) => answer,
            Err(error) => {
                self.undecided.push((half, body.clone(), end));
                return Err(trouble(format!("decision on {body}: {error}")));
            }
        };
        if answer.code != response::SUCCESS {
            return Err(trouble(format!("decision on {body}: code {} {:?}", answer.code, answer.remark)));
        }
        if end == End::Commit {
            let offset = answer.fields.get("queueOffset").and_then(|offset| offset.parse().ok());
            let offset = offset.ok_or_else(|| trouble(format!("commit of {body}: no offset in the answer")))?;
            self.halves.unknown.remove(&body);
            self.halves.acknowledged.push((offset, body));
        }
        Ok(())
    }

    /// Pulls what is next, and confirms it.
    async fn consume(&mut self) -> Result<(), Trouble> {
        let at = self.dice.below(QUEUES);
        let from = self.queues[at].confirmed.back().map_or(0, |(_, offset)| *offset);
        let answered = self.confirmed(at).await?;
        if answered < from {
            return Err(trouble(format!("offset of queue {at} went back from {from} to {answered}")));
        }
        let found = self.read_some(TOPIC, at as i32, from).await?;
        let Some(last) = found.last() else { return Ok(()) };
        let queue = &mut self.queues[at];
        queue.compare(&found, from)?;
        let header = UpdateConsumerOffsetHeader {
            consumer_group: READERS,
            topic: TOPIC,
            queue_id: at as i32,
            commit_offset: last.queue_offset + 1,
        };
        let answer = self.consumer.call(Frame::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header)).await;
        let answer = answer.map_err(|error| trouble(format!("offset of queue {at}: {error}")))?;
        if answer.code != response::SUCCESS {
            return Err(trouble(format!("offset of queue {at}: code {} {:?}", answer.code, answer.remark)));
        }
        queue.confirmed.push_back((clock::monotonic(), header.commit_offset));
        if queue.confirmed.len() > 10_000 {
            queue.confirmed.pop_front();
        }
        Ok(())
    }

    /// The offset that the broker has for a queue.
    async fn confirmed(&self, queue: usize) -> Result<i64, Trouble> {
        let header = QueryConsumerOffsetHeader {
            consumer_group: READERS,
            topic: TOPIC,
            queue_id: queue as i32,
            set_zero_if_not_found: None,
        };
        let answer = self.consumer.call(Frame::request(request::QUERY_CONSUMER_OFFSET).with_header(&header)).await;
        let answer = answer.map_err(|error| trouble(format!("offset of queue {queue}: {error}")))?;
        if answer.code == response::QUERY_NOT_FOUND {
            return Ok(0);
        }
        Ok(succeeded::<OffsetResponse>(&answer, "offset")?.offset)
    }

    /// Looks a message up by its key.
    async fn look(&mut self) -> Result<(), Trouble> {
        let at = self.dice.below(QUEUES);
        let queue = &self.queues[at];
        // The key index follows the log at its own pace: the newest need not be in it yet.
        let settled = queue.acknowledged.len().saturating_sub(200);
        if settled == 0 {
            return Ok(());
        }
        let body = queue.acknowledged[self.dice.below(settled)].1.clone();
        let request = query_request(TOPIC, &format!("key-{body}"), false);
        let answer = patiently(&self.consumer, &request, &mut self.refused).await;
        let answer = answer.map_err(|error| trouble(format!("query of {body}: {error}")))?;
        let found = match answer.code {
            response::SUCCESS => messages(answer.body),
            response::QUERY_NOT_FOUND => Vec::new(),
            code => return Err(trouble(format!("query of {body}: code {code} {:?}", answer.remark))),
        };
        if found.iter().any(|message| message.body == body.as_bytes()) {
            return Ok(());
        }
        Err(trouble(format!("{body} is not found by its key")))
    }

    async fn ask_names(&mut self) -> Result<(), Trouble> {
        let header = GetRouteInfoHeader {
            topic: Some(TOPIC),
            accept_standard_json_only: true,
            zone_name: None,
            zone_mode: false,
        };
        let answer = self.names.call(Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header)).await;
        let answer = answer.map_err(|error| trouble(format!("route: {error}")))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.code != response::SUCCESS || !body.contains(&self.broker) {
            return Err(trouble(format!("route: code {} {:?} {body}", answer.code, answer.remark)));
        }
        let header = KvKeyHeader { namespace: NAMESPACE, key: "key" };
        let answer = self.names.call(Frame::request(request::GET_KV_CONFIG).with_header(&header)).await;
        let answer = answer.map_err(|error| trouble(format!("KV value: {error}")))?;
        if answer.fields.get("value") != Some("value") {
            return Err(trouble(format!("KV value: code {} {:?}", answer.code, answer.fields.get("value"))));
        }
        Ok(())
    }

    /// Up to 32 messages from an offset on.
    async fn read_some(&self, topic: &str, queue: i32, from: i64) -> Result<Vec<Message>, Trouble> {
        let group = if topic == TOPIC { READERS } else { "wire-reader" };
        let pulled = self.consumer.try_pull(group, topic, queue, from, 32).await;
        let pulled = pulled.map_err(|error| trouble(format!("pull of {topic}:{queue} at {from}: {error}")))?;
        match pulled.code {
            response::SUCCESS => Ok(pulled.messages),
            response::PULL_NOT_FOUND => Ok(Vec::new()),
            response::PULL_OFFSET_MOVED if pulled.next == from => Ok(Vec::new()),
            code => Err(trouble(format!("pull of {topic}:{queue} at {from}: code {code} {}", pulled.remark))),
        }
    }

    async fn read(&self, topic: &str, queue: i32, from: i64) -> Result<Vec<Message>, Trouble> {
        let mut all = Vec::new();
        loop {
            let next = all.last().map_or(from, |message: &Message| message.queue_offset + 1);
            let found = self.read_some(topic, queue, next).await?;
            if found.is_empty() {
                return Ok(all);
            }
            all.extend(found);
        }
    }

    /// To be called before the broker goes: what it may forget from now on is what `kill -9` may cost.
    pub fn before_restart(&mut self, is_kill: bool) {
        let now = clock::monotonic();
        for queue in &mut self.queues {
            let kept = |moment: &Duration| !is_kill || now.saturating_sub(*moment) > OFFSETS_AGE;
            let newest = queue.confirmed.iter().rev().find(|(moment, _)| kept(moment));
            queue.floor = newest.map_or(queue.floor, |(_, offset)| queue.floor.max(*offset));
        }
    }

    /// To be called when the broker serves again: makes open decisions again and compares everything with what it must be.
    /// With `all` from the beginning, else what is new.
    pub async fn after_restart(&mut self, all: bool) -> Result<(), Trouble> {
        self.producer.greet("good-client", PRODUCERS, &[]).await;
        self.consumer.greet("good-client", READERS, &[(TOPIC, "*")]).await;
        for (half, body, end) in std::mem::take(&mut self.undecided) {
            self.decide(half, body, end).await?;
        }
        for at in 0..QUEUES {
            let offset = self.confirmed(at).await?;
            let queue = &mut self.queues[at];
            if offset < queue.floor {
                let floor = queue.floor;
                return Err(trouble(format!(
                    "offset of queue {at} went back to {offset}, at least {floor} must be kept"
                )));
            }
            queue.confirmed = VecDeque::from([(clock::monotonic(), offset)]);
            let from = if all { 0 } else { (queue.compared - OVERLAP).max(0) };
            let found = self.read(TOPIC, at as i32, from).await?;
            self.queues[at].compare_to_end(&found, from)?;
        }
        let from = if all { 0 } else { (self.halves.compared - OVERLAP).max(0) };
        let found = self.read(HALVES, 0, from).await?;
        if let Some(shown) = found.iter().find(|message| self.rolled_back.contains(&text(&message.body))) {
            return Err(trouble(format!("{} was rolled back and is shown", text(&shown.body))));
        }
        self.halves.compare_to_end(&found, from)
    }

    /// How many messages were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.queues.iter().map(|queue| queue.acknowledged.len()).sum::<usize>() + self.halves.acknowledged.len()
    }
}

impl Queue {
    /// Whether `found`, read from `from` on, is what lies there.
    fn compare(&self, found: &[Message], from: i64) -> Result<(), Trouble> {
        let start = self.acknowledged.partition_point(|(offset, _)| *offset < from);
        let mut wanted = self.acknowledged[start..].iter().peekable();
        let mut seen = BTreeSet::new();
        for (next, message) in (from..).zip(found) {
            let (offset, body) = (message.queue_offset, text(&message.body));
            if offset != next {
                return Err(trouble(format!("offset {next} is missing, {offset} follows")));
            }
            match wanted.next_if(|(at, _)| *at == offset) {
                Some((_, known)) if *known == body => {}
                Some((_, known)) => {
                    return Err(trouble(format!("offset {offset} has {body}, {known} was acknowledged")));
                }
                // There or not, but once.
                None if self.unknown.contains(&body) && seen.insert(body.clone()) => {}
                None => return Err(trouble(format!("offset {offset} has {body}, which nobody sent there"))),
            }
        }
        Ok(())
    }

    /// The same for everything up to the end.
    fn compare_to_end(&mut self, found: &[Message], from: i64) -> Result<(), Trouble> {
        self.compare(found, from)?;
        let end = from + found.len() as i64;
        if let Some((offset, body)) = self.acknowledged.iter().find(|(offset, _)| *offset >= end) {
            return Err(trouble(format!("{body} was acknowledged at {offset} and is gone: the queue ends at {end}")));
        }
        self.compared = end;
        Ok(())
    }
}

/// Sends until it is not refused for the moment: a broker that has too much to do may say so, for a while.
async fn patiently(wire: &Wire, request: &Frame, refused: &mut usize) -> Result<Frame, CallError> {
    let begun = clock::monotonic();
    loop {
        let answer = wire.call(request.clone()).await?;
        let is_busy = matches!(answer.code, response::SYSTEM_BUSY | response::FLOW_CONTROL);
        if !is_busy || since(begun) > BUSY {
            return Ok(answer);
        }
        *refused += 1;
        tokio::time::sleep(BUSY / 100).await;
    }
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// The header of an answer that must be a success.
fn succeeded<'a, H: escrowmq_common::header::Header<'a>>(answer: &'a Frame, what: &str) -> Result<H, Trouble> {
    if answer.code != response::SUCCESS {
        return Err(trouble(format!("{what}: code {} {:?}", answer.code, answer.remark)));
    }
    answer.header().map_err(|error| trouble(format!("{what}: {error}")))
}
