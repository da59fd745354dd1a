//! A PostgreSQL server of a test's own: a temporary folder, a socket in it, no port, gone with the test.
//!
//! The server refuses to run as root, so there it runs as `postgres` or `nobody`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use crate::wait::until_within;

/// How long the server may take to start. Making its folder takes longer than that of a broker.
const START: Duration = Duration::from_secs(60);

/// Users that the server can run as instead of root.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The name of the database and its superuser.
const NAME: &str = "shop";

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Postgres {
    server: Child,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server with an empty database and waits until it takes connections. `None`, with a line that says why, where
    /// there is none installed.
    ///
    /// # Panics
    ///
    /// If a server is installed and does not start.
    pub async fn start(test: &str) -> Option<Postgres> {
        let Some(binaries) = binaries() else {
            eprintln!(
                "skipped: {test}: no PostgreSQL server is installed (`deploy/setup.sh tests` does, where apt is)"
            );
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pg").tempdir().expect("a temporary folder");
        let user = Unprivileged::instead_of_root();
        if let Some(user) = user {
            chown(folder.path(), Some(user.id), Some(user.group)).expect("root gives folders away");
        }
        let data = folder.path().join("data");
        let log = folder.path().join("log");
        let command = |program: &str| {
            let mut command = Command::new(binaries.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            command.env("LC_ALL", "C");
            if let Some(user) = user {
                command.uid(user.id).gid(user.group);
            }
            command
        };
        let mut init = command("initdb");
        init.arg("-D").arg(&data).args(["-U", NAME, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]);
        let made = init.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut serve = command("postgres");
        serve.arg("-D").arg(&data);
        let socket = format!("unix_socket_directories={}", folder.path().display());
        // Killing a client loses nothing that is not flushed, and an administrator may have turned this down.
        for setting in ["listen_addresses=", &socket, "fsync=off", "synchronous_commit=off"] {
            serve.args(["-c", setting]);
        }
        let file = fs::File::create(&log).expect("a log file");
        serve.stdout(file.try_clone().expect("a file")).stderr(file);
        let server = serve.spawn().expect("postgres runs");
        let mut postgres = Postgres { server, folder };
        until_within(START, "start of PostgreSQL", async || {
            let ended = postgres.server.try_wait().expect("a child can be waited for");
            let log = || fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "PostgreSQL ended right after its start:\n{}", log());
            // The last line of its file says so.
            let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
            file.lines().any(|line| line.trim() == "ready").then_some(())
        })
        .await;
        Some(postgres)
    }

    /// Where clients find an empty database.
    pub fn url(&self) -> String {
        // Every cluster has this database from the start.
        format!("postgres:///postgres?host={}&user={NAME}", self.folder.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, clients or not: it has nothing to keep. Both fail only for a process that is gone.
        if let Some(id) = Pid::from_raw(self.server.id().cast_signed()) {
            let _ = kill_process(id, Signal::QUIT);
        }
        let _ = self.server.wait();
    }
}

/// The folder with the server's programs: in the path, or where Debian and others put them.
fn binaries() -> Option<PathBuf> {
    let has_all = |folder: &Path| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    let mut folders: Vec<PathBuf> = Vec::new();
    for parent in ["/usr/lib/postgresql", "/usr/local/opt", "/opt/homebrew/opt"] {
        let versions = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_ours = |path: &PathBuf| parent.ends_with("postgresql") || is_named_postgresql(path);
        folders.extend(versions.filter(is_ours).map(|version| version.join("bin")));
    }
    folders.sort();
    folders.reverse();
    // Entries of the path may be links: the programs look for their files beside themselves.
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().find(|folder| has_all(folder))
}

fn is_named_postgresql(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("postgresql"))
}

#[derive(Clone, Copy, Debug)]
struct Unprivileged {
    id: u32,
    group: u32,
}

impl Unprivileged {
    /// Somebody else, if this is root.
    fn instead_of_root() -> Option<Unprivileged> {
        if !getuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").expect("a list of users");
        let found = UNPRIVILEGED.iter().find_map(|name| Unprivileged::find(&users, name));
        Some(found.expect("a user who is not root"))
    }

    fn find(users: &str, name: &str) -> Option<Unprivileged> {
        let mut fields = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.split(':').skip(1);
        Some(Unprivileged { id: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0::/root:/bin/sh\nnobody2:x:7:8::/:\nnobody:x:65534:65533:n:/:/usr/sbin/nologin\n";
        let found = Unprivileged::find(users, "nobody").expect("a user");
        assert_eq!((found.id, found.group), (65534, 65533));
        assert!(Unprivileged::find(users, "postgres").is_none());
    }
}
