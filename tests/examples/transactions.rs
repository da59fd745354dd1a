//! Measures what undecided transactions cost a broker: memory, rates, a start after `kill -9`, checks; and what an awaited
//! commit costs beside a plain send. Prints numbers; judges nothing. Run it by `tests/bench/transactions`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_tests::processes::{Broker, binary};
use escrowmq_tests::{End, Settings, since, until, until_within, wire};
use serde_json::Value;

/// Sends and commits that are timed one by one.
const TIMED: usize = 3000;
/// Those in front that are not.
const WARMING: usize = 500;
/// Seconds in which all open halves become due, and files are merged.
const SETTLE: &str = "15";
/// After so long what the last writes leave to do in the background is done.
const QUIET: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (halves, checks, seconds) = (number(1_000_000), number(100_000), number(15));
    for flush in ["ASYNC_FLUSH", "SYNC_FLUSH"] {
        println!("{flush}");
        backlog(flush, halves, seconds).await;
        answered_checks(flush, checks).await;
        awaited_commit(flush).await;
    }
}

fn settings(flush: &str) -> Settings {
    // Checks as by default.
    Settings::default()
        .with("flushDiskType", flush)
        .with("transactionTimeOut", 6_000)
        .with("transactionCheckInterval", 30_000)
}

async fn backlog(flush: &str, halves: u64, seconds: u64) {
    let mut broker = Broker::start(settings(flush)).await;
    let wire = broker.wire();
    until("first acknowledgement", async || {
        let send = wire::send_request("bench", "First", 0, "body", &[]);
        (wire.call(send).await.ok()?.code == response::SUCCESS).then_some(())
    })
    .await;
    let idle = memory(broker.process().id());
    let pid = broker.process().id().to_string();
    let (count, time) = (halves.to_string(), seconds.to_string());
    let arguments = [
        "--halves",
        &count,
        "--seconds",
        &time,
        "--pid",
        &pid,
        "--connections",
        "16",
        "--in-flight",
        "4",
        "--settle",
        SETTLE,
    ];
    let measured = bench(&broker, "backlog", &arguments);
    for work in ["send", "txn"] {
        let rate = |when: &str| measured[format!("{work}_{when}")]["throughput"].as_f64().unwrap_or_default();
        let ratio = measured[format!("{work}_ratio")].as_f64().unwrap_or_default() * 100.0;
        let (before, after) = (rate("before"), rate("after"));
        println!("  {work:<4} with {halves} open halves: {after:.0}/s, without {before:.0}/s: {ratio:.0} %");
    }
    // The topic of the open halves is gone with the run that made them; what is measured next has its own.
    broker.crash().await;
    drop(broker);
    open_halves(flush, halves, idle).await;
}

/// Memory with open halves, and the start after a crash.
async fn open_halves(flush: &str, halves: u64, idle: f64) {
    let mut broker = Broker::start(settings(flush)).await;
    broker.wire().create_topic("Open", 8).await;
    let count = halves.to_string();
    let script = ["--topic", "Open", "--half", "--count", &count, "--connections", "16", "--in-flight", "16"];
    bench(&broker, "txn", &script);
    let at_once = memory(broker.process().id()) - idle;
    tokio::time::sleep(QUIET).await;
    let quiet = memory(broker.process().id());
    let (idle, more, secs) = (idle.round(), quiet - idle, QUIET.as_secs());
    println!(
        "  resident with {halves} open halves, {secs} s after the last: {more:.0} MiB more than the {idle} MiB of an idle broker"
    );
    println!("  resident at the last one: {at_once:.0} MiB more");
    broker.kill();
    let started = clock::monotonic();
    broker.start_again().await;
    let wire = broker.wire();
    until_within(Duration::from_secs(60), "first acknowledgement after the crash", async || {
        let send = wire::send_request("bench", "First", 0, "body", &[]);
        (wire.call(send).await.ok()?.code == response::SUCCESS).then_some(())
    })
    .await;
    println!("  start after kill -9 with them, to the first acknowledged send: {:.2} s", since(started).as_secs_f64());
    println!("  resident after that start: {:.0} MiB", memory(broker.process().id()));
}

async fn answered_checks(flush: &str, halves: u64) {
    let mut broker = Broker::start(settings(flush)).await;
    let (count, pid) = (halves.to_string(), broker.process().id().to_string());
    let measured = bench(&broker, "checks", &["--halves", &count, "--pid", &pid, "--size", "256"]);
    let figure = |name: &str| measured[name].as_f64().unwrap_or_default();
    println!(
        "  checks answered by one instance: {:.0}/s ({} of {halves} committed, {} asked)",
        figure("throughput"),
        figure("committed"),
        figure("checks_answered")
    );
}

/// One at a time on an idle broker, sends and transactions in turns.
async fn awaited_commit(flush: &str) {
    let broker = Broker::start(settings(flush)).await;
    let wire = broker.wire();
    wire.create_topic("T", 1).await;
    wire.greet("bench@1", "bench", &[]).await;
    let body = "x".repeat(1024);
    let mut times: [Vec<Duration>; 3] = Default::default();
    for nth in 0..WARMING + TIMED {
        let send = timed(async { wire.send("T", 0, body.clone(), &[]).await.expect("answered") }).await.1;
        let (half, prepare) = timed(wire.half("bench", "T", &format!("id {nth}"), &body)).await;
        let commit = timed(async { wire.end(&half, End::Commit).await.expect("answered") }).await.1;
        if nth >= WARMING {
            times.iter_mut().zip([send, prepare, commit]).for_each(|(times, time)| times.push(time));
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let [send, prepare, commit] = times.each_mut().map(median);
    println!(
        "  one at a time, median: send {send:.0} us, half {prepare:.0} us, awaited commit {commit:.0} us: {:.2} of a send",
        commit / send
    );
}

async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let started = clock::monotonic();
    let done = what.await;
    (done, since(started))
}

fn bench(broker: &Broker, workload: &str, arguments: &[&str]) -> Value {
    let address = broker.address();
    let mut command = Command::new(binary("escrowmq"));
    command.args(["bench", workload, "--json", "--broker", &address]).args(arguments);
    let output = command.output().expect("the command line starts");
    assert!(output.status.success(), "bench {workload}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Resident MiB of a process; 0 where the system does not tell.
fn memory(process: u32) -> f64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
