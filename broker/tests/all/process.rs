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
        let mut child = in_folder(folder).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Self { log: BufReader::new(child.stderr.take().unwrap()), child };
        running.wait_for("serving at");
        running
    }

    fn wait_for(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let read = self.log.read_line(&mut seen).unwrap();
            assert!(read > 0, "the broker ended without '{text}': {seen}");
        }
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
