//! Database servers of a test's own: a temporary folder, a socket in it, no port, gone with the test.
//!
//! The servers refuse to run as root, so there they run as somebody else.

mod mariadb;
mod postgres;
mod redis;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use redis::Redis;

/// How long a server may take to start. Making its folder takes longer than that of a broker.
const START: Duration = Duration::from_secs(60);

/// Folders that Debian and others put the programs into.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];

/// Users that a server can run as instead of root.
const USERS: [&str; 3] = ["postgres", "mysql", "nobody"];

/// A folder for a server, and the user that it runs as.
fn folder(prefix: &str) -> (TempDir, Option<Unprivileged>) {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder");
    let user = Unprivileged::instead_of_root();
    if let Some(user) = user {
        chown(folder.path(), Some(user.id), Some(user.group)).expect("root gives folders away");
    }
    (folder, user)
}

/// A program of a server.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = FOLDERS.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Ends a server, which has nothing to keep. Both steps fail only for a process that is gone.
fn end(server: &mut Child, signal: Signal) {
    if let Some(id) = Pid::from_raw(server.id().cast_signed()) {
        let _ = kill_process(id, signal);
    }
    let _ = server.wait();
}

/// A user that a server can run as.
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
        let found = USERS.iter().find_map(|name| Unprivileged::find(&users, name));
        Some(found.expect("a user who is not root"))
    }

    /// Lets a command run as this user, if there is one.
    fn run(user: Option<Unprivileged>, command: &mut Command) {
        if let Some(user) = user {
            command.uid(user.id).gid(user.group);
        }
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
