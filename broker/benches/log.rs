//! Appends to the log per second, and how long one takes: `cargo bench -p escrowmq-broker --bench log [folder]`.
//!
//! Each line is one way of calling: how many appends are under way at once, and of how many bytes. The folder must be on
//! the device that is to be measured; a temporary one is used unless given.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use escrowmq_broker::log::{ASYNC_FLUSH_INTERVAL, Flush, Log, LogSettings, NewRecord, RealDisk};
use escrowmq_broker::terms::LogIndex;
use escrowmq_common::clock;

/// How long each line is measured.
const RUN: Duration = Duration::from_secs(4);

fn main() {
    // Cargo passes flags of its own.
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let dir = given.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:<10} {:>9} {:>9} {:>12} {:>10} {:>9} {:>9}",
        "flush", "under way", "bytes", "appends/s", "MB/s", "p50 us", "p99 us"
    );
    let flushes = [("async", Flush::Async { interval: ASYNC_FLUSH_INTERVAL }), ("sync", Flush::Sync)];
    for (name, flush) in flushes {
        for (under_way, bytes) in [(1, 1 << 10), (16, 1 << 10), (256, 1 << 10), (4, 64 << 10), (4, 512 << 10)] {
            measure(&dir, name, flush, under_way, bytes);
        }
    }
}

fn measure(dir: &Path, name: &str, flush: Flush, under_way: usize, bytes: usize) {
    let dir = dir.join(format!("escrowmq-log-bench-{}", std::process::id()));
    let log = Log::open(Arc::new(RealDisk), &dir, LogSettings { flush, ..LogSettings::default() }).expect("open");
    let payload = Bytes::from(vec![7; bytes]);
    let (answers, answered) = mpsc::channel();
    let mut latencies = Vec::new();
    let mut index = 0;
    let start = clock::monotonic();
    let mut outstanding = 0;
    while clock::monotonic().saturating_sub(start) < RUN || outstanding > 0 {
        while outstanding < under_way && clock::monotonic().saturating_sub(start) < RUN {
            index += 1;
            let (answers, began) = (answers.clone(), clock::monotonic());
            let record = NewRecord { term: 1, index: LogIndex(index), kind: 1, payload: payload.clone(), crc: None };
            let done = move |result: std::io::Result<()>| {
                result.expect("the disk works");
                answers.send(clock::monotonic().saturating_sub(began)).expect("the main thread listens");
            };
            log.append(vec![record], done).expect("append");
            log.release_upto(LogIndex(index));
            outstanding += 1;
            while let Ok(latency) = answered.try_recv() {
                latencies.push(latency);
                outstanding -= 1;
            }
        }
        if outstanding > 0 {
            latencies.push(answered.recv().expect("an answer"));
            outstanding -= 1;
        }
        log.purge_upto(LogIndex(index)).expect("purge");
    }
    let seconds = clock::monotonic().saturating_sub(start).as_secs_f64();
    log.close().expect("close");
    std::fs::remove_dir_all(&dir).expect("remove the folder");
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / seconds;
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "{name:<10} {under_way:>9} {bytes:>9} {rate:>12.0} {:>10.1} {:>9.1} {:>9.1}",
        rate * bytes as f64 / 1e6,
        at(0.5),
        at(0.99)
    );
}
