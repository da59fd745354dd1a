//! Measures how long a broker takes from its start to its first acknowledged send, and how much memory it uses idle. Prints
//! numbers; judges nothing. Run it by `tests/bench/startup`.

use std::path::Path;
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::response;
use escrowmq_tests::processes::spawn_broker_at;
use escrowmq_tests::{Settings, Wire, since, until, wire};

/// Starts measured, after which the middle one is told.
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    let mut empty = Vec::new();
    let mut stopped = Vec::new();
    let mut crashed = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (first, mut process) = start(folder.path()).await;
        empty.push(first);
        memory.extend(resident(process.id()));
        process.terminate();
        process.wait(Duration::from_secs(10)).await;
        let (again, mut process) = start(folder.path()).await;
        stopped.push(again);
        process.kill();
        let (again, _process) = start(folder.path()).await;
        crashed.push(again);
    }
    println!("from exec to the first acknowledged send, middle of {ROUNDS} (slowest), SYNC_FLUSH:");
    tell("  empty folder", &mut empty);
    tell("  after SIGTERM", &mut stopped);
    tell("  after kill -9", &mut crashed);
    memory.sort_unstable();
    match memory.get(memory.len() / 2) {
        Some(kib) => println!("resident after that send: {:.1} MiB", *kib as f64 / 1024.0),
        None => println!("resident memory: this system does not tell"),
    }
}

/// Time to the first acknowledgement, and the broker.
async fn start(folder: &Path) -> (Duration, escrowmq_tests::processes::Process) {
    let started = clock::monotonic();
    let (process, port) = spawn_broker_at(&Settings::default(), folder);
    let target = Wire::to(format!("127.0.0.1:{port}"));
    until("first acknowledgement", async || {
        let send = wire::send_request("startup", "Startup", 0, "body", &[]);
        (target.call(send).await.ok()?.code == response::SUCCESS).then_some(())
    })
    .await;
    (since(started), process)
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{what:<16} {:6.0} ms ({:.0} ms)", millis(times[times.len() / 2]), millis(times[times.len() - 1]));
}

/// KiB of memory that a process has in use, where the system tells.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    status.lines().find(|line| line.starts_with("VmRSS:"))?.split_whitespace().nth(1)?.parse().ok()
}
