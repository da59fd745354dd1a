//! Members of one version are replaced by the next, one after the other, while clients send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::PullMessageHeader;
use escrowmq_common::message::Message;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;

use super::support::{Bench, remote};
use crate::config::BrokerConfig;
use crate::group::OpenError;
use crate::start::StartError;
use crate::terms::{FEATURE_LEVEL, FIRST_LEVEL, QueueOffset};
use crate::tests::support::{PATIENCE, create_topic, messages, until};
use crate::tests::tools::support::{Sent, send_request};

const SEATS: [usize; 3] = [0, 1, 2];
/// Acknowledged messages that each step of the roll waits for.
const BETWEEN_STEPS: usize = 20;
/// Longest time of a send with all its attempts: a member that stops hands its leadership over first. The group's clients give
/// a send twice as long.
const SEND_MAX: Duration = Duration::from_secs(5);

/// Sends one message after the other to whoever answers, each until it is acknowledged.
#[derive(Default)]
struct Sender {
    addresses: Mutex<Vec<String>>,
    /// The numbers of messages by the queue offsets that were acknowledged for them.
    acknowledged: Mutex<Vec<(i64, u64)>>,
    /// The longest time that a message took with all its attempts, and how many of those failed.
    longest: Mutex<Duration>,
    failed: AtomicU64,
    /// Answers that no client can do anything about.
    faults: Mutex<Vec<String>>,
    ends: AtomicBool,
}

impl Sender {
    async fn run(self: Arc<Self>) {
        let remote = remote();
        let mut turn = 0;
        for number in 0.. {
            let began = clock::monotonic();
            while !self.ends.load(Ordering::Relaxed) {
                turn += 1;
                let address = {
                    let addresses = self.addresses.lock();
                    addresses[turn % addresses.len()].clone()
                };
                let request = send_request("T", &[]).with_body(number.to_string());
                match remote.call(&address, request, PATIENCE).await {
                    Ok(answer) if answer.code == response::SUCCESS => {
                        self.acknowledged.lock().push((Sent::of(&answer).offset, number));
                        let mut longest = self.longest.lock();
                        *longest = (*longest).max(clock::monotonic().saturating_sub(began));
                        break;
                    }
                    // Nobody leads for a moment, or the connection broke: the next one may do better.
                    Ok(answer) if matches!(answer.code, response::SERVICE_NOT_AVAILABLE | response::SYSTEM_ERROR) => {}
                    Ok(answer) => self.faults.lock().push(format!("{} {:?}", answer.code, answer.remark)),
                    Err(_) => tokio::task::yield_now().await,
                }
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn until_more(&self) {
        let before = self.acknowledged.lock().len();
        until("more is acknowledged", async || self.acknowledged.lock().len() >= before + BETWEEN_STEPS).await;
    }

    /// Gives the acknowledged messages: their numbers by queue offset. Fails if a send took too long with its attempts.
    fn acknowledged(&self) -> BTreeMap<i64, u64> {
        let (longest, failed) = (*self.longest.lock(), self.failed.load(Ordering::Relaxed));
        println!("the slowest send took {longest:?} with its attempts, {failed} attempts failed");
        assert!(longest < SEND_MAX, "{longest:?}");
        let faults = self.faults.lock();
        assert!(faults.is_empty(), "{faults:?}");
        let told = self.acknowledged.lock();
        let acknowledged: BTreeMap<i64, u64> = told.iter().copied().collect();
        assert_eq!(acknowledged.len(), told.len(), "an offset was given twice: {told:?}");
        acknowledged
    }
}

/// The numbers of the messages by their queue offsets, as a member shows them.
async fn shown(bench: &Bench, at: usize) -> BTreeMap<i64, u64> {
    let mut found = BTreeMap::new();
    loop {
        let next = found.last_key_value().map_or(0, |(offset, _)| offset + 1);
        let pull = PullMessageHeader::new("reader", "T", 0, next, 32);
        let answer = bench.call(at, Frame::request(request::PULL_MESSAGE).with_header(&pull)).await.unwrap();
        if answer.code != response::SUCCESS {
            assert!(
                matches!(answer.code, response::PULL_NOT_FOUND | response::PULL_OFFSET_MOVED),
                "{:?}",
                answer.remark
            );
            return found;
        }
        let number = |message: &Message| std::str::from_utf8(&message.body).unwrap().parse().unwrap();
        found.extend(messages(&answer).iter().map(|message| (message.queue_offset, number(message))));
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

    let sender = Arc::new(Sender { addresses: Mutex::new(addresses(&bench, SEATS)), ..Sender::default() });
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

    let sent = sender.acknowledged();
    let there = shown(&bench, bench.leader().await).await;
    for (offset, number) in &sent {
        assert_eq!(there.get(offset), Some(number), "what was acknowledged for offset {offset}");
    }
    let acknowledged: BTreeSet<i64> = sent.into_keys().collect();
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
