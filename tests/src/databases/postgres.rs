//! A PostgreSQL server of a test's own: a temporary folder, a socket in it, no port, gone with the test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{START, Unprivileged, end, folder};
use crate::wait::until_within;

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
        // Killing a client loses nothing that is not flushed, and an administrator may have turned this down.
        Postgres::start_with(test, &["fsync=off", "synchronous_commit=off"]).await
    }

    /// The same, with these settings instead of the quick ones.
    ///
    /// # Panics
    ///
    /// If a server is installed and does not start.
    pub async fn start_with(test: &str, settings: &[&str]) -> Option<Postgres> {
        let Some(binaries) = binaries() else {
            eprintln!(
                "skipped: {test}: no PostgreSQL server is installed (`deploy/setup.sh tests` does, where apt is)"
            );
            return None;
        };
        let (folder, user) = folder("pg");
        let data = folder.path().join("data");
        let log = folder.path().join("log");
        let command = |program: &str| {
            let mut command = Command::new(binaries.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            command.env("LC_ALL", "C");
            Unprivileged::run(user, &mut command);
            command
        };
        let mut init = command("initdb");
        init.arg("-D").arg(&data).args(["-U", NAME, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]);
        let made = init.output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut serve = command("postgres");
        serve.arg("-D").arg(&data);
        let socket = format!("unix_socket_directories={}", folder.path().display());
        for setting in ["listen_addresses=", &socket].iter().chain(settings) {
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
        // At once, clients or not.
        end(&mut self.server, Signal::QUIT);
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
