//! A running `escrowmq standalone`, and other commands of the same binary against it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_escrowmq");

/// A running `escrowmq standalone`.
pub(crate) struct Standalone {
    child: Child,
    /// Address of the nameserver.
    pub(crate) namesrv: String,
    /// Address of the broker.
    #[allow(dead_code, reason = "not each test file asks the broker itself")]
    pub(crate) broker: String,
    /// Its data.
    #[allow(dead_code, reason = "not each test file looks at the data")]
    pub(crate) folder: tempfile::TempDir,
}

#[allow(dead_code, reason = "each test file uses a part")]
impl Standalone {
    /// Starts one with an empty folder and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(BINARY)
            .args(["standalone", "--port", "0", "--broker-port", "0", "--flush", "async", "--dir"])
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let namesrv = line.strip_prefix("ready: nameserver ").and_then(|rest| rest.split(',').next());
        let namesrv = namesrv.unwrap_or_else(|| panic!("not ready: {line:?}")).to_owned();
        let broker = line.split(", broker ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
        Self { child, namesrv, broker, folder }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A command against it, such as `admin` or `bench`.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut process = Command::new(BINARY);
        process.arg(command).args(arguments).args(["--namesrv", &self.namesrv]);
        process
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Output {
        self.command(command, arguments).output().unwrap()
    }

    /// The standard output of a command that succeeds.
    pub(crate) fn text(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON of a command that succeeds.
    pub(crate) fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        serde_json::from_str(&self.text(command, &arguments)).unwrap()
    }

    /// Ends it as an operator does, and waits.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        // Only after a failed test it still runs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
