//! A Redis server of a test's own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{START, Unprivileged, end, folder, program};
use crate::wait::until_within;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Redis {
    server: Child,
    folder: TempDir,
    user: Option<Unprivileged>,
}

impl Redis {
    /// Starts an empty server that flushes each write, and waits until it takes connections. `None`, with a line that says why,
    /// where there is none installed.
    ///
    /// # Panics
    ///
    /// If a server is installed and does not start.
    pub async fn start(test: &str) -> Option<Redis> {
        let (folder, user) = folder("redis");
        let Some(server) = serve(&folder, user) else {
            eprintln!("skipped: {test}: no Redis server is installed (`deploy/setup.sh tests` does, where apt is)");
            return None;
        };
        let mut redis = Redis { server, folder, user };
        redis.until_ready().await;
        Some(redis)
    }

    /// Kills the server. It keeps what it has written.
    pub fn kill(&mut self) {
        end(&mut self.server, Signal::KILL);
    }

    /// Starts the server again after [`kill`](Self::kill).
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start_again(&mut self) {
        self.server = serve(&self.folder, self.user).expect("it was there before");
        self.until_ready().await;
    }

    async fn until_ready(&mut self) {
        until_within(START, "start of Redis", async || {
            let ended = self.server.try_wait().expect("a child can be waited for");
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "Redis ended right after its start:\n{log}");
            log.contains("The server is now ready to accept connections at").then_some(())
        })
        .await;
    }

    /// Where clients find the server.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("socket").display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(folder: &TempDir, user: Option<Unprivileged>) -> Option<Child> {
    // Debian's package of tools has the server under another name, which it looks at to know what it is. The package with the right
    // name would start a service.
    let program = program("redis-server").or_else(|| program("redis-check-rdb"))?;
    let mut command = Command::new(program);
    command.arg0("redis-server").current_dir(folder.path()).stdin(Stdio::null()).env("LC_ALL", "C");
    command.args(["--port", "0", "--unixsocket"]).arg(folder.path().join("socket"));
    command.arg("--dir").arg(folder.path());
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]);
    Unprivileged::run(user, &mut command);
    let log = fs::File::create(folder.path().join("log")).expect("a log file");
    command.stdout(log.try_clone().expect("a file")).stderr(log);
    Some(command.spawn().expect("Redis runs"))
}
