//! Nameservers and brokers as processes: started, killed, started again, stopped.
//!
//! The binaries are looked for in the folder that `ESCROWMQ_BIN` names, else where Cargo puts them: beside the folder of
//! the running test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_client::{Client, ClientBuilder};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::ports;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::{until, until_within};
use crate::wire::Wire;

/// Attempts to start a process whose port was taken meanwhile.
const START_ATTEMPTS: usize = 5;

/// Lines of a log that a failing test shows.
const SHOWN_LINES: usize = 40;

/// The binary `name`.
///
/// # Panics
///
/// If it is not there, with the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("ESCROWMQ_BIN").map_or_else(beside_the_test, PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: `make build` or `cargo build --release --bins` makes it", path.display());
    path
}

fn beside_the_test() -> PathBuf {
    let test = std::env::current_exe().expect("the running test is a file");
    // target/release/deps/<test>
    test.ancestors().nth(2).expect("a test lies in target/<profile>/deps").to_owned()
}

/// A port that nobody listens at now. Two threads of a test never get the same one.
pub fn free_port() -> u16 {
    ports::free_port().expect("a free port")
}

/// A child process with its log. Dropping it kills it; if the test fails, the end of its log is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints and logs is appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Process {
        command.stdin(Stdio::null());
        Process::spawn(name, command, log)
    }

    /// The same for one that reads what is written to the other end.
    pub fn start_with_input(name: &str, mut command: Command, log: &Path) -> (Process, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut process = Process::spawn(name, command, log);
        let input = process.child.stdin.take().expect("it is piped");
        (process, input)
    }

    fn spawn(name: &str, mut command: Command, log: &Path) -> Process {
        let open = || File::options().create(true).append(true).open(log).expect("the log can be written");
        let child = command.stdout(open()).stderr(open()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Process { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// `kill -9`, and the wait for it.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGSTOP: the process does nothing any more, but its connections stay. [`kill`](Process::kill) works as before.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT: it goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).expect("a child has a process id");
        kill_process(id, signal).expect("a child can be signalled");
    }

    /// Waits for its end.
    pub async fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("end of the {}", self.name);
        until_within(within, &what, async || self.ended()).await
    }

    /// Where its log is.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Everything it logged so far, with what earlier processes logged to the same file.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("the log can be read")).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the last lines of the {}'s log:", self.name);
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// Waits until something answers at `port` (true) or the process has ended.
pub(crate) async fn is_serving(process: &mut Process, port: u16) -> bool {
    let address = format!("127.0.0.1:{port}");
    let remote = Remote::new(RemoteOptions::default(), Arc::new(NoRequests));
    let name = process.name.clone();
    let serving = until(&format!("answer of the {name}"), async || {
        if process.ended().is_some() {
            return Some(false);
        }
        // Any answer will do, also one that says no.
        let answer = remote.call(&address, Frame::request(request::HEART_BEAT), Duration::from_secs(1)).await;
        answer.is_ok().then_some(true)
    })
    .await;
    remote.close().await;
    serving
}

/// A nameserver.
#[derive(Debug)]
pub struct Nameserver {
    process: Process,
    port: u16,
    folder: TempDir,
    /// Beyond those that every one of a test has.
    settings: Vec<String>,
}

impl Nameserver {
    /// Starts one and waits until it answers.
    pub async fn start() -> Nameserver {
        Nameserver::start_with(&[]).await
    }

    /// Starts one with these settings and waits until it answers.
    pub async fn start_with(settings: &[(&str, String)]) -> Nameserver {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let mut process = spawn_nameserver(port, folder.path(), &settings);
            if is_serving(&mut process, port).await {
                return Nameserver { process, port, folder, settings };
            }
        }
        panic!("the nameserver ends right after its start");
    }

    /// `kill -9`, and a new start at the same port, with nothing remembered but what is on disk.
    pub async fn crash(&mut self) {
        self.process.kill();
        self.start_again().await;
    }

    /// A new start at the same port.
    pub async fn start_again(&mut self) {
        self.process = spawn_nameserver(self.port, self.folder.path(), &self.settings);
        assert!(is_serving(&mut self.process, self.port).await, "the nameserver does not start again");
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn spawn_nameserver(port: u16, folder: &Path, settings: &[String]) -> Process {
    let mut command = Command::new(binary("escrowmq-nameserver"));
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command
        .args(["--set", "metricsPort=0", "--set"])
        .arg(format!("kvConfigPath={}", folder.join("kvConfig.json").display()));
    for setting in settings {
        command.args(["--set", setting]);
    }
    Process::start("nameserver", command, &folder.join("nameserver.log"))
}

/// Keys of a `broker.conf`.
#[derive(Clone, Debug)]
pub struct Settings {
    keys: BTreeMap<String, String>,
}

impl Default for Settings {
    /// RocketMQ's defaults, except that checks come after one second, every second.
    fn default() -> Settings {
        let settings = Settings { keys: BTreeMap::new() };
        settings
            .with("brokerName", "broker-a")
            .with("brokerIP1", "127.0.0.1")
            .with("bindAddress", "127.0.0.1")
            .with("metricsPort", 0)
            .with("transactionTimeOut", 1000)
            .with("transactionCheckInterval", 1000)
    }
}

impl Settings {
    /// Sets a key.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers give numbers and literals")]
    pub fn with(mut self, key: &str, value: impl ToString) -> Settings {
        self.keys.insert(key.to_owned(), value.to_string());
        self
    }

    /// Checks come so late that no test sees one.
    #[must_use]
    pub fn without_checks(self) -> Settings {
        self.with("transactionTimeOut", 3_600_000)
    }

    /// The value of a key that was set.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.keys {
            writeln!(text, "{key}={value}").expect("a string takes everything");
        }
        text
    }
}

