//! The processes: which there are, and what is done to them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use escrowmq_common::ports::free_port;
use escrowmq_common::task::Tasks;

use super::commands::Deed;
use crate::processes::{Log, Logs, Process, binary};

/// The groups, by name, and members of each.
pub(super) const GROUPS: [&str; 2] = ["a", "b"];
pub(super) const MEMBERS: usize = 3;
const NAMESERVERS: usize = 2;

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs.
    Up,
    /// It stands still.
    Paused,
    /// It has ended.
    Down,
}

/// A process of the cluster.
#[derive(Debug)]
pub(super) struct Node {
    /// The name that commands have for it.
    pub(super) name: String,
    /// Its group; none for a nameserver.
    pub(super) group: Option<usize>,
    /// For clients.
    pub(super) port: u16,
    /// Of its metrics; 0 for a nameserver.
    pub(super) metrics: u16,
    state: State,
    command: Vec<String>,
    program: &'static str,
    process: Option<Process>,
}

impl Node {
    /// How it is now.
    pub(super) fn state(&mut self) -> State {
        let has_ended = self.process.as_mut().is_none_or(|process| !matches!(process.ended(), Ok(None)));
        if has_ended { State::Down } else { self.state }
    }

    /// Where clients find it.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Cluster {
    folder: PathBuf,
    logs: Logs,
    nodes: Vec<Node>,
    told: Vec<Log>,
}

impl Cluster {
    /// Nothing is started yet; everything will be kept in `folder`.
    pub(super) fn new(folder: &Path) -> anyhow::Result<Cluster> {
        let logs = Logs { folder: folder.join("logs"), is_shown: false, threads: Tasks::new() };
        std::fs::create_dir(&logs.folder)?;
        let wanted = 0..NAMESERVERS + GROUPS.len() * MEMBERS * 3;
        let ports: Vec<u16> = wanted.map(|_| free_port()).collect::<Result<_, _>>()?;
        let (names, members) = ports.split_at(NAMESERVERS);
        let mut nodes: Vec<Node> = (0..).zip(names).map(|(number, port)| nameserver(folder, number, *port)).collect();
        let namesrv = nodes.iter().map(Node::address).collect::<Vec<_>>().join(";");
        for (group, ports) in members.chunks(MEMBERS * 3).enumerate() {
            let seats: Vec<&[u16]> = ports.chunks(3).collect();
            let peers = (0..).zip(&seats).map(|(number, ports)| format!("n{number}-127.0.0.1:{}", ports[2]));
            let peers = peers.collect::<Vec<_>>().join(";");
            for (number, ports) in seats.iter().enumerate() {
                nodes.push(member(folder, group, number, ports, &peers, &namesrv)?);
            }
        }
        Ok(Cluster { folder: folder.to_owned(), logs, nodes, told: Vec::new() })
    }

    /// Where it keeps its things.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// All processes, nameservers first.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Their states, in the same order.
    pub(super) fn states(&mut self) -> Vec<State> {
        self.nodes.iter_mut().map(Node::state).collect()
    }

    /// The addresses of the nameservers.
    pub(super) fn namesrv(&self) -> String {
        let names = self.nodes.iter().filter(|node| node.group.is_none());
        names.map(Node::address).collect::<Vec<_>>().join(";")
    }

    /// Starts everything.
    pub(super) fn start_all(&mut self) -> anyhow::Result<()> {
        for at in 0..self.nodes.len() {
            self.start(at)?;
        }
        Ok(())
    }

