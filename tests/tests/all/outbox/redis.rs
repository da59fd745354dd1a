//! The outbox in a real Redis that syncs each write: what was executed is sent, in the order of its key, whoever dies.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_client::{
    AddError, Client, Message, OnFailed, OutboxQuery, OutboxRow, OutboxState, Producer, RedisOutbox, Relay,
};
use escrowmq_tests::dying::{CrashPoints, dying_at_sleep};
use escrowmq_tests::processes::Process;
use escrowmq_tests::{Cluster, Redis, until, until_within};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, Pipeline, RedisError};
use rustix::process::Signal;

use super::{QUEUES, SENDING, TOPIC, names};

/// More than the broker takes.
const LARGE: usize = 100_000;

/// Children at the same time, each with an outbox of its own.
const LANES: usize = 8;
/// Most points. On a busy machine a child sleeps more often, while it waits for a lease.
const POINTS: u32 = 300;
/// How long a child may take: it waits for the lease of a dead one.
const CHILD: Duration = Duration::from_secs(60);
/// The shortest lease that there is.
const LEASE: Duration = Duration::from_secs(1);
/// A child's orders: nameserver, URL of Redis, lane, number of the order, point of death.
const ORDER: &str = "ESCROWMQ_REDIS_OUTBOX_CHILD";

async fn connect(url: &str) -> ConnectionManager {
    let client = redis::Client::open(url).expect("a URL");
    client.get_connection_manager().await.expect("Redis takes connections")
}

/// A cluster, and a shop whose orders are a list in Redis.
struct Scene {
    cluster: Cluster,
    client: Client,
    redis: Redis,
    connection: ConnectionManager,
    outbox: RedisOutbox<ConnectionManager>,
}

/// An order with its message. The key is the first part of the name.
fn order(outbox: &RedisOutbox<ConnectionManager>, list: &str, message: Message, name: &str) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic().rpush(list, name).ignore();
    let key = name.split('-').next().expect("a first part").to_owned();
    outbox.add(&mut pipe, message.sharding_key(key)).expect("a message");
    pipe
}

impl Scene {
    async fn open(test: &str) -> Option<Scene> {
        let redis = Redis::start(test).await?;
        let (cluster, client) = super::cluster().await;
        let connection = connect(&redis.url()).await;
        let outbox = RedisOutbox::new(connection.clone()).prefix("shop");
        Some(Scene { cluster, client, redis, connection, outbox })
    }

    async fn producer(&self, group: &str) -> Producer {
        super::producer(&self.client, group).await
    }

    async fn relay(&self, group: &str) -> Relay {
        self.outbox.relay(&self.producer(group).await).lease(Duration::from_secs(2)).start().expect("a relay")
    }

    /// Places an order. One whose name ends with `large` is too large for the broker, which nobody knows before.
    async fn order(&self, name: &str) -> Result<(), RedisError> {
        let body = if name.ends_with("large") { "x".repeat(LARGE) } else { name.to_owned() };
        let message = Message::new(TOPIC, body).tag("new").key(name).property("shop", "north");
        let placed = order(&self.outbox, "orders", message, name).exec_async(&mut self.connection.clone()).await;
        self.outbox.wake();
        placed
    }

    async fn order_all<N: AsRef<str>>(&self, names: &[N]) {
        for name in names {
            self.order(name.as_ref()).await.expect("an order");
        }
    }

    async fn set_maxmemory(&self, bytes: u32) {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("maxmemory").arg(bytes).exec_async(&mut self.connection.clone()).await.expect("it is set");
    }

    async fn rows(&self, state: OutboxState) -> Vec<OutboxRow> {
        let query = OutboxQuery { state: Some(state), ..OutboxQuery::default() };
        self.outbox.list(&query).await.expect("rows")
    }

    /// Waits until so many rows are in each state.
    async fn until_count(&self, wanted: &[(OutboxState, u64)]) {
        let wanted = wanted.iter().copied().collect();
        until_within(SENDING, &format!("rows: {wanted:?}"), async || {
            self.outbox.count().await.is_ok_and(|count| count == wanted).then_some(())
        })
        .await;
    }

    /// The bodies of each queue.
    async fn visible(&self) -> Vec<Vec<String>> {
        super::read(&self.cluster).await.0
    }

