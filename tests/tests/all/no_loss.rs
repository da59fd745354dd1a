//! Acknowledged messages survive, in order: 10,000 messages of 8 producers, with `kill -9` of the broker in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_client::ConsumeFrom;
use escrowmq_common::code::response;
use escrowmq_common::header::SendMessageResponse;
use escrowmq_tests::ledger::{Contents, Entry, Ledger};
use escrowmq_tests::{Cluster, Settings, Wire, until, until_within};
use futures_util::future::join_all;
use parking_lot::Mutex;

const TOPIC: &str = "Acknowledged";
const QUEUES: i32 = 4;
const PRODUCERS: u32 = 8;
const EACH: u32 = 1_250;
const ALL: usize = (PRODUCERS * EACH) as usize;

/// The whole run, crashes included.
const RUN: Duration = Duration::from_secs(90);

/// Sends everything of one producer, each message again until it is acknowledged.
async fn produce(address: &str, producer: u32, acknowledged: &AtomicUsize) -> Ledger<i32> {
    let wire = Wire::to(address.to_owned());
    let mut ledger = Ledger::default();
    for number in 0..EACH {
        let entry = Entry { producer, number };
        let queue = ((producer + number / 50) % QUEUES as u32).cast_signed();
        ledger.attempt(entry);
        let offset = until("acknowledgement", async || {
            let answer = wire.send(TOPIC, queue, entry.body(), &[]).await.ok()?;
            let header: SendMessageResponse<'_> = answer.header().ok()?;
            (answer.code == response::SUCCESS).then_some(header.queue_offset)
        })
        .await;
        ledger.acknowledge(entry, queue, offset);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    ledger
}

async fn contents(wire: &Wire) -> Contents<i32> {
    let mut contents = Contents::new();
    for queue in 0..QUEUES {
        let messages = wire.read_queue(TOPIC, queue).await.into_iter();
        let entries = messages.map(|message| {
            let entry = Entry::read(&message.body).unwrap_or_else(|| panic!("a strange body: {:?}", message.body));
            (message.queue_offset, entry)
        });
        contents.insert(queue, entries.collect());
    }
    contents
}

async fn acknowledged_survives(flush: &str) {
    // Small segments, so that crashes meet the change from one to the next.
    let settings = Settings::default().with("flushDiskType", flush).with("mappedFileSizeCommitLog", 1 << 20);
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client_with_topic(TOPIC, QUEUES as u32).await;
    let delivered: Arc<Mutex<std::collections::BTreeSet<Entry>>> = Arc::default();
    let seen = Arc::clone(&delivered);
    let consumer = client.push_consumer("acknowledged-reader").subscribe(TOPIC, "*").consume_from(ConsumeFrom::First);
    let consumer = consumer.start(move |message| {
        seen.lock().extend(Entry::read(message.body()));
        async { Ok::<(), std::convert::Infallible>(()) }
    });
    let consumer = consumer.await.expect("the consumer starts");

    let acknowledged = AtomicUsize::new(0);
    let address = cluster.broker.address();
    let producing = join_all((0..PRODUCERS).map(|producer| produce(&address, producer, &acknowledged)));
    let crashing = async {
        for share in [ALL / 3, 2 * ALL / 3] {
            until_within(RUN, "progress", async || (acknowledged.load(Ordering::Relaxed) >= share).then_some(())).await;
            cluster.broker.crash().await;
        }
    };
    let running = async { tokio::join!(producing, crashing).0 };
    let mut ledger = Ledger::default();
    for own in tokio::time::timeout(RUN, running).await.expect("the producers come to their end") {
        ledger.absorb(own);
    }
    assert_eq!(ledger.acknowledged(), ALL, "a producer ended early");

    let found = contents(&cluster.broker.wire()).await;
    let wrong = ledger.judge(&found);
    assert!(wrong.is_empty(), "{} things are wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    // Once more from the disk.
    cluster.broker.crash().await;
    assert_eq!(contents(&cluster.broker.wire()).await, found, "the same after another crash");
    // And a consumer that lived through all of it has everything.
    until_within(RUN, "deliveries", async || (delivered.lock().len() >= ALL).then_some(())).await;
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_with_sync_flush() {
    acknowledged_survives("SYNC_FLUSH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_with_async_flush() {
    acknowledged_survives("ASYNC_FLUSH").await;
}
