//! Transactions and plain messages under `kill -9` at random moments, judged from outside: by a database of the application
//! that is on disk before the broker hears of a decision, by a history of everything asked, answered and seen, and by the
//! checker.
//!
//! `ESCROWMQ_KILLS` is the number of kills per campaign, `ESCROWMQ_KILL_SEED` one seed, `ESCROWMQ_KILL_SECONDS` goes on with
//! fresh seeds for so long. The seed decides when the kills come; what they hit is up to the machine.

use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_tests::dice::Dice;
use escrowmq_tests::history::Level;
use escrowmq_tests::load::{Load, Rate, Report, Target};
use escrowmq_tests::processes::free_port;
use escrowmq_tests::{Cluster, Settings, since};

/// Answers that must come between two kills: with fewer a kill hits nothing.
const BETWEEN_KILLS: usize = 25;

/// One campaign of `kills` kills.
async fn campaign(flush: &str, kills: usize, seed: u64) -> Report {
    let metrics = free_port();
    let settings = Settings::default()
        .with("flushDiskType", flush)
        .with("transactionCheckMax", 1000)
        .with("mappedFileSizeCommitLog", 1 << 20)
        .with("metricsPort", metrics);
    let level = if flush == "SYNC_FLUSH" { Level::Flushed } else { Level::Written };
    let mut cluster = Cluster::start(settings).await;
    let target = Target { name: "broker-a".to_owned(), members: vec![(cluster.broker.address(), metrics)] };
    let load = Load::start(|| cluster.client_builder(), vec![target], Rate::full(level)).await;
    load.run(async |load| {
        let mut dice = Dice::new(seed);
        for _ in 0..kills {
            load.until_more(BETWEEN_KILLS + dice.below(200)).await;
            tokio::time::sleep(Duration::from_micros(dice.below(20_000) as u64)).await;
            let fired = cluster.broker.process().ended().is_none();
            cluster.broker.crash().await;
            load.fault("kill -9 of the broker", fired);
        }
    })
    .await
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Campaigns, one after the other: one, or as many as there is time for.
async fn campaigns(test: &str, flush: &str) {
    let kills = number("ESCROWMQ_KILLS").unwrap_or(5) as usize;
    let seconds = number("ESCROWMQ_KILL_SECONDS");
    let started = clock::monotonic();
    let (mut rounds, mut faults, mut acknowledged) = (0, 0, 0);
    loop {
        let fresh = if seconds.is_some() { clock::wall_ms().unsigned_abs() } else { 1 };
        let seed = number("ESCROWMQ_KILL_SEED").unwrap_or(fresh);
        let report = campaign(flush, kills, seed).await;
        report.assert_good(
            &format!("kills-{seed}"),
            &format!(
                "ESCROWMQ_KILL_SEED={seed} ESCROWMQ_KILLS={kills} cargo test --release -p escrowmq-tests --test all {test}"
            ),
        );
        let verdict = report.verdict;
        (rounds, faults, acknowledged) = (rounds + 1, faults + verdict.faults, acknowledged + verdict.acknowledged);
        eprintln!(
            "{test}: seed {seed}, {faults} kills in {rounds} campaigns, {acknowledged} acknowledged operations, {:?}",
            since(started)
        );
        if seconds.is_none_or(|seconds| since(started) >= Duration::from_secs(seconds)) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_synchronous_flush() {
    campaigns("kills_with_synchronous_flush", "SYNC_FLUSH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_asynchronous_flush() {
    campaigns("kills_with_asynchronous_flush", "ASYNC_FLUSH").await;
}
