//! Bad input costs its sender alone: every request code, any field.
//!
//! `ESCROWMQ_HOSTILE_SEED` is one seed, `ESCROWMQ_HOSTILE_REQUESTS` how many requests, `ESCROWMQ_HOSTILE_FROM` the number of
//! the first, `ESCROWMQ_HOSTILE_ONLY` limits the codes (`10,37` or `-25`), `ESCROWMQ_HOSTILE_SECONDS` goes on with fresh seeds for so long.

use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_tests::hostile::campaign::{Campaign, Report};
use escrowmq_tests::since;

const SEED: u64 = 0x5eed_0012;
const REQUESTS: u64 = 10_000;
const COMMAND: &str = "cargo test --release -p escrowmq-tests --test all hostile::every_code";

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn campaign(seed: u64) -> Campaign {
    let only = std::env::var("ESCROWMQ_HOSTILE_ONLY").unwrap_or_default();
    Campaign {
        seed,
        requests: number("ESCROWMQ_HOSTILE_REQUESTS").unwrap_or(REQUESTS),
        from: number("ESCROWMQ_HOSTILE_FROM").unwrap_or_default(),
        only: only.parse().expect("ESCROWMQ_HOSTILE_ONLY has codes, with commas"),
        command: COMMAND,
        strict: number("ESCROWMQ_HOSTILE_SECONDS").is_some(),
    }
}

fn tell(seed: u64, report: &Report) {
    let requests: usize = report.counts.sent.values().sum();
    eprintln!(
        "hostile::every_code: seed {seed}, {requests} requests on {} connections, {} restarts, {} acknowledged messages of \
         the good client kept, {} of its {} steps were refused for a moment, the slowest took {:?}",
        report.counts.opened, report.restarts, report.acknowledged, report.refused, report.steps, report.slowest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code() {
    let started = clock::monotonic();
    let seconds = number("ESCROWMQ_HOSTILE_SECONDS").map(Duration::from_secs);
    let mut seed = number("ESCROWMQ_HOSTILE_SEED").unwrap_or(match seconds {
        Some(_) => clock::wall_ms().unsigned_abs(),
        None => SEED,
    });
    loop {
        let campaign = campaign(seed);
        eprintln!("hostile::every_code: seed {seed} begins");
        let report = campaign.run().await;
        tell(seed, &report);
        if std::env::var_os("ESCROWMQ_HOSTILE_TABLE").is_some() {
            eprintln!("{}", report.table());
        }
        if campaign.only.is_all() && campaign.requests >= REQUESTS {
            report.demand_depth();
        }
        if seconds.is_none_or(|seconds| since(started) >= seconds) {
            return;
        }
        seed += 1;
    }
}
