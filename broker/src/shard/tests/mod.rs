//! The write path as a whole, on real files: what was answered is there, before and after a restart, and after the
//! index was deleted and rebuilt from the log.

mod crash;
mod decoding;
mod faults;
mod hostile;
mod levels;
mod lost;
mod promises;
mod publish;
mod retention;
mod transactions;
mod whole;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::clock::Clock;
use escrowmq_common::message::UnitBuilder;

use super::{
    Admission, Command, Message, MessageList, Outcome, Prepare, Prepared, Publish, Published, Queue, Settle, Shard,
};
use crate::log::{Flush, LogSettings};
use crate::storage::{Storage, StorageSettings};
use crate::terms::encode_cold;
use crate::terms::{Content, Decision, HalfId, QueueOffset, TopicSettings, When};

fn settings(dir: &Path, flush: Flush) -> StorageSettings {
    let log = LogSettings { segment_bytes: 1 << 20, flush, ..LogSettings::default() };
    StorageSettings { dir: dir.to_owned(), log }
}

async fn open(dir: &Path) -> Storage {
    Storage::open(settings(dir, Flush::Sync), Clock::system()).await.expect("opens")
}

async fn open_async(dir: &Path) -> Storage {
    let flush = Flush::Async { interval: Duration::from_secs(3600) };
    Storage::open(settings(dir, flush), Clock::system()).await.expect("opens")
}

async fn make_topic(shard: &Shard, name: &str, queues: u32) {
    let settings = encode_cold(&TopicSettings::new(name, queues));
    let outcome = shard.propose(&Command::PutTopic(&settings), Admission::Normal).await.expect("taken");
    assert_eq!(outcome, Outcome::Done);
}

fn queue(shard: &Shard, topic: &str, index: i32) -> std::sync::Arc<Queue> {
    std::sync::Arc::clone(shard.topics().get(topic).expect("the topic").queue(index).expect("the queue"))
}

/// A unit as a handler stores it.
fn unit(topic: &str, body: &str) -> BytesMut {
    let host: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
    let mut out = BytesMut::new();
    UnitBuilder { born_timestamp: 1, ..UnitBuilder::to_store(topic, 0, host, body.as_bytes(), &["TAGS\u{1}t\u{2}"]) }
        .write(&mut out)
        .expect("small enough");
    out
}

async fn publish(shard: &Shard, queue: &Queue, when: When, bodies: &[&str]) -> Published {
    let units: Vec<Vec<u8>> = bodies.iter().map(|body| unit(&queue.topic, body).to_vec()).collect();
    let messages: Vec<Message<'_>> = units.iter().map(|unit| Message::new(7, unit)).collect();
    let publish = Publish { queue: queue.id, when, messages: MessageList::Many(&messages), once: None };
    match shard.propose(&Command::Publish(publish), Admission::Normal).await.expect("taken") {
        Outcome::Published(published) => published,
        other => panic!("{other:?}"),
    }
}

async fn prepare_as(shard: &Shard, queue: &Queue, unique_id: &str, body: &str, when: When) -> Outcome {
    let unit = unit(&queue.topic, body).to_vec();
    let prepare = Prepare {
        queue: queue.id,
        when,
        immunity: None,
        first_half: None,
        content: Content::of(body.as_bytes(), ""),
        duplicate_window: 60_000,
        group: "producers",
        client: "client-1",
        unique_id,
        message: Message::new(7, &unit),
    };
    shard.propose(&Command::Prepare(prepare), Admission::Normal).await.expect("taken")
}

async fn prepare(shard: &Shard, queue: &Queue, unique_id: &str, body: &str) -> Prepared {
    match prepare_as(shard, queue, unique_id, body, When::Now).await {
        Outcome::Prepared(prepared) => prepared,
        other => panic!("{other:?}"),
    }
}

async fn settle(shard: &Shard, half: HalfId, counter: u64, decision: Decision) -> Outcome {
    let settle = Settle {
        half,
        counter: Some(counter),
        decision,
        group: Some("producers"),
        by: "",
        reason: "",
        rewritten: Vec::new(),
    };
    shard.propose(&Command::Settle(settle), Admission::Reserved).await.expect("taken")
}

/// The messages that a consumer of the queue would get: bodies, in order, with the offsets that their units carry.
fn bodies(shard: &Shard, queue: &Queue) -> Vec<String> {
    let found = shard.entries(queue, QueueOffset::ZERO, 10_000, 10_000, |_| true).expect("readable");
    let mut bodies = Vec::new();
    for (expected, entry) in (queue.min_offset().0..).zip(&found.wanted) {
        let mut out = BytesMut::new();
        shard.unit(queue, entry, &mut out).expect("readable");
        let unit = escrowmq_common::message::MessageUnit::decode(&out).expect("a unit");
        unit.check_crc().expect("the body is whole");
        assert_eq!(entry.offset, QueueOffset(expected), "offsets are dense");
        assert_eq!(unit.queue_offset(), entry.offset.signed());
        assert_eq!(unit.position(), entry.position.signed());
        bodies.push(String::from_utf8(unit.body().to_vec()).expect("text"));
    }
    bodies
}