    /// Does something to a process; answers what was done.
    pub(super) fn act(&mut self, deed: Deed, name: &str) -> anyhow::Result<String> {
        let at = self.nodes.iter().position(|node| node.name == name);
        let at = at.with_context(|| format!("there is no {name}: {}", super::commands::HELP))?;
        let state = self.nodes[at].state();
        let node = &mut self.nodes[at];
        let process = || format!("{name} is down: `start {name}` starts it");
        match deed {
            Deed::Start => {
                ensure!(state == State::Down, "{name} runs already");
                self.start(at)?;
            }
            Deed::Kill => node.process.as_mut().filter(|_| state != State::Down).with_context(process)?.kill()?,
            Deed::Pause => {
                node.process.as_ref().filter(|_| state != State::Down).with_context(process)?.pause()?;
                node.state = State::Paused;
            }
            Deed::Resume => {
                node.process.as_ref().filter(|_| state != State::Down).with_context(process)?.resume()?;
                node.state = State::Up;
            }
        }
        Ok(match deed {
            Deed::Kill => format!("{name} is killed (kill -9)"),
            Deed::Start => format!("{name} starts"),
            Deed::Pause => format!("{name} stands still (SIGSTOP)"),
            Deed::Resume => format!("{name} goes on (SIGCONT)"),
        })
    }

    /// Prints the end of each log.
    pub(super) fn tell_logs(&self) {
        self.told.iter().for_each(Log::tell);
    }

    fn start(&mut self, at: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[at];
        let program = binary(node.program)?;
        let process = Process::start(&node.name, Command::new(program).args(&node.command), &self.logs)?;
        // One log for each name: the file has them all.
        let log = process.log();
        match self.told.get_mut(at) {
            Some(told) => *told = log,
            None => self.told.push(log),
        }
        (node.process, node.state) = (Some(process), State::Up);
        Ok(())
    }
}

fn nameserver(folder: &Path, number: usize, port: u16) -> Node {
    let name = format!("ns{number}");
    let kv = folder.join(format!("{name}.json"));
    let set = format!("kvConfigPath={}", kv.display());
    let command = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--set", "metricsPort=0", "--set", &set]
        .map(str::to_owned)
        .to_vec();
    let program = "escrowmq-nameserver";
    Node { name, group: None, port, metrics: 0, state: State::Down, command, program, process: None }
}

/// A member with its ports: for clients, for metrics, for the others.
fn member(
    folder: &Path,
    group: usize,
    number: usize,
    ports: &[u16],
    peers: &str,
    namesrv: &str,
) -> anyhow::Result<Node> {
    let [port, metrics, _] = *ports else { bail!("a member has three ports") };
    let name = format!("{}{number}", GROUPS[group]);
    let file = folder.join(format!("{name}.conf"));
    // Loopback addresses need no secret. Checks come early, so that nobody has to wait for them.
    std::fs::write(
        &file,
        format!(
            "brokerName=group-{}\n\
             brokerIP1=127.0.0.1\n\
             bindAddress=127.0.0.1\n\
             listenPort={port}\n\
             metricsPort={metrics}\n\
             namesrvAddr={namesrv}\n\
             storePathRootDir={}\n\
             dLegerPeers={peers}\n\
             dLegerSelfId=n{number}\n\
             transactionTimeOut=2000\n\
             transactionCheckInterval=2000\n",
            GROUPS[group],
            folder.join(&name).display()
        ),
    )?;
    let command = vec!["-c".to_owned(), file.display().to_string()];
    let program = "escrowmq-broker";
    Ok(Node { name, group: Some(group), port, metrics, state: State::Down, command, program, process: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_names_and_files_and_are_down_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(folder.path()).unwrap();
        let names: Vec<&str> = cluster.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["ns0", "ns1", "a0", "a1", "a2", "b0", "b1", "b2"]);
        assert_eq!(cluster.states(), [State::Down; 8]);
        let file = std::fs::read_to_string(folder.path().join("b2.conf")).unwrap();
        assert!(file.contains("brokerName=group-b\n") && file.contains("dLegerSelfId=n2\n"), "{file}");
        assert!(file.contains(&format!("namesrvAddr={}\n", cluster.namesrv())), "{file}");
        for (deed, name, said) in
            [(Deed::Kill, "a1", "a1 is down"), (Deed::Pause, "b0", "b0 is down"), (Deed::Start, "c1", "there is no c1")]
        {
            let error = cluster.act(deed, name).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