    /// Asserts that each key has one queue, in which its orders are in the order of the list.
    async fn agreed(&self, list: &str) -> Vec<String> {
        let placed: Vec<String> = self.connection.clone().lrange(list, 0, -1).await.expect("orders");
        let queues = self.visible().await;
        let all: BTreeSet<&String> = placed.iter().collect();
        assert!(queues.iter().flatten().all(|name| all.contains(name)), "a message without its order");
        let key = |name: &str| name.split('-').next().map(str::to_owned);
        for of_key in placed.iter().map(|name| key(name)).collect::<BTreeSet<_>>() {
            let with_key = |names: &[String]| names.iter().filter(|name| key(name) == of_key).cloned().collect();
            let read: Vec<Vec<String>> = queues.iter().map(|queue| with_key(queue)).collect();
            let read: Vec<Vec<String>> = read.into_iter().filter(|names| !names.is_empty()).collect();
            assert_eq!(read, [with_key(&placed)], "the orders of {of_key:?}, in one queue");
        }
        placed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_executed_is_sent_in_order_and_nothing_else() {
    let Some(scene) = Scene::open("outbox::redis::what_is_executed").await else { return };
    scene.order_all(&names("a", 100)).await;
    // Without memory Redis refuses all of a MULTI, also what needs none, and relays make room.
    scene.set_maxmemory(1).await;
    let mut pipe = redis::pipe();
    pipe.atomic().del("orders");
    scene.outbox.add(&mut pipe, Message::new(TOPIC, "never")).expect("a message");
    pipe.exec_async(&mut scene.connection.clone()).await.expect_err("there is no memory");
    let relay = scene.relay("relay").await;
    scene.until_count(&[]).await;
    scene.set_maxmemory(0).await;
    let (b, c, d) = (names("b", 60), names("c", 60), names("d", 60));
    tokio::join!(scene.order_all(&b), scene.order_all(&c), scene.order_all(&d));

    let message = || Message::new(TOPIC, "never");
    let refused = scene.outbox.add(&mut redis::pipe(), message()).expect_err("no MULTI");
    assert!(matches!(refused, AddError::NotAtomic) && !refused.is_retryable(), "{refused}");
    let mut pipe = redis::pipe();
    let refused = scene.outbox.add(pipe.atomic(), Message::new(TOPIC, vec![0; (4 << 20) + 1])).expect_err("too large");
    assert!(matches!(refused, AddError::Invalid { .. }) && pipe.is_empty(), "{refused}");
    // Redis refuses the last command before anything runs.
    let mut pipe = order(&scene.outbox, "orders", message(), "b-9999");
    pipe.cmd("SET").arg("no value").exec_async(&mut scene.connection.clone()).await.expect_err("nothing is done");

    scene.until_count(&[]).await;
    assert_eq!(scene.agreed("orders").await.len(), 280);
    let found = scene.cluster.broker.wire().query(TOPIC, "a-0007", false).await;
    let properties = found[0].properties();
    assert_eq!((found.len(), properties.get("TAGS"), properties.get("shop")), (1, Some("new"), Some("north")));
    until("all are counted", async || relay.stats().oldest.is_none().then_some(())).await;
    let stats = relay.stats();
    assert_eq!((stats.slots, stats.sent, stats.refused, stats.alarm), (128, 280, 0, false), "{stats:?}");
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_fails_and_holds_its_key() {
    let Some(scene) = Scene::open("outbox::redis::a_refused_message").await else { return };
    let relay = scene.relay("relay").await;
    scene.order_all(&["a-0", "a-1", "a-large", "a-3", "a-4", "b-0"]).await;
    scene.until_count(&[(OutboxState::Failed, 1), (OutboxState::Held, 2)]).await;
    let failed = scene.rows(OutboxState::Failed).await;
    assert_eq!((failed.len(), failed[0].attempts, failed[0].key.as_str()), (1, 3, "a"));
    assert!(failed[0].bytes > LARGE as u64 && !failed[0].last_error.is_empty(), "{:?}", failed[0]);
    assert!(failed[0].created_at <= failed[0].changed_at && failed[0].created_at.starts_with("20"), "{:?}", failed[0]);
    let id = failed[0].id;
    let message = scene.outbox.message(id).await.expect("an answer").expect("a row");
    assert_eq!((message.body().len(), message.topic()), (LARGE, TOPIC));
    // Also those that come later, and those of another relay.
    relay.shutdown().await;
    let relay = scene.relay("other").await;
    scene.order_all(&["a-5", "b-1"]).await;
    scene.until_count(&[(OutboxState::Failed, 1), (OutboxState::Held, 3)]).await;
    let mut read = scene.visible().await.concat();
    read.sort();
    assert_eq!(read, ["a-0", "a-1", "b-0", "b-1"]);
    // A page that is smaller than what there is, and the rest.
    let page = scene.outbox.list(&OutboxQuery { limit: 3, ..OutboxQuery::default() }).await.expect("rows");
    let after = OutboxQuery { after: page[2].id, ..OutboxQuery::default() };
    let rest = scene.outbox.list(&after).await.expect("rows");
    assert_eq!((page.len(), page[0].id, rest.len()), (3, id, 1));

    assert!(!scene.outbox.requeue(rest[0].id).await.expect("an answer"), "it has not failed");
    assert!(scene.outbox.requeue(id).await.expect("an answer"));
    // It fails again, and those that went with it are held again.
    until("it fails again", async || (relay.stats().failed == 1).then_some(())).await;
    scene.until_count(&[(OutboxState::Failed, 1), (OutboxState::Held, 3)]).await;
    assert!(scene.outbox.discard(id).await.expect("an answer"));
    assert!(!scene.outbox.discard(id).await.expect("an answer"), "it is gone");
    scene.until_count(&[]).await;
    let of_key = |name: &String| name.starts_with('a');
    let read: Vec<String> = scene.visible().await.concat().into_iter().filter(of_key).collect();
    assert_eq!(read, ["a-0", "a-1", "a-3", "a-4", "a-5"]);
    relay.shutdown().await;
    let left: Vec<String> = scene.connection.clone().keys("{shop}:*").await.expect("keys");
    assert!(left.iter().all(|key| key.starts_with("{shop}:new:")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_lets_others_pass_where_that_is_wanted() {
    let Some(scene) = Scene::open("outbox::redis::a_failed_message").await else { return };
    let relay = scene.outbox.relay(&scene.producer("relay").await).on_failed(OnFailed::Pass).max_attempts(1);
    let relay = relay.keep_sent(Duration::from_secs(3600)).start().expect("a relay");
    scene.order_all(&["a-0", "a-large", "a-2"]).await;
    scene.until_count(&[(OutboxState::Sent, 2), (OutboxState::Failed, 1)]).await;
    assert_eq!(scene.visible().await.concat(), ["a-0", "a-2"]);
    relay.shutdown().await;
    // Sent rows that are older than another relay keeps go.
    let relay = scene.relay("other").await;
    scene.until_count(&[(OutboxState::Failed, 1)]).await;
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_use_up_no_attempt_and_another_relay_stands_by() {
    let Some(mut scene) = Scene::open("outbox::redis::brokers_that_are_away").await else { return };
    // A send whose answer came too late is repeated, and recognised.
    let window = "+duplicate.window.seconds=600";
    scene.cluster.broker.wire().create_topic_with(TOPIC, QUEUES.cast_signed(), window).await;
    let first = scene.relay("first").await;
    until("the first one has the lease", async || (first.stats().slots == 128).then_some(())).await;
    let second = scene.relay("second").await;
    scene.cluster.broker.kill();
    scene.order_all(&names("a", 20)).await;
    until("tries that end", async || (first.stats().away >= 3).then_some(())).await;
    let rows = scene.rows(OutboxState::Waiting).await;
    assert!(rows.len() == 20 && rows.iter().all(|row| row.attempts == 0), "{rows:?}");
    let stats = first.stats();
    assert!(stats.oldest > Some(Duration::ZERO) && stats.last_error.is_some(), "{stats:?}");
    assert_eq!((second.stats().slots, second.stats().away), (0, 0), "it stands by");
    first.shutdown().await;
    until("the second one has the lease", async || (second.stats().slots == 128).then_some(())).await;
    scene.cluster.broker.start_again().await;
    scene.until_count(&[]).await;
    assert_eq!(scene.agreed("orders").await.len(), 20);
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_keeps_orders_with_their_messages_or_neither() {
    let Some(mut scene) = Scene::open("outbox::redis::a_server_that_is_killed").await else { return };
    let relays = [scene.relay("first").await, scene.relay("second").await];
    let url = scene.redis.url();
    let (mut answered, mut number) = (BTreeSet::new(), 0);
    for _ in 0..3 {
        let (outbox, mut connection) = (scene.outbox.clone(), connect(&url).await);
        let first = number;
        number += 10_000;
        let answered = &mut answered;
        // Until the server is gone.
        let placing = async {
            for number in first..first + 10_000 {
                let name = format!("{}-{number:05}", number % 5);
                let pipe = order(&outbox, "orders", Message::new(TOPIC, name.clone()), &name);
                if pipe.exec_async(&mut connection).await.is_err() {
                    break;
                }
                outbox.wake();
                answered.insert(name);
            }
        };
        let sent = || relays.iter().map(|relay| relay.stats().sent).sum::<u64>();
        let before = sent();
        let killing = async {
            until("some are sent", async || (sent() >= before + 200).then_some(())).await;
            scene.redis.kill();
        };
        tokio::join!(placing, killing);
        scene.redis.start_again().await;
    }
    scene.until_count(&[]).await;
    let placed: BTreeSet<String> = scene.agreed("orders").await.into_iter().collect();
    assert!(answered.is_subset(&placed), "lost: {:?}", answered.difference(&placed).collect::<Vec<_>>());
    for relay in relays {
        relay.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_wherever_it_waits() {
    let Some(scene) = Scene::open("outbox::redis::dying_wherever_it_waits").await else { return };
    // A message that is sent again is recognised.
    let window = "+duplicate.window.seconds=600";
    scene.cluster.broker.wire().create_topic_with(TOPIC, QUEUES.cast_signed(), window).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut died, mut finished) = (BTreeSet::new(), BTreeSet::new());
    let points = CrashPoints::up_to(POINTS);
    for points_of_lanes in points.lanes(LANES) {
        let mut children: Vec<(usize, Process)> =
            points_of_lanes.iter().map(|at| (at.0, start_child(&scene, *at, folder.path()))).collect();
        let before = died.len();
        for (number, child) in &mut children {
            let status = child.wait(CHILD).await;
            if status.signal() == Some(Signal::KILL.as_raw()) {
                died.insert(name(*number));
            } else {
                assert!(status.success(), "{number} failed: {status}\n{}", child.log());
                finished.insert(name(*number));
            }
        }
        if died.len() == before && points.ends_without_death() {
            break;
        }
    }
    let producer = scene.producer("the-last").await;
    let mut placed = BTreeSet::new();
    for lane in 0..LANES {
        let outbox = RedisOutbox::new(scene.connection.clone()).prefix(&lane.to_string());
        let relay = outbox.relay(&producer).lease(LEASE).start().expect("a relay");
        until_empty(&outbox).await;
        relay.shutdown().await;
    }
    placed.extend(scene.agreed("orders").await);
    assert!(finished.is_subset(&placed), "placed for certain: {finished:?}");
    let after = died.intersection(&placed).count();
    eprintln!("outbox, Redis: {} deaths, {after} of them after the order", died.len());
    assert!(after > 0 && after < died.len(), "no death before the order, or none after it");
}

/// The key of an order is its lane.
fn name(number: usize) -> String {
    format!("{}-{number:04}", number % LANES)
}

async fn until_empty(outbox: &RedisOutbox<ConnectionManager>) {
    until_within(SENDING, "an empty outbox", async || {
        outbox.count().await.is_ok_and(|count| count.is_empty()).then_some(())
    })
    .await;
}

fn start_child(scene: &Scene, (number, point): (usize, u32), folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("the running test is a file"));
    command.args(["--exact", "outbox::redis::child", "--ignored", "--nocapture"]);
    let (name, lane) = (name(number), number % LANES);
    let order = format!("{} {} {lane} {name} {point}", scene.cluster.nameserver.address(), scene.redis.url());
    command.env(ORDER, order);
    Process::start(&name, command, &folder.join(&name))
}

#[test]
#[ignore = "the process that the test above kills"]
fn child() {
    let Ok(words) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [nameserver, url, lane, name, point] = words[..] else { panic!("{ORDER}={words:?}") };
    let counts = Arc::new(AtomicBool::new(false));
    let runtime = dying_at_sleep(point.parse().expect("a number"), Arc::clone(&counts));
    runtime.block_on(buy(nameserver, url, lane, name, &counts));
}

async fn buy(nameserver: &str, url: &str, lane: &str, name: &str, counts: &AtomicBool) {
    let mut connection = connect(url).await;
    let outbox = RedisOutbox::new(connection.clone()).prefix(lane);
    let client = Client::builder(nameserver).connect().await.expect("a client connects");
    let producer = client.producer(lane).topics([TOPIC]).start().await.expect("a producer");
    counts.store(true, Ordering::Relaxed);
    // A child may die before its order is on its way, too.
    connection.llen::<_, usize>("orders").await.expect("an answer");
    let pipe = order(&outbox, "orders", Message::new(TOPIC, name.to_owned()), name);
    pipe.exec_async(&mut connection).await.expect("an order with its message");
    outbox.wake();
    let relay = outbox.relay(&producer).lease(LEASE).start().expect("a relay");
    until_empty(&outbox).await;
    relay.shutdown().await;
    // The process ends here without a word, as most do.
}
