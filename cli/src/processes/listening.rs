//! Processes that listen, and free ports for them.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use escrowmq_common::clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};

use super::process::{Logs, Process};
use super::wait::{DEADLINE, until};

/// Ports are looked for in this range: below those that the system gives to outgoing connections, so that nobody takes the
/// port of a process while it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Between two ports that are given out together.
const SPACING: u16 = 4;

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
            None => free_ports(1)?[0],
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

/// So many different ports of [`PORTS`] that nobody listens at now, looked for from a different place each time. Nobody listens two
/// below each of them either: a broker opens that port for old clients.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let width = PORTS.end - PORTS.start;
    let nanos = clock::wall_ms() as u64 * 1_000_003 + u64::from(std::process::id()) * 7_919;
    let nanos = nanos.wrapping_add(u64::from(clock::monotonic().subsec_nanos()));
    let first = (nanos % u64::from(width)) as u16;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let spaced = (0..width / SPACING).map(|step| PORTS.start + (first + step * SPACING) % width);
    let ports: Vec<u16> = spaced.filter(|port| is_free(*port) && is_free(*port - 2)).take(count).collect();
    if ports.len() < count {
        bail!("there are not {count} free ports between {} and {}", PORTS.start, PORTS.end);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_given_out_together_leave_room_for_old_clients() {
        let ports = free_ports(26).unwrap();
        let mut all: Vec<u16> = ports.iter().flat_map(|port| [*port, *port - 2]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * 26);
    }
}
