//! A MariaDB server of a test's own. It stands for MySQL too.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{START, Unprivileged, end, folder, program};
use crate::wait::until_within;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct MariaDb {
    server: Child,
    folder: TempDir,
}

impl MariaDb {
    /// Starts a server with the empty database `test` and waits until it takes connections. `None`, with a line that says why,
    /// where there is none installed.
    ///
    /// # Panics
    ///
    /// If a server is installed and does not start.
    pub async fn start(test: &str) -> Option<MariaDb> {
        // Killing a client loses nothing that is not flushed.
        MariaDb::start_with(test, &["--innodb-flush-log-at-trx-commit=0"]).await
    }

    /// The same, with these settings instead of the quick ones.
    ///
    /// # Panics
    ///
    /// If a server is installed and does not start.
    pub async fn start_with(test: &str, settings: &[&str]) -> Option<MariaDb> {
        let (Some(server), Some(install)) = (program("mariadbd"), program("mariadb-install-db")) else {
            eprintln!("skipped: {test}: no MariaDB server is installed (`deploy/setup.sh tests` does, where apt is)");
            return None;
        };
        let (folder, user) = folder("my");
        let (data, log, socket) = (folder.path().join("data"), folder.path().join("log"), folder.path().join("socket"));
        let command = |program: &PathBuf| {
            let mut command = Command::new(program);
            command.current_dir(folder.path()).stdin(Stdio::null()).env("LC_ALL", "C");
            // A server that starts deletes the temporary tables that it finds, those of another one, too.
            command.env("TMPDIR", folder.path());
            command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
            Unprivileged::run(user, &mut command);
            command
        };
        let mut init = command(&install);
        // The smallest redo log: most of the time is spent on writing it.
        init.args(["--auth-root-authentication-method=normal", "--skip-name-resolve", "--innodb-log-file-size=4M"]);
        let made = init.output().expect("mariadb-install-db runs");
        assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
        let mut serve = command(&server);
        serve.arg(format!("--socket={}", socket.display()));
        serve.args(["--skip-networking", "--skip-log-bin", "--innodb-log-file-size=64M"]).args(settings);
        let file = fs::File::create(&log).expect("a log file");
        serve.stdout(file.try_clone().expect("a file")).stderr(file);
        let server = serve.spawn().expect("mariadbd runs");
        let mut mariadb = MariaDb { server, folder };
        until_within(START, "start of MariaDB", async || {
            let ended = mariadb.server.try_wait().expect("a child can be waited for");
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "MariaDB ended right after its start:\n{log}");
            log.contains("ready for connections").then_some(())
        })
        .await;
        Some(mariadb)
    }

    /// Where clients find the database `test`, which every server has from the start, and which is empty.
    pub fn url(&self) -> String {
        format!("mysql://root@localhost/test?socket={}", self.folder.path().join("socket").display())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        end(&mut self.server, Signal::KILL);
    }
}
