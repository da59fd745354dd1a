//! What a service manager hears: ready when requests are served, signs of life while threads work, and the end in good order.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use escrowmq_tests::DEADLINE;
use escrowmq_tests::processes::{Process, binary};
use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// The time after which the manager of this test gives up, in microseconds as it says it.
const WATCHDOG_USEC: &str = "100000";

/// What comes next.
async fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = timeout(DEADLINE, manager.recv(&mut bytes)).await.expect("the process says something").unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap().trim().to_owned()
}

/// A process that is told of a manager, and where the manager listens.
fn start(name: &str, arguments: &[&str], folder: &Path) -> (Process, UnixDatagram) {
    let socket = folder.join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut command = Command::new(binary(name));
    command.args(arguments).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG_USEC);
    (Process::start(name, command, &folder.join("log")), manager)
}

/// From the start to the end of a process.
async fn is_told(name: &str, arguments: &[&str], folder: &Path) {
    let (mut process, manager) = start(name, arguments, folder);
    let mut first = heard(&manager).await;
    // A start may take long, and is alive.
    while first == "WATCHDOG=1" {
        first = heard(&manager).await;
    }
    let lines: Vec<&str> = first.lines().collect();
    assert_eq!(lines[0], "READY=1");
    assert!(lines[1].starts_with("STATUS=serving at 127.0.0.1:"), "{first}");
    for _ in 0..3 {
        assert_eq!(heard(&manager).await, "WATCHDOG=1");
    }
    // One that stands still is not alive. What it has said before comes first.
    process.pause();
    let silence = Duration::from_micros(WATCHDOG_USEC.parse().unwrap());
    let mut bytes = [0; 64];
    while timeout(silence, manager.recv(&mut bytes)).await.is_ok() {}
    process.resume();
    assert_eq!(heard(&manager).await, "WATCHDOG=1");
    process.terminate();
    while heard(&manager).await != "STOPPING=1" {}
    assert!(process.wait(DEADLINE).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_tells_its_manager() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let arguments =
        ["--bindAddress", "127.0.0.1", "--listenPort", "0", "--metricsPort", "0", "--storePathRootDir", data];
    is_told("escrowmq-broker", &arguments, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nameserver_tells_its_manager() {
    let folder = tempfile::tempdir().unwrap();
    let kept = format!("kvConfigPath={}", folder.path().join("kv.json").display());
    is_told("escrowmq-nameserver", &["--bind", "127.0.0.1", "--port", "0", "--set", &kept], folder.path()).await;
}
