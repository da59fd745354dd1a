//! Reads what the machine says of itself. Nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use escrowmq_broker::limits::{FolderError, lock_existing_folder};
use escrowmq_common::clock;
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit, getuid};

use super::clock::Setter;
use super::disk::Speed;
use super::limits::{self, OpenFiles};
use super::ownership::Owned;
use super::ports::{Listener, listening};

/// Writes of a measurement of the disk.
const WRITES: usize = 100;
/// The longest that it may take.
const WRITES_TIME: Duration = Duration::from_secs(2);
/// Programs that set clocks, as the system names them: 15 letters.
const SETTERS: [&str; 8] =
    ["chronyd", "ntpd", "ntpd-rs", "ntp-daemon", "systemd-timesyn", "openntpd", "ptp4l", "phc2sys"];

/// A text of the system, if there is one.
pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The broker of a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broker {
    /// None runs.
    None,
    /// One runs. Its process, if it is one of this machine that this user may see.
    Runs(Option<u32>),
}

impl Broker {
    pub(super) fn of(folder: &Path) -> Self {
        match lock_existing_folder(folder) {
            Err(FolderError::InUse { pid, .. }) => {
                Self::Runs(pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()))
            }
            _ => Self::None,
        }
    }

    pub(super) fn runs(self) -> bool {
        self != Self::None
    }

    pub(super) fn pid(self) -> Option<u32> {
        match self {
            Self::Runs(pid) => pid,
            Self::None => None,
        }
    }

    /// One of the texts in /proc about its process.
    pub(super) fn says(self, name: &str) -> Option<String> {
        read(format!("/proc/{}/{name}", self.pid()?))
    }

    /// Its user, or this command's.
    pub(super) fn uid(self) -> u32 {
        let of = |status: String| {
            status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
        };
        self.says("status").and_then(of).unwrap_or_else(|| getuid().as_raw())
    }

    /// The limit up to which it may raise its own, or that of this command.
    pub(super) fn open_files(self) -> OpenFiles {
        let of_process =
            self.pid().and_then(|pid| limits::parse(&self.says("limits")?, format!("the broker (process {pid})")));
        let of_command = || {
            let of = "a broker that is started from here".to_owned();
            OpenFiles { limit: getrlimit(Resource::Nofile).maximum, of }
        };
        of_process.unwrap_or_else(of_command)
    }
}

/// The folder, or the deepest one on the way to it that is there, without links.
pub(super) fn existing(folder: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(folder)?;
    let found = absolute.ancestors().find_map(|folder| folder.canonicalize().ok());
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub(super) fn owned(path: &Path) -> Option<Owned> {
    let metadata = fs::metadata(path).ok()?;
    Some(Owned { uid: metadata.uid(), mode: metadata.mode() })
}

/// Files that may still be made there; `None` where the file system does not count them.
pub(super) fn free_files(folder: &Path) -> Option<u64> {
    let stat = statvfs(folder).ok()?;
    (stat.f_files > 0).then_some(stat.f_favail)
}

/// Writes and flushes a file in a folder, as a broker does with each batch of messages, and removes it.
pub(super) fn speed(folder: &Path) -> io::Result<Speed> {
    let path = folder.join(format!("doctor-{}.tmp", std::process::id()));
    let took = File::create_new(&path).and_then(|mut file| {
        let began = clock::monotonic();
        let mut took = Vec::with_capacity(WRITES);
        while took.len() < WRITES && clock::monotonic().saturating_sub(began) < WRITES_TIME {
            let before = clock::monotonic();
            file.write_all(&[0x5a; 4096])?;
            file.sync_data()?;
            took.push(clock::monotonic().saturating_sub(before));
        }
        Ok(took)
    });
    let removed = fs::remove_file(&path);
    let took = took?;
    removed?;
    Ok(Speed::new(took))
}

/// Wall clock and steady clock at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    wall_ms: i64,
    steady: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { wall_ms: clock::wall_ms(), steady: clock::monotonic() }
    }

    /// By how much the wall clock left the steady one since then.
    pub(super) fn step(self) -> Duration {
        let now = Self::now();
        let passed = (now.steady.saturating_sub(self.steady)).as_millis() as i64;
        Duration::from_millis((now.wall_ms - self.wall_ms - passed).unsigned_abs())
    }
}

