//! The process: what it says when it cannot start, and how it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_escrowmq-broker"));
    command.args(arguments).env_remove("ESCROWMQ_CONFIG").stdin(Stdio::null());
    command
}

fn in_folder(folder: &Path) -> Command {
    let mut command = broker(&["--listenPort", "0", "--bindAddress", "127.0.0.1", "--brokerIP1", "127.0.0.1"]);
    command.arg("--storePathRootDir").arg(folder);
    command
}

/// A broker that serves. Killed when dropped, so that a failed test leaves none behind.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let mut running = Self::spawn(folder, &[]);
        running.wait_for("serving at");
        running
    }

    /// One that may not serve yet.
    fn spawn(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = in_folder(folder).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        Self { log: BufReader::new(child.stderr.take().unwrap()), child }
    }

    /// Reads what it says until it says `text`; returns that.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let read = self.log.read_line(&mut seen).unwrap();
            assert!(read > 0, "the broker ended without '{text}': {seen}");
        }
        seen
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    fn ended(mut self) -> ExitStatus {
        let mut rest = String::new();
        while self.log.read_line(&mut rest).unwrap() > 0 {}
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_broker_on_a_folder_is_refused_and_a_signal_stops_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Running::start(folder.path());
    let second = in_folder(folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = said(&second);
    assert!(text.contains("used by another broker") && text.contains(&first.child.id().to_string()), "{text}");

    first.signal(Signal::TERM);
    first.wait_for("stopping on SIGTERM");
    assert!(first.ended().success());
    // The folder is free again, whether the last broker stopped or was killed.
    let killed = Running::start(folder.path());
    killed.signal(Signal::KILL);
    assert!(!killed.ended().success());
    let last = Running::start(folder.path());
    last.signal(Signal::INT);
    assert!(last.ended().success());
}

#[test]
fn a_broker_waits_for_the_folder_of_one_that_is_about_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let first = Running::start(folder.path());
    let mut next = Running::spawn(folder.path(), &[]);
    next.wait_for("waiting up to 5 s");
    // It was told of; now it goes.
    first.signal(Signal::KILL);
    assert!(!first.ended().success());
    next.wait_for("serving at");
    next.signal(Signal::TERM);
    assert!(next.ended().success());
}

#[test]
fn an_address_in_use_is_said_once_and_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let mut command = broker(&["--bindAddress", "127.0.0.1", "--listenPort", &port]);
    let text = said(&command.arg("--storePathRootDir").arg(folder.path()).output().unwrap());
    assert_eq!(text.matches("os error 98").count(), 1, "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port} (bindAddress, listenPort)")), "{text}");
}

#[test]
fn a_data_folder_that_cannot_be_made_says_why_once_and_what_to_set() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = said(&in_folder(&file.path().join("x")).output().unwrap());
    assert_eq!(text.matches("os error 20").count(), 1, "{text}");
    assert!(text.contains("storePathRootDir names another one"), "{text}");
}

#[test]
fn nobody_but_owner_and_group_reads_what_a_broker_writes() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let running = Running::start(&folder);
    running.signal(Signal::TERM);
    assert!(running.ended().success());
    let mut folders = vec![folder];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder) & 0o027, 0, "{}", folder.display());
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path) & 0o137, 0, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 3, "{files} files");
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap())
}

#[test]
fn settings_that_protect_refuse_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.conf");
    std::fs::write(&file, "aclEnable=true\nbrokerRole=SLAVE\n").unwrap();
    let refused = broker(&["-c", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = said(&refused);
    assert!(text.contains("line 1: aclEnable=true") && text.contains("line 2: brokerRole=SLAVE"), "{text}");

    std::fs::write(&file, "aclEnable=true\nignoreUnsupported=true\nbrokerRole=SYNC_MASTER\n").unwrap();
    let mut running = Running::spawn(&folder.path().join("data"), &["-c", file.to_str().unwrap()]);
    let seen = running.wait_for("serving at");
    assert!(seen.contains("aclEnable=true") && seen.contains("a broker alone keeps one"), "{seen}");
    running.signal(Signal::TERM);
    assert!(running.ended().success());
}

#[test]
fn a_secret_is_no_setting_and_is_never_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let refused = in_folder(&data).env("ESCROWMQ_GROUP_SECRET", "0123456789abcdef").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = said(&refused);
    assert!(text.contains("groupSecretFile") && !text.contains("0123456789"), "{text}");
}

#[test]
fn levels_that_are_none_are_refused_and_lines_can_be_json() {
    let loud = broker(&["--log-level", "loud"]).output().unwrap();
    assert_eq!(loud.status.code(), Some(2));
    assert!(said(&loud).contains("off, error, warn, info, debug, trace"), "{}", said(&loud));

    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::spawn(folder.path(), &["--log-format", "json"]);
    let seen = running.wait_for("serving at");
    for line in seen.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
        let is_consensus = line["target"].as_str().unwrap().starts_with("openraft");
        assert!(!is_consensus || line["level"] != "INFO", "{line}");
    }
    running.signal(Signal::TERM);
    assert!(running.ended().success());
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let unknown = broker(&["-c", "/nowhere/broker.conf"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("/nowhere/broker.conf"), "{}", said(&unknown));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.conf");
    std::fs::write(&file, "transactionTimeout=5000\n").unwrap();
    let misspelt = broker(&["-c", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(said(&misspelt).contains("'transactionTimeOut'"), "{}", said(&misspelt));
}

#[test]
fn settings_in_force_can_be_printed() {
    let output = broker(&["-p", "-n", "a:1;b:2", "--broker-name", "b"])
        .env("ESCROWMQ_TRANSACTION_CHECK_MAX", "3")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["brokerName=b", "namesrvAddr=a:1;b:2", "transactionCheckMax=3", "flushDiskType=SYNC_FLUSH"] {
        assert!(text.lines().any(|each| each == line), "{line} in {text}");
    }
}

/// The lines of a whole life with these arguments, as JSON.
fn life(folder: &Path, arguments: &[&str]) -> Vec<serde_json::Value> {
    let mut running = Running::spawn(folder, &[&["--log-format", "json"], arguments].concat());
    let mut text = running.wait_for("serving at");
    running.signal(Signal::TERM);
    while running.log.read_line(&mut text).unwrap() > 0 {}
    assert!(running.ended().success());
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn a_start_and_a_stop_fit_on_a_screen_and_events_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let lines = life(folder.path(), &["--fileReservedTime", "48", "--maxTopics", "300000"]);
    assert!(lines.len() <= 24, "{} lines: {lines:#?}", lines.len());
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    for event in ["starting", "serving", "stopping", "stopped"] {
        assert!(!of(event).is_empty(), "{event}: {lines:#?}");
    }
    // What is set to its default is no difference.
    let settings: Vec<_> = of("setting").iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert!(
        settings.contains(&"fileReservedTime".to_owned()) && !settings.contains(&"maxTopics".to_owned()),
        "{settings:?}"
    );
    assert_eq!(of("serving")[0]["data"].as_str(), folder.path().to_str());
}
