//! Transactions under `kill -9`, judged by a ledger: what the ledger committed is in the log exactly once, what it rolled
//! back or never heard of is nowhere, and nothing stays undecided.
//!
//! `ESCROWMQ_CAMPAIGN_KILLS` makes it longer, for example 200 for half an hour.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use escrowmq_client::{
    Client, Decision, Half, Message, MessageExt, Outcome, TransactionError, TransactionListener, TransactionProducer,
};
use escrowmq_tests::{Cluster, Settings, until, until_within};
use futures_util::future::join_all;
use parking_lot::Mutex;

const TOPIC: &str = "Campaign";
const QUEUES: u32 = 4;
const GROUP: &str = "campaign-producer";

/// Transactions that run at the same time.
const LANES: usize = 8;

/// Transactions that must have ended between two kills.
const BETWEEN_KILLS: usize = 40;

/// Everything decided, after the last fault: two check intervals and time to reconnect.
const HEALING: Duration = Duration::from_secs(40);

/// The database of the application, shared by all instances of the group. By message body.
#[derive(Clone, Default)]
struct Ledger {
    outcomes: Arc<Mutex<BTreeMap<String, Decision>>>,
    checks: Arc<AtomicUsize>,
}

impl TransactionListener for Ledger {
    async fn execute_local_transaction(&self, message: &Message, _: &Half) -> Decision {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        let number: usize = body.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let wanted = if number % 3 == 1 { Decision::Rollback } else { Decision::Commit };
        // A check may have come first, and then its answer stands: this local transaction finds the mark and gives up.
        let outcome = *self.outcomes.lock().entry(body).or_insert(wanted);
        // Every fourth producer forgets to tell.
        if number % 4 == 3 { Decision::Unknown } else { outcome }
    }

    async fn check_local_transaction(&self, message: &MessageExt) -> Decision {
        self.checks.fetch_add(1, Ordering::Relaxed);
        let body = String::from_utf8_lossy(message.body()).into_owned();
        // Nothing there: never ran, or does not run yet. The mark keeps it from running later.
        *self.outcomes.lock().entry(body).or_insert(Decision::Rollback)
    }
}

/// What the producers were told.
#[derive(Default)]
struct Told {
    confirmed: Mutex<BTreeMap<String, Decision>>,
    ended: AtomicUsize,
}

async fn producer(client: &Client, ledger: &Ledger) -> TransactionProducer {
    let builder = client.transaction_producer(GROUP, ledger.clone()).topics([TOPIC]);
    builder.decision_deadline(Duration::from_secs(10)).start().await.expect("a producer starts")
}

/// Runs one transaction after the other until it is told to stop.
async fn lane(producer: TransactionProducer, lane: usize, told: &Told, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let body = format!("{lane}/{number}");
        match producer.send(Message::new(TOPIC, body.clone())).await {
            Ok(result) => {
                let confirmed = match result.outcome {
                    Outcome::Committed { .. } => Some(Decision::Commit),
                    Outcome::RolledBack => Some(Decision::Rollback),
                    _ => None,
                };
                if let Some(decision) = confirmed {
                    told.confirmed.lock().insert(body, decision);
                }
                told.ended.fetch_add(1, Ordering::Relaxed);
            }
            Err(TransactionError::Half(_) | TransactionError::OutcomeUnknown { .. }) => {}
            Err(error) => panic!("{body}: {error}"),
        }
    }
}

async fn campaign(flush: &str, kills: usize) {
    let settings = Settings::default().with("flushDiskType", flush).with("transactionCheckMax", 1000);
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client_with_topic(TOPIC, QUEUES).await;
    let other = cluster.client().await;
    let (ledger, told, stop) = (Ledger::default(), Told::default(), AtomicBool::new(false));
    let producers = [producer(&client, &ledger).await, producer(&other, &ledger).await];
    let lanes = join_all((0..LANES).map(|number| lane(producers[number % 2].clone(), number, &told, &stop)));
    let killing = async {
        for round in 1..=kills {
            until_within(Duration::from_secs(60), "transactions between two kills", async || {
                (told.ended.load(Ordering::Relaxed) >= round * BETWEEN_KILLS).then_some(())
            })
            .await;
            cluster.broker.crash().await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(lanes, killing);

    // Healing: nothing may stay undecided. What the ledger committed arrives; then it is looked whether anything else did.
    let committed = |outcomes: &BTreeMap<String, Decision>| {
        let of = outcomes.iter().filter(|(_, decision)| **decision == Decision::Commit);
        of.map(|(body, _)| body.clone()).collect::<Vec<_>>()
    };
    let wire = cluster.broker.wire();
    let read = async || {
        let mut bodies = Vec::new();
        for queue in 0..QUEUES {
            let messages = wire.read_queue(TOPIC, queue.cast_signed()).await;
            bodies.extend(messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()));
        }
        bodies.sort();
        bodies
    };
    until_within(HEALING, "everything that the ledger committed", async || {
        let (found, wanted) = (read().await, committed(&ledger.outcomes.lock()));
        wanted.iter().all(|body| found.binary_search(body).is_ok()).then_some(())
    })
    .await;
    // A half that waits for its check would still come: a later one has been asked about and settled by then.
    let result = producers[0].send_with(Message::new(TOPIC, "last/3"), async |_| {
        ledger.outcomes.lock().insert("last/3".to_owned(), Decision::Commit);
        Decision::Unknown
    });
    result.await.expect("the last transaction");
    until("the last transaction", async || read().await.binary_search(&"last/3".to_owned()).is_ok().then_some(()))
        .await;

    let (found, outcomes) = (read().await, ledger.outcomes.lock().clone());
    assert_eq!(found, committed(&outcomes), "the log holds what the ledger committed, each once");
    for (body, decision) in told.confirmed.lock().iter() {
        assert_eq!(outcomes.get(body), Some(decision), "{body} was confirmed against the ledger");
    }
    assert!(told.ended.load(Ordering::Relaxed) >= kills * BETWEEN_KILLS);
    assert!(ledger.checks.load(Ordering::Relaxed) > kills, "checks settled what the kills cut off");
}

fn kills() -> usize {
    std::env::var("ESCROWMQ_CAMPAIGN_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(6)
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_under_kills_with_sync_flush() {
    campaign("SYNC_FLUSH", kills()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_under_kills_with_async_flush() {
    campaign("ASYNC_FLUSH", kills()).await;
}
