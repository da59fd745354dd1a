//! `escrowmq demo` keeps its word, and leaves no process and no folder.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use escrowmq_tests::processes::{Process, binary};
use escrowmq_tests::{Cluster, Settings, until, until_within};

fn start(folder: &Path) -> Process {
    let mut command = Command::new(binary("escrowmq"));
    // Its own temporary folder, in which nothing may be left.
    command.arg("demo").env("TMPDIR", folder).env("NO_COLOR", "1");
    Process::start("demo", command, &folder.with_extension("log"))
}

/// The processes that the demo says it has started and that still run.
fn survivors(told: &str) -> Vec<String> {
    let ids = told.split("process ").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let runs = |id: &&str| Path::new("/proc").join(id).join("status").exists();
    ids.filter(|id| !id.is_empty()).filter(runs).map(str::to_owned).collect()
}

fn left_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("the folder").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_the_whole_story_and_ends_well() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("tmp");
    std::fs::create_dir(&folder).unwrap();
    let mut demo = start(&folder);
    let status = demo.wait(Duration::from_secs(60)).await;
    let told = demo.log();
    assert!(status.success(), "{told}");
    let lines = |fact: &str, tag: &str| {
        told.lines().filter(|line| line.contains(&format!("  {fact:<12}  ")) && line.contains(tag)).count()
    };
    assert_eq!(lines("half stored", "order-"), 12, "{told}");
    assert_eq!(lines("hidden", "order-"), 13, "one of them twice: before and after the broker's end\n{told}");
    assert_eq!(lines("delivered", "TAGA"), 4, "{told}");
    assert_eq!(lines("delivered", "TAGB"), 0, "{told}");
    assert_eq!(lines("delivered", "TAGC"), 3, "{told}");
    assert!(lines("checked back", "TAGC") >= 3 && lines("checked back", "TAGA") == 0, "{told}");
    assert_eq!(lines("kill -9", "process"), 2, "{told}");
    assert!(told.contains("Everything went as promised"), "{told}");
    assert_eq!(survivors(&told), Vec::<String>::new());
    assert_eq!(left_in(&folder), 0, "the temporary folder is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_it_takes_its_processes_along() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("tmp");
    std::fs::create_dir(&folder).unwrap();
    let mut demo = start(&folder);
    until("the first half message", async || demo.log().contains("half stored").then_some(())).await;
    demo.terminate();
    let status = demo.wait(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(1));
    let told = demo.log();
    assert!(told.contains("interrupted by SIGTERM"), "{told}");
    until_within(Duration::from_secs(5), "end of its processes", async || survivors(&told).is_empty().then_some(()))
        .await;
    assert_eq!(left_in(&folder), 0, "the temporary folder is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_at_services_that_run() {
    let mut cluster = Cluster::start(Settings::default().with("transactionTimeOut", 1000)).await;
    let parent = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("escrowmq"));
    command
        .args(["demo", "--namesrv", &cluster.nameserver.address()])
        .env("TMPDIR", parent.path())
        .env("NO_COLOR", "1");
    let mut demo = Process::start("demo", command, &parent.path().with_extension("log"));
    let status = demo.wait(Duration::from_secs(60)).await;
    let told = demo.log();
    assert!(status.success(), "{told}");
    assert!(told.contains("11 half messages stored") && told.contains("over 1 kill of a producer\n"), "{told}");
    assert_eq!(left_in(parent.path()), 0);
    assert!(cluster.broker.process().ended().is_none(), "the services are not the demo's");
}
