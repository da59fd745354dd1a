//! One process of the demo: started, read from, killed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Lines of a log that are told when the demo fails.
const TOLD_LINES_MAX: usize = 15;

/// Lines of standard output that wait to be read.
const SAID_LINES_MAX: usize = 64;

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    /// Kept open: the demo's producer ends when the demo does.
    _stdin: Option<ChildStdin>,
    said: mpsc::Receiver<String>,
    log: Log,
}

/// The last lines that a process logged; the whole of it is in a file.
#[derive(Clone, Debug)]
pub(super) struct Log {
    name: &'static str,
    last: Arc<Mutex<VecDeque<String>>>,
}

/// Where the logs of all processes go.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    pub(super) folder: PathBuf,
    pub(super) is_shown: bool,
    pub(super) threads: Tasks,
}

impl Process {
    /// Starts `program`. Its log goes to `<name>.log`, after that of an earlier process of the name.
    pub(super) fn start(name: &'static str, command: &mut Command, logs: &Logs) -> anyhow::Result<Process> {
        let program = command.get_program().display().to_string();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let path = logs.folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&path)?;
        let log = Log { name, last: Arc::default() };
        let (say, said) = mpsc::channel(SAID_LINES_MAX);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Process { name, child, _stdin: stdin, said, log: log.clone() };
        let is_shown = logs.is_shown;
        logs.threads.spawn_thread("log of a process", move || {
            let mut file = file;
            each_line(stderr, |line| {
                // A full disk must not stop the process by a full pipe.
                let _ = writeln!(file, "{line}");
                if is_shown {
                    eprintln!("    {name}: {line}");
                }
                log.push(line);
            });
        })?;
        logs.threads.spawn_thread("output of a process", move || {
            // Nobody listens any more: read on, so that the process never waits for us.
            each_line(stdout, |line| drop(say.try_send(line)));
        })?;
        Ok(process)
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its latest log.
    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }

    /// The next line of its standard output.
    pub(super) async fn line(&mut self) -> anyhow::Result<String> {
        self.said.recv().await.with_context(|| format!("the {} ended without a word", self.name))
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// `kill -9`, and the wait for it.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("kill -9 of the {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    /// The end of the log.
    pub(super) fn tell(&self) {
        let last = self.last.lock();
        if last.is_empty() {
            return;
        }
        eprintln!("\nthe last lines of the {}'s log:", self.name);
        for line in last.iter() {
            eprintln!("    {line}");
        }
    }

    fn push(&self, line: String) {
        let mut last = self.last.lock();
        if last.len() == TOLD_LINES_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }
}

fn each_line(from: Option<impl Read>, mut take: impl FnMut(String)) {
    let Some(from) = from else { return };
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else { return };
        take(String::from_utf8_lossy(&line).into_owned());
    }
}

/// The binary `name` beside the running one.
pub(super) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where this program lies")?;
    let own = own.canonicalize().with_context(|| format!("the path {}", own.display()))?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    anyhow::ensure!(path.is_file(), "{} does not exist; `make build` makes it", path.display());
    Ok(path)
}