/// A broker: a folder and a port, and mostly a process.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    settings: Settings,
    port: u16,
    folder: TempDir,
}

impl Broker {
    /// Starts one with an empty folder and waits until it answers.
    pub async fn start(settings: Settings) -> Broker {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let mut process = spawn_broker(&settings, port, folder.path());
            if is_serving(&mut process, port).await {
                return Broker { process, settings, port, folder };
            }
            let log = process.log();
            assert!(log.contains("cannot listen"), "the broker ended right after its start:\n{log}");
        }
        panic!("no port for the broker");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again after its process has ended: same folder, same port. Waits until it answers.
    pub async fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "the broker still runs");
        self.process = spawn_broker(&self.settings, self.port, self.folder.path());
        assert!(is_serving(&mut self.process, self.port).await, "the broker does not start again");
    }

    /// Like [`start_again`](Broker::start_again), with what tools have changed in the settings meanwhile.
    pub async fn start_again_with_kept_settings(&mut self) {
        assert!(self.process.ended().is_some(), "the broker still runs");
        self.process = run_broker(self.folder.path());
        assert!(is_serving(&mut self.process, self.port).await, "the broker does not start again");
    }

    /// `kill -9`, and a new start.
    pub async fn crash(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its data.
    pub fn data_folder(&self) -> PathBuf {
        data_folder(self.folder.path())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Single frames to it.
    pub fn wire(&self) -> Wire {
        Wire::to(self.address())
    }
}

/// Where the data of a broker is that has everything in `folder`.
pub(crate) fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Starts a broker with everything in `folder`, at a free port, and does not wait for anything.
pub fn spawn_broker_at(settings: &Settings, folder: &Path) -> (Process, u16) {
    let port = free_port();
    (spawn_broker(settings, port, folder), port)
}

/// Starts a broker with everything in `folder`, at this port, and does not wait for anything.
pub(crate) fn spawn_broker(settings: &Settings, port: u16, folder: &Path) -> Process {
    let settings = settings.clone().with("listenPort", port).with("storePathRootDir", data_folder(folder).display());
    std::fs::write(settings_file(folder), settings.text()).expect("the settings can be written");
    run_broker(folder)
}

fn settings_file(folder: &Path) -> PathBuf {
    folder.join("broker.conf")
}

/// Starts a broker with the settings that lie in `folder`.
fn run_broker(folder: &Path) -> Process {
    let mut command = Command::new(binary("escrowmq-broker"));
    command.arg("-c").arg(settings_file(folder));
    Process::start("broker", command, &folder.join("broker.log"))
}

/// A nameserver and a broker that is registered there.
#[derive(Debug)]
pub struct Cluster {
    /// The broker.
    pub broker: Broker,
    /// The nameserver.
    pub nameserver: Nameserver,
}

impl Cluster {
    /// Starts both and waits until clients find the broker.
    pub async fn start(settings: Settings) -> Cluster {
        let nameserver = Nameserver::start().await;
        let broker = Broker::start(settings.with("namesrvAddr", nameserver.address())).await;
        let cluster = Cluster { broker, nameserver };
        cluster.until_registered().await;
        cluster
    }

    /// Waits until the nameserver knows the broker.
    pub async fn until_registered(&self) {
        let names = Wire::to(self.nameserver.address());
        let address = self.broker.address();
        until("registration of the broker", async || {
            let answer = names.call(Frame::request(request::GET_BROKER_CLUSTER_INFO)).await.ok()?;
            String::from_utf8_lossy(&answer.body).contains(&address).then_some(())
        })
        .await;
    }

    /// A client that notices changes within moments.
    pub fn client_builder(&self) -> ClientBuilder {
        Client::builder(self.nameserver.address())
    }

    /// A client.
    pub async fn client(&self) -> Client {
        self.client_builder().connect().await.expect("a client connects")
    }

    /// A client, and a topic with `queues` queues.
    pub async fn client_with_topic(&self, topic: &str, queues: u32) -> Client {
        let client = self.client().await;
        client.admin().create_topic(topic, queues).await.expect("the topic is created");
        until("route of the topic", async || {
            let found = client.admin().queues(topic).await.ok()?;
            (found.len() == queues as usize).then_some(())
        })
        .await;
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_logged_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello; exec sleep 600"]);
        let mut process = Process::start("shell", command, &log);
        until("its word", async || process.log().contains("hello").then_some(())).await;
        assert_eq!(process.ended(), None);
        process.kill();
        assert!(process.ended().is_some_and(|status| !status.success()));
    }

    #[tokio::test]
    async fn a_process_is_paused_and_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut process = Process::start("sleeper", command, &folder.path().join("log"));
        let file = format!("/proc/{}/stat", process.id());
        // The state is a letter behind the name in brackets.
        let is_stopped = || std::fs::read_to_string(&file).unwrap().contains(") T ");
        process.pause();
        until("the pause", async || is_stopped().then_some(())).await;
        process.resume();
        until("the end of the pause", async || (!is_stopped()).then_some(())).await;
        process.pause();
        process.kill();
        assert!(process.ended().is_some());
    }
}