/// Who sets the clock.
pub(super) fn setter() -> Setter {
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stderr(Stdio::null())
        .output();
    match asked.ok().filter(|answer| answer.status.success()).map(|answer| answer.stdout) {
        Some(answer) if answer.starts_with(b"yes") => return Setter::Synchronised,
        Some(answer) if answer.starts_with(b"no") => return Setter::NotSynchronised,
        _ => {}
    }
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Setter::Synchronised;
    }
    if let Some(name) = processes().filter_map(name_of).find(|name| SETTERS.contains(&name.as_str())) {
        return Setter::Runs(name);
    }
    let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/var/run/secrets/kubernetes.io"];
    if marks.iter().any(|mark| Path::new(mark).exists()) { Setter::Hidden } else { Setter::Nobody }
}

fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").into_iter().flatten();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn name_of(pid: u32) -> Option<String> {
    read(format!("/proc/{pid}/comm")).map(|name| name.trim_end().to_owned())
}

/// Who listens at which port.
#[derive(Debug)]
pub(super) struct Listeners {
    inodes: BTreeMap<u16, BTreeSet<u64>>,
    /// The processes that have those sockets, as far as this user sees.
    holders: BTreeMap<u64, u32>,
    broker: Option<u32>,
}

impl Listeners {
    pub(super) fn look(broker: Broker) -> Self {
        let mut inodes: BTreeMap<u16, BTreeSet<u64>> = BTreeMap::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            for (port, inode) in listening(&read(table).unwrap_or_default()) {
                inodes.entry(port).or_default().insert(inode);
            }
        }
        let wanted: BTreeSet<u64> = inodes.values().flatten().copied().collect();
        let mut holders = BTreeMap::new();
        for pid in processes() {
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                let link = fs::read_link(entry.path()).unwrap_or_default();
                let inode =
                    link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
                if let Some(inode) = inode.filter(|inode| wanted.contains(inode)) {
                    holders.insert(inode, pid);
                }
            }
        }
        Self { inodes, holders, broker: broker.pid() }
    }

    pub(super) fn at(&self, port: u16) -> Listener {
        let Some(inodes) = self.inodes.get(&port) else { return Listener::Nobody };
        let pids: BTreeSet<u32> = inodes.iter().filter_map(|inode| self.holders.get(inode).copied()).collect();
        match pids.first() {
            _ if self.broker.is_some_and(|broker| pids.contains(&broker)) => Listener::Broker,
            Some(pid) => Listener::Other(*pid, name_of(*pid).unwrap_or_else(|| "a process".to_owned())),
            None => Listener::Unseen,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use escrowmq_broker::limits::lock_folder;

    use super::*;

    #[test]
    fn this_process_is_found_at_its_port_and_on_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Broker::of(folder.path()).runs());
        let _taken = lock_folder(folder.path()).unwrap();
        let broker = Broker::of(folder.path());
        assert_eq!(broker, Broker::Runs(Some(std::process::id())));
        assert_eq!(broker.uid(), getuid().as_raw());
        assert!(broker.open_files().of.starts_with("the broker"));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(Listeners::look(broker).at(port), Listener::Broker);
        let (pid, name) = (std::process::id(), name_of(std::process::id()).unwrap());
        assert_eq!(Listeners::look(Broker::None).at(port), Listener::Other(pid, name));
        drop(listener);
        assert_eq!(Listeners::look(broker).at(port), Listener::Nobody);
    }

    #[test]
    fn a_measurement_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        speed(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(speed(&folder.path().join("none")).is_err());
        let inner = folder.path().join("a/b");
        assert_eq!(existing(&inner).unwrap(), folder.path().canonicalize().unwrap());
    }
}
