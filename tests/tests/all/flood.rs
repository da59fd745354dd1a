//! Reserved capacity: decisions keep their pace while more halves come than are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_common::task::Tasks;
use escrowmq_tests::wire::half_request;
use escrowmq_tests::{Broker, End, Half, Settings, Wire, since, until};
use futures_util::future::join_all;

const TOPIC: &str = "Flooded";
const GROUP: &str = "flooding";
/// Commits that are timed, without the flood and with it.
const COMMITS: usize = 300;
/// Connections that flood, and sends that each has on its way all the time.
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 32;
/// Most time for an answer after all that the flood has on its way, on a machine that does other things too. A decision that
/// had to wait for the flood to end, or for room, would take for ever.
const MEDIAN_MAX: Duration = Duration::from_millis(100);

/// Commits one after the other, and says how long each took, shortest first.
async fn commit_all(wire: &Wire, halves: &[Half]) -> Vec<Duration> {
    let mut times = Vec::with_capacity(halves.len());
    for half in halves {
        let started = clock::monotonic();
        let answer = wire.end(half, End::Commit).await.expect("answered");
        times.push(since(started));
        assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    }
    times.sort_unstable();
    times
}

/// Counts of the flood's answers.
#[derive(Default)]
struct Tide {
    refused: AtomicU64,
    /// Answers that are neither a place nor a refusal.
    others: AtomicU64,
    is_over: AtomicBool,
}

/// Sends halves without an end. A commit makes room for one now and then.
async fn flood(wire: Wire, nth: usize, tide: Arc<Tide>) {
    let mut round = 0;
    while !tide.is_over.load(Ordering::Relaxed) {
        let sends = (0..IN_FLIGHT).map(|send| {
            let id = format!("flood {nth} {round} {send}");
            wire.call(half_request(GROUP, TOPIC, &id, "body"))
        });
        for answer in join_all(sends).await {
            let counter = match answer.map(|answer| answer.code) {
                Ok(response::SUCCESS) => continue,
                Ok(response::SYSTEM_BUSY) => &tide.refused,
                _ => &tide.others,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        round += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_keep_their_latency_while_a_flood_of_halves_is_refused() {
    let broker = Broker::start(Settings::default().without_checks().with("transactionOpenMax", 2 * COMMITS)).await;
    let wire = broker.wire();
    wire.create_topic(TOPIC, 1).await;
    let mut halves = Vec::with_capacity(2 * COMMITS);
    for nth in 0..2 * COMMITS {
        halves.push(wire.half(GROUP, TOPIC, &format!("half {nth}"), "body").await);
    }
    let quiet = commit_all(&wire, &halves[..COMMITS]).await;

    let (tasks, tide) = (Tasks::new(), Arc::new(Tide::default()));
    let floods: Vec<_> =
        (0..CONNECTIONS).map(|nth| tasks.spawn("flood", flood(broker.wire(), nth, Arc::clone(&tide)))).collect();
    let refused = || tide.refused.load(Ordering::Relaxed);
    until("the group has its quota and halves are refused", async || (refused() > 0).then_some(())).await;
    let before = refused();
    let flooded = commit_all(&wire, &halves[COMMITS..]).await;
    let during = refused() - before;
    tide.is_over.store(true, Ordering::Relaxed);
    join_all(floods).await;
    assert_eq!(tide.others.load(Ordering::Relaxed), 0, "a half is taken or refused");

    let (without, with, worst) = (quiet[COMMITS / 2], flooded[COMMITS / 2], flooded[COMMITS - 1]);
    println!(
        "a commit took {without:?} without the flood, {with:?} with it, {worst:?} at worst; {during} halves refused"
    );
    assert!(during > COMMITS as u64, "no flood: {during} halves were refused meanwhile");
    assert!(with < MEDIAN_MAX, "{with:?}, {without:?} without the flood");
}
