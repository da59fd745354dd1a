//! Members of one version are replaced by the next, one after the other, while clients send.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use escrowmq_common::code::response;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;

use super::support::{Bench, remote};
use crate::config::BrokerConfig;
use crate::group::OpenError;
use crate::start::StartError;
use crate::terms::{FEATURE_LEVEL, FIRST_LEVEL, QueueOffset};
use crate::tests::support::{PATIENCE, create_topic, until};
use crate::tests::tools::support::{Sent, send_request};

const SEATS: [usize; 3] = [0, 1, 2];
/// Acknowledged messages that each step of the roll waits for.
const BETWEEN_STEPS: usize = 20;

/// Sends one message after the other to whoever answers.
struct Sender {
    addresses: Mutex<Vec<String>>,
    /// Queue offsets that were acknowledged.
    acknowledged: Mutex<Vec<i64>>,
    ends: AtomicBool,
}

impl Sender {
    async fn run(self: Arc<Self>) {
        let remote = remote();
        for turn in 0.. {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let address = {
                let addresses = self.addresses.lock();
                addresses[turn % addresses.len()].clone()
            };
            match remote.call(&address, send_request("T", &[]), PATIENCE).await {
                Ok(answer) if answer.code == response::SUCCESS => {
                    self.acknowledged.lock().push(Sent::of(&answer).offset);
                }
                // Nobody leads for a moment, or the connection broke: the next one may do better.
                _ => tokio::task::yield_now().await,
            }
        }
    }

    async fn until_more(&self) {
        let before = self.acknowledged.lock().len();
        until("more is acknowledged", async || self.acknowledged.lock().len() >= before + BETWEEN_STEPS).await;
    }
}

fn addresses(bench: &Bench, seats: impl IntoIterator<Item = usize>) -> Vec<String> {
    seats.into_iter().map(|at| bench.at(at).local_addr().to_string()).collect()
}

/// A key that the older version keeps in each member's own file.
fn of_the_file(_: usize, config: &mut BrokerConfig) {
    config.transaction_check_max = 17;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_go_over_to_the_next_level_one_by_one_under_load() {
    let mut bench = Bench::new();
    bench.start(&SEATS, FIRST_LEVEL, of_the_file).await;
    let made = bench.call(bench.leader().await, create_topic("T", 1)).await.unwrap();
    assert_eq!(made.code, response::SUCCESS, "{:?}", made.remark);
    // As ever: a change is the member's own.
    let follower = (bench.leader().await + 1) % 3;
    bench.updated(follower, "transactionCheckMax=18").await;
    assert_eq!(bench.shown((follower + 1) % 3, "transactionCheckMax").await, "17");

    let sender = Sender {
        addresses: Mutex::new(addresses(&bench, SEATS)),
        acknowledged: Mutex::default(),
        ends: AtomicBool::new(false),
    };
    let sender = Arc::new(sender);
    let tasks = Tasks::new();
    tasks.spawn("sender", Arc::clone(&sender).run());
    let level = |bench: &Bench, at: usize| bench.at(at).broker().shard.agreed().level;
    for at in SEATS {
        sender.until_more().await;
        assert!(SEATS.into_iter().all(|one| level(&bench, one) == FIRST_LEVEL), "one speaks no more");
        *sender.addresses.lock() = addresses(&bench, SEATS.into_iter().filter(|other| *other != at));
        bench.stop(at).await;
        sender.until_more().await;
        bench.start(&[at], FEATURE_LEVEL, of_the_file).await;
        *sender.addresses.lock() = addresses(&bench, SEATS);
    }
    until("the group goes over", async || SEATS.into_iter().all(|at| level(&bench, at) == FEATURE_LEVEL)).await;
    bench.until_logged().await;
    bench.until_shown("transactionCheckMax", "17").await;
    bench.updated(bench.leader().await, "transactionCheckMax=19").await;
    bench.until_shown("transactionCheckMax", "19").await;
    sender.until_more().await;
    sender.ends.store(true, Ordering::Relaxed);
    tasks.join().await;

    let offsets = sender.acknowledged.lock().clone();
    let acknowledged: BTreeSet<i64> = offsets.iter().copied().collect();
    assert_eq!(acknowledged.len(), offsets.len(), "an offset was given twice: {offsets:?}");
    let last = *acknowledged.last().unwrap();
    for at in SEATS {
        let shard = &bench.at(at).broker().shard;
        let queue = Arc::clone(shard.topics().get("T").unwrap().queue(0).unwrap());
        until("all is applied", async || queue.max_offset().signed() > last).await;
        let found = shard.entries(&queue, QueueOffset::ZERO, usize::MAX, usize::MAX, |_| true).unwrap();
        let found: BTreeSet<i64> = found.wanted.iter().map(|entry| entry.offset.signed()).collect();
        assert!(acknowledged.is_subset(&found), "n{at} has lost {:?}", acknowledged.difference(&found));
    }

    // Back to the older version: refused by name, before anything is read.
    bench.stop(2).await;
    let refused = bench.open(2, FIRST_LEVEL, of_the_file).await.err().unwrap();
    assert!(matches!(refused, StartError::Storage(OpenError::TooNew { level: FEATURE_LEVEL, .. })), "{refused}");
    assert!(refused.to_string().contains("is of feature level 2, and this build speaks 1"), "{refused}");
    bench.start(&[2], FEATURE_LEVEL, of_the_file).await;
    bench.until_shown("transactionCheckMax", "19").await;
    bench.stop_all().await;
}
