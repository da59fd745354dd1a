//! Processes that listen.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::ports::free_port;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};

use super::process::{Logs, Process};
use super::wait::{DEADLINE, until};

/// Attempts to start a process whose port was taken by another program in the meantime.
const START_ATTEMPTS: usize = 5;

/// A process that listens.
#[derive(Debug)]
pub(crate) struct Running {
    /// The process.
    pub(crate) process: Process,
    /// Its port.
    pub(crate) port: u16,
}

/// Starts the process that `command` makes for a port, at this port or at a free one, and waits until it answers. `started` gets
/// each process that was tried.
pub(crate) async fn start(
    name: &str,
    port: Option<u16>,
    logs: &Logs,
    command: impl Fn(u16) -> anyhow::Result<Command>,
    mut started: impl FnMut(&Process),
) -> anyhow::Result<Running> {
    for _ in 0..START_ATTEMPTS {
        let port = match port {
            Some(port) => port,
            None => free_port()?,
        };
        let process = Process::start(name, &mut command(port)?, logs)?;
        started(&process);
        let mut running = Running { process, port };
        if running.is_serving(name).await? {
            return Ok(running);
        }
    }
    bail!("the {name} ended {START_ATTEMPTS} times right after its start")
}

impl Running {
    /// Where it listens.
    pub(crate) fn address(&self) -> String {
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
