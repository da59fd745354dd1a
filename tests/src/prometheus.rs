//! A Prometheus of the test's own, where one is installed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::processes::{Process, free_port};
use crate::wait::until;

/// Debian's package has both; the set-up of the tests installs them.
const FOLDERS: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// A program of Prometheus: `prometheus` or `promtool`. `None`, and a line that says so, where it is not installed.
pub fn program(name: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("SKIPPED {test}: no {name} (`sh deploy/setup.sh tests` installs it, where apt is)");
    }
    found
}

/// A running one. It ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that asks each target of each job every second, and looks at the rules as often. Waits until it answers.
    pub async fn start(program: &Path, jobs: &[(&str, Vec<String>)], rules: &str) -> Prometheus {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);
        let mut settings = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n\
                            rule_files: [rules.yml]\nscrape_configs:\n"
            .to_owned();
        for (job, targets) in jobs {
            writeln!(settings, "  - {{ job_name: {job}, static_configs: [{{ targets: {targets:?} }}] }}")
                .expect("a string takes it");
        }
        std::fs::write(file("prometheus.yml"), settings).expect("its settings can be written");
        std::fs::write(file("rules.yml"), rules).expect("the rules can be written");
        let port = free_port();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", file("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start("prometheus", command, &file("prometheus.log"));
        until("Prometheus", async || {
            assert!(process.ended().is_none(), "Prometheus ended: {}", process.log());
            get(port, "/-/ready").await.filter(|answer| answer.starts_with("HTTP/1.0 200"))
        })
        .await;
        Prometheus { _process: process, port, _folder: folder }
    }

    /// The labels of each alert that is firing now.
    pub async fn firing(&self) -> Vec<Value> {
        until("the alerts", async || {
            let answer = get(self.port, "/api/v1/alerts").await?;
            let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
            let alerts = answer["data"]["alerts"].as_array()?;
            Some(
                alerts.iter().filter(|alert| alert["state"] == "firing").map(|alert| alert["labels"].clone()).collect(),
            )
        })
        .await
    }

    /// How many targets answer.
    pub async fn targets_up(&self) -> usize {
        until("the targets", async || {
            let answer = get(self.port, "/api/v1/targets").await?;
            let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
            Some(answer["data"]["activeTargets"].as_array()?.iter().filter(|target| target["health"] == "up").count())
        })
        .await
    }
}

/// An answer as it comes. HTTP/1.0 has no chunks.
async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
