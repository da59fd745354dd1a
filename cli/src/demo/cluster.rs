//! The nameserver and the broker of the demo.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};
use escrowmq_common::task::Tasks;

use super::process::{Log, Logs, Process, binary};
use super::stage::{DEADLINE, until};

/// Ports are looked for in this range: below those that the system gives to outgoing connections, so that nobody takes the
/// broker's port while it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Attempts to start a process whose port was taken by another program in the meantime.
const START_ATTEMPTS: usize = 5;

/// The processes, and where they keep their things.
#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    logs: Logs,
    nameserver: Option<Running>,
    broker: Option<Running>,
    /// Logs of all processes there were.
    told: Vec<Log>,
}

/// A process that listens.
#[derive(Debug)]
struct Running {
    process: Process,
    port: u16,
}

impl Cluster {
    /// Nothing is started yet; everything will be kept in `folder`.
    pub(super) fn new(folder: &Path, is_verbose: bool) -> anyhow::Result<Cluster> {
        let logs = Logs { folder: folder.join("logs"), is_shown: is_verbose, threads: Tasks::new() };
        std::fs::create_dir(&logs.folder)?;
        Ok(Cluster { folder: folder.to_owned(), logs, nameserver: None, broker: None, told: Vec::new() })
    }

    /// Where it keeps its things.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the nameserver; answers its address and process id.
    pub(super) async fn start_nameserver(&mut self) -> anyhow::Result<(String, u32)> {
        let program = binary("escrowmq-nameserver")?;
        let kv = self.folder.join("kvConfig.json");
        let running = self
            .start("nameserver", None, |port| {
                let mut command = Command::new(&program);
                command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
                command.arg("--set").arg(format!("kvConfigPath={}", kv.display()));
                Ok(command)
            })
            .await?;
        let running = self.nameserver.insert(running);
        Ok((running.address(), running.process.id()))
    }

    /// Starts the broker, or starts it again: on the same port, with the same data.
    pub(super) async fn start_broker(&mut self) -> anyhow::Result<(String, u32)> {
        let program = binary("escrowmq-broker")?;
        let namesrv = self.nameserver.as_ref().context("the nameserver runs")?.address();
        let port = self.broker.take().map(|before| before.port);
        let file = self.folder.join("broker.conf");
        let data = self.folder.join("data");
        let running = self
            .start("broker", port, |port| {
                std::fs::write(&file, settings(port, &namesrv, &data))?;
                let mut command = Command::new(&program);
                command.arg("-c").arg(&file);
                Ok(command)
            })
            .await?;
        let running = self.broker.insert(running);
        Ok((running.address(), running.process.id()))
    }

    /// Kills the broker with `kill -9`.
    pub(super) fn kill_broker(&mut self) -> anyhow::Result<u32> {
        let broker = self.broker.as_mut().context("the broker runs")?;
        broker.process.kill()?;
        Ok(broker.process.id())
    }

    /// Starts another process, whose end is up to the caller.
    pub(super) fn start_other(&mut self, name: &'static str, command: &mut Command) -> anyhow::Result<Process> {
        let process = Process::start(name, command, &self.logs)?;
        self.told.push(process.log());
        Ok(process)
    }

    /// Prints the end of each log.
    pub(super) fn tell_logs(&self) {
        for log in &self.told {
            log.tell();
        }
    }

    async fn start(
        &mut self,
        name: &'static str,
        port: Option<u16>,
        command: impl Fn(u16) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Running> {
        for _ in 0..START_ATTEMPTS {
            let port = port.map_or_else(free_port, Ok)?;
            let process = self.start_other(name, &mut command(port)?)?;
            let mut running = Running { process, port };
            if running.is_serving(name).await? {
                return Ok(running);
            }
        }
        bail!("the {name} ended {START_ATTEMPTS} times right after its start")
    }
}

impl Running {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until it answers (true) or has ended.
    async fn is_serving(&mut self, name: &str) -> anyhow::Result<bool> {
        let address = self.address();
        let remote = Remote::new(RemoteOptions::default(), std::sync::Arc::new(NoRequests));
        let what = format!("answer of the {name} at {address}");
        let serving = until(DEADLINE, &what, async || {
            if self.process.ended()?.is_some() {
                return Ok(Some(false));
            }
            // Any answer will do, also one that says no.
            let ask = Frame::request(request::HEART_BEAT);
            let answer = remote.call(&address, ask, Duration::from_secs(1)).await;
            Ok(answer.is_ok().then_some(true))
        });
        let serving = serving.await;
        remote.close().await;
        serving
    }
}

/// A `broker.conf` in RocketMQ's key names. Checks come early, so that nobody has to wait for them.
fn settings(port: u16, namesrv: &str, data: &Path) -> String {
    format!(
        "brokerName=demo\n\
         brokerIP1=127.0.0.1\n\
         bindAddress=127.0.0.1\n\
         listenPort={port}\n\
         namesrvAddr={namesrv}\n\
         storePathRootDir={}\n\
         flushDiskType=SYNC_FLUSH\n\
         transactionTimeOut=2000\n\
         transactionCheckInterval=2000\n",
        data.display()
    )
}

/// A port of [`PORTS`] that nobody listens at now, looked for from a different place each time.
fn free_port() -> anyhow::Result<u16> {
    let width = PORTS.end - PORTS.start;
    let nanos = clock::wall_ms() as u64 * 1_000_003 + u64::from(std::process::id()) * 7_919;
    let nanos = nanos.wrapping_add(u64::from(clock::monotonic().subsec_nanos()));
    let first = (nanos % u64::from(width)) as u16;
    let mut ports = (0..width).map(|step| PORTS.start + (first + step) % width);
    ports
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free port between 12000 and 32000")
}
