//! Idempotent handlers on real databases: what a message does is done once, however often it comes.

mod redis;
mod tables;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use escrowmq_client::{Client, ConsumeFrom, Idempotent, Message, MessageExt, PushConsumer, SqlStore};
use escrowmq_tests::dying::{CrashPoints, dying_at_sleep};
use escrowmq_tests::processes::Process;
use escrowmq_tests::until_within;
use rustix::process::Signal;
use sqlx::Pool;

use crate::barrier::shop::Shop;
use crate::outbox::{Scene, TOPIC, names, with_databases};

const GROUP: &str = "billing";

/// How long all messages may take.
const CONSUMING: Duration = Duration::from_secs(90);

/// Children at the same time, and the messages that they share.
const LANES: usize = 8;
const MESSAGES: usize = 400;

/// Most points. On a busy machine a child sleeps more often, while it waits for its queues.
const POINTS: u32 = 60;
/// A child ends when it has handled so many.
const HANDLES: u32 = 4;

/// How long a child may take.
const CHILD: Duration = Duration::from_secs(60);

/// A child's orders: nameserver, URL of the database, point of death.
const ORDER: &str = "ESCROWMQ_IDEMPOTENT_CHILD";

with_databases!(a_message_that_comes_again_has_no_second_effect);
with_databases!(dying_wherever_a_handler_waits);

fn body(message: &MessageExt) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

/// Marks in several tables.
fn store<DB: Shop>(pool: &Pool<DB>) -> SqlStore<DB> {
    SqlStore::new(pool.clone()).shards(3).expect("a number")
}

async fn consumer<DB: Shop>(client: &Client, pool: &Pool<DB>, fails: bool) -> PushConsumer {
    let asked = Arc::new(AtomicU32::new(0));
    let handler = Idempotent::new(store(pool), GROUP).in_db_once(move |mut tx, message| {
        let asked = Arc::clone(&asked);
        async move {
            DB::effect(&mut tx, &body(&message)).await.map_err(|error| error.to_string())?;
            // After the effect, which then must not be there.
            let is_unlucky = fails && asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(5);
            if is_unlucky { Err("unlucky".to_owned()) } else { Ok(()) }
        }
    });
    let builder = client.push_consumer(GROUP).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    builder.start(handler).await.expect("a consumer")
}

async fn send_all<DB: Shop>(scene: &Scene<DB>, all: &[String], times: usize) {
    let producer = scene.client.producer("shop").start().await.expect("a producer");
    for name in all {
        for _ in 0..times {
            let message = Message::new(TOPIC, name.clone()).unique_id(format!("id-of-{name}"));
            producer.send(message).await.expect("sent");
        }
    }
}

async fn until_done<DB: Shop>(scene: &Scene<DB>, all: &[String]) {
    let all: BTreeSet<&String> = all.iter().collect();
    until_within(CONSUMING, "an effect of each message", async || {
        let effects = DB::effects(&scene.pool).await;
        (effects.iter().collect::<BTreeSet<_>>() == all).then_some(())
    })
    .await;
}

async fn a_message_that_comes_again_has_no_second_effect<DB: Shop>(scene: Scene<DB>) {
    DB::create_effects(&scene.pool).await;
    store(&scene.pool).create_tables().await.expect("a table");
    let all = names("bill", 60);
    // Two instances: each gets some of the queues, and so one of the two copies at any time.
    let other = scene.cluster.client().await;
    let first = consumer(&scene.client, &scene.pool, true).await;
    let second = consumer(&other, &scene.pool, true).await;
    send_all(&scene, &all, 2).await;
    until_done(&scene, &all).await;
    first.shutdown().await;
    second.shutdown().await;
    assert_eq!(DB::effects(&scene.pool).await, all, "each once");
}

async fn dying_wherever_a_handler_waits<DB: Shop>(scene: Scene<DB>) {
    DB::create_effects(&scene.pool).await;
    store(&scene.pool).create_tables().await.expect("a table");
    let all = names("bill", MESSAGES);
    send_all(&scene, &all, 1).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = |(number, point): (usize, u32)| {
        let order = [scene.cluster.nameserver.address(), scene.url.clone(), point.to_string()].join(" ");
        start_child("idempotent::child", order, &folder.path().join(number.to_string()))
    };
    let deaths = deaths(start).await.len();
    let before = DB::effects(&scene.pool).await.len();
    let last = consumer(&scene.client, &scene.pool, false).await;
    until_done(&scene, &all).await;
    last.shutdown().await;
    assert_eq!(DB::effects(&scene.pool).await, all, "each once");
    eprintln!("idempotent handlers, {}: {deaths} deaths, {before} effects before the last consumer", DB::NAME);
    assert!(deaths > 0 && before > 0, "{deaths} deaths, {before} effects");
}

/// Starts children at each point. Answers the numbers of those that died.
async fn deaths(start: impl Fn((usize, u32)) -> Process) -> BTreeSet<usize> {
    let mut dead = BTreeSet::new();
    let points = CrashPoints::up_to(POINTS);
    for lanes in points.lanes(LANES) {
        let mut children: Vec<(usize, Process)> = lanes.iter().map(|at| (at.0, start(*at))).collect();
        let before = dead.len();
        for (number, child) in &mut children {
            let status = child.wait(CHILD).await;
            if status.signal() == Some(Signal::KILL.as_raw()) {
                dead.insert(*number);
            } else {
                assert!(status.success(), "{status}\n{}", child.log());
            }
        }
        if dead.len() == before && points.ends_without_death() {
            break;
        }
    }
    dead
}

fn start_child(test: &str, order: String, log: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("the running test is a file"));
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(ORDER, order);
    Process::start("consumer", command, log)
}

#[test]
#[ignore = "the process that the tests above kill"]
fn child() {
    let Ok(words) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [nameserver, url, point] = words[..] else { panic!("{ORDER}={words:?}") };
    let point: u32 = point.parse().expect("a number");
    let counts = Arc::new(AtomicBool::new(false));
    let runtime = dying_at_sleep(point, Arc::clone(&counts));
    match url.split(':').next() {
        Some("sqlite") => runtime.block_on(work::<sqlx::Sqlite>(nameserver, url, counts)),
        Some("postgres") => runtime.block_on(work::<sqlx::Postgres>(nameserver, url, counts)),
        _ => runtime.block_on(work::<sqlx::MySql>(nameserver, url, counts)),
    }
}

/// Handles some messages, and counts sleeps from the first one on.
async fn work<DB: Shop>(nameserver: &str, url: &str, counts: Arc<AtomicBool>) {
    let pool = Pool::<DB>::connect(url).await.expect("the database takes connections");
    let client = Client::builder(nameserver).connect().await.expect("a client connects");
    let handled = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&handled);
    let handler = Idempotent::new(store(&pool), GROUP).in_db_once(move |mut tx, message| {
        counts.store(true, Ordering::Relaxed);
        let told = Arc::clone(&told);
        async move {
            DB::effect(&mut tx, &body(&message)).await?;
            told.fetch_add(1, Ordering::Relaxed);
            Ok::<(), sqlx::Error>(())
        }
    });
    let builder = client.push_consumer(GROUP).subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    until_some(builder.start(handler).await.expect("a consumer"), &handled).await;
}

/// Ends a child's consumer after some messages.
async fn until_some(consumer: PushConsumer, handled: &AtomicU32) {
    // There may be no messages for it.
    let some = async || (handled.load(Ordering::Relaxed) >= HANDLES).then_some(());
    let _ = tokio::time::timeout(Duration::from_secs(3), until_within(CHILD, "messages", some)).await;
    consumer.shutdown().await;
}
