//! `escrowmq cluster` shows who leads, does what is typed, and leaves no process and no folder.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use escrowmq_tests::processes::{Process, binary};
use escrowmq_tests::{until, until_within};

/// Six brokers start at once.
const START: Duration = Duration::from_secs(60);

/// The last table that is there as a whole. Its last line begins with the first command.
fn table(cluster: &Process) -> Option<String> {
    let told = cluster.log();
    let end = told.rfind("\nkill a1 |")?;
    let begin = told[..end].rfind("nameserver ns0")?;
    Some(told[begin..end].to_owned())
}

/// Who leads group a, by the last table.
fn leader(cluster: &Process) -> Option<String> {
    let table = table(cluster)?;
    let line = table.lines().find_map(|line| line.strip_prefix("group a: "))?;
    line.split_once(" leads").map(|(name, _)| name.to_owned())
}

/// What the last table says that a member is.
fn role(cluster: &Process, member: &str) -> Option<String> {
    let table = table(cluster)?;
    let line = table.lines().find(|line| line.trim_start().starts_with(member))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// Processes whose command line names the folder.
fn runs_in(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(&folder)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_before_the_readers_eyes() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("tmp");
    fs::create_dir(&folder).unwrap();
    let mut command = Command::new(binary("escrowmq"));
    command.args(["cluster", "--rate", "50"]).env("TMPDIR", &folder);
    let (mut cluster, mut input) = Process::start_with_input("cluster", command, &folder.with_extension("log"));
    let old = until_within(START, "a leader", async || leader(&cluster)).await;
    assert_eq!(runs_in(&folder).len(), 8, "two nameservers and six brokers");
    writeln!(input, "kill a").unwrap();
    until("another leader", async || leader(&cluster).filter(|leader| *leader != old)).await;
    until("the end of the old one", async || (role(&cluster, &old)? == "down").then_some(())).await;
    writeln!(input, "start {old}").unwrap();
    until("a follower", async || (role(&cluster, &old)? == "follower").then_some(())).await;
    let sends = async || table(&cluster)?.contains("acknowledged").then_some(());
    until("the sends", sends).await;
    writeln!(input, "start {old}").unwrap();
    until("an answer", async || cluster.log().contains(&format!("{old} runs already")).then_some(())).await;
    writeln!(input, "quit").unwrap();
    let status = cluster.wait(Duration::from_secs(10)).await;
    assert!(status.success(), "{}", cluster.log());
    assert_eq!(runs_in(&folder), Vec::<String>::new());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the temporary folder is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_its_time_is_over_or_with_a_signal() {
    for seconds in [Some("1"), None] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("tmp");
        fs::create_dir(&folder).unwrap();
        let mut command = Command::new(binary("escrowmq"));
        command.args(["cluster", "--rate", "0"]).env("TMPDIR", &folder);
        if let Some(seconds) = seconds {
            command.args(["--seconds", seconds]);
        }
        let mut cluster = Process::start("cluster", command, &folder.with_extension("log"));
        if seconds.is_none() {
            until_within(START, "a table", async || table(&cluster)).await;
            cluster.terminate();
        }
        let status = cluster.wait(START).await;
        assert!(status.success(), "{}", cluster.log());
        assert_eq!(runs_in(&folder), Vec::<String>::new());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the temporary folder is gone");
    }
}
