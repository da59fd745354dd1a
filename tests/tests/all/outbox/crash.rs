//! The process dies wherever it waits, by SIGKILL: while it places an order, while its relay takes slots, reads, sends, settles, and
//! gives up.
//!
//! A child places one order, relays it and ends. It kills itself when its thread goes to sleep for the n-th time, which is when
//! every task of it waits for something; children with all n run until none dies any more, a few at the same time, each lane with
//! an outbox of its own. A child takes over what the dead one before it has left. In the end there is a message for each order
//! that is committed, once, and no other.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escrowmq_client::{Client, Message, Outbox, OutboxState, Relay};
use escrowmq_tests::dying::{CrashPoints, dying_at_sleep};
use escrowmq_tests::processes::Process;
use escrowmq_tests::until_within;
use rustix::process::Signal;
use sqlx::Pool;

use super::{QUEUES, SENDING, Scene, TOPIC, with_databases};
use crate::barrier::shop::Shop;

/// Children at the same time.
const LANES: usize = 8;

/// Most points. On a busy machine a child sleeps more often, while it waits for a lease.
const POINTS: u32 = 400;

/// How long a child may take: it waits for the lease of a dead one.
const CHILD: Duration = Duration::from_secs(60);

/// The shortest lease that there is.
const LEASE: Duration = Duration::from_secs(1);

/// A child's orders: nameserver, URL of the database, table, number of the order, point of death.
const ORDER: &str = "ESCROWMQ_OUTBOX_CHILD";

with_databases!(dying_wherever_it_waits);

async fn dying_wherever_it_waits<DB: Shop>(scene: Scene<DB>) {
    // A message that is sent again is recognised.
    let window = "+duplicate.window.seconds=600";
    scene.cluster.broker.wire().create_topic_with(TOPIC, QUEUES.cast_signed(), window).await;
    let mut outboxes = Vec::new();
    for lane in 0..LANES {
        let outbox = Outbox::builder(scene.pool.clone()).table(table(lane)).build().expect("good settings");
        outbox.create_tables().await.expect("tables");
        outboxes.push(outbox);
    }
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
                died.insert(order(*number));
            } else {
                assert!(status.success(), "{number} failed: {status}\n{}", child.log());
                finished.insert(order(*number));
            }
        }
        if died.len() == before && points.ends_without_death() {
            break;
        }
    }
    let producer = scene.producer("the-last").await;
    for outbox in &outboxes {
        let relay = outbox.relay(&producer).lease(LEASE).start().expect("a relay");
        until_sent(outbox, &relay).await;
        relay.shutdown().await;
    }
    let orders = DB::orders(&scene.pool).await;
    let mut read = scene.visible().await.concat();
    read.sort();
    assert_eq!(read, orders.iter().cloned().collect::<Vec<_>>(), "each order has its message, once");
    assert!(finished.is_subset(&orders), "committed for certain: {finished:?}");
    let after = died.intersection(&orders).count();
    eprintln!("outbox, {}: {} deaths, {after} of them after the commit", DB::NAME, died.len());
    assert!(died.intersection(&orders).next().is_some(), "no death after the commit");
    assert!(died.difference(&orders).next().is_some(), "no death before the commit");
}

fn table(lane: usize) -> String {
    format!("outbox_{lane}")
}

fn order(number: usize) -> String {
    format!("order-{number:04}")
}

async fn until_sent<DB: Shop>(outbox: &Outbox<DB>, relay: &Relay) {
    until_within(SENDING, "an outbox without waiting rows", async || {
        let count = outbox.count().await.ok()?;
        let is_empty = !count.contains_key(&OutboxState::Waiting);
        // What is sent is settled before it is gone.
        (is_empty && relay.stats().oldest.is_none()).then_some(())
    })
    .await;
}

fn start_child<DB: Shop>(scene: &Scene<DB>, (number, point): (usize, u32), folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("the running test is a file"));
    command.args(["--exact", "outbox::crash::child", "--ignored", "--nocapture"]);
    let table = table(number % LANES);
    let words = [scene.cluster.nameserver.address(), scene.url.clone(), table, number.to_string(), point.to_string()];
    command.env(ORDER, words.join(" "));
    Process::start(&order(number), command, &folder.join(order(number)))
}

#[test]
#[ignore = "the process that the tests above kill"]
fn child() {
    let Ok(words) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [nameserver, url, table, number, point] = words[..] else { panic!("{ORDER}={words:?}") };
    let point: u32 = point.parse().expect("a number");
    let counts = Arc::new(AtomicBool::new(false));
    let runtime = dying_at_sleep(point, Arc::clone(&counts));
    let order = order(number.parse().expect("a number"));
    match url.split(':').next() {
        Some("sqlite") => runtime.block_on(buy::<sqlx::Sqlite>(nameserver, url, table, order, &counts)),
        Some("postgres") => runtime.block_on(buy::<sqlx::Postgres>(nameserver, url, table, order, &counts)),
        _ => runtime.block_on(buy::<sqlx::MySql>(nameserver, url, table, order, &counts)),
    }
}

async fn buy<DB: Shop>(nameserver: &str, url: &str, table: &str, order: String, counts: &AtomicBool) {
    let pool = Pool::<DB>::connect(url).await.expect("the database takes connections");
    let outbox = Outbox::builder(pool.clone()).table(table).build().expect("good settings");
    let client = Client::builder(nameserver).connect().await.expect("a client connects");
    let producer = client.producer(table).topics([TOPIC]).start().await.expect("a producer");
    counts.store(true, Ordering::Relaxed);
    let mut tx = pool.begin().await.expect("a transaction");
    DB::order(&mut tx, &order).await.expect("an order");
    outbox.add(&mut tx, Message::new(TOPIC, order)).await.expect("its message");
    outbox.commit(tx).await.expect("a commit");
    let relay = outbox.relay(&producer).lease(LEASE).start().expect("a relay");
    until_sent(&outbox, &relay).await;
    relay.shutdown().await;
    // The process ends here without a word, as most do.
}
