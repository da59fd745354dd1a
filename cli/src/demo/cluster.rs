//! The nameserver and the broker of the demo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use escrowmq_common::task::Tasks;

use crate::processes::{Log, Logs, Process, Running, binary, start};

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
        let command = |port: u16| {
            let mut command = Command::new(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--set", "metricsPort=0", "--set"]).arg(format!("kvConfigPath={}", kv.display()));
            Ok(command)
        };
        let told = &mut self.told;
        let running = start("nameserver", None, &self.logs, command, |process| told.push(process.log())).await?;
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
        let command = |port| {
            std::fs::write(&file, settings(port, &namesrv, &data))?;
            let mut command = Command::new(&program);
            command.arg("-c").arg(&file);
            Ok(command)
        };
        let told = &mut self.told;
        let running = start("broker", port, &self.logs, command, |process| told.push(process.log())).await?;
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
}

/// A `broker.conf` in RocketMQ's key names. Checks come early, so that nobody has to wait for them.
fn settings(port: u16, namesrv: &str, data: &Path) -> String {
    format!(
        "brokerName=demo\n\
         brokerIP1=127.0.0.1\n\
         bindAddress=127.0.0.1\n\
         listenPort={port}\n\
         metricsPort=0\n\
         namesrvAddr={namesrv}\n\
         storePathRootDir={}\n\
         flushDiskType=SYNC_FLUSH\n\
         transactionTimeOut=2000\n\
         transactionCheckInterval=2000\n",
        data.display()
    )
}
