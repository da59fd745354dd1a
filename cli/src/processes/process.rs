//! One process: started, read from, killed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use escrowmq_common::task::Tasks;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

/// Lines of a log that are told when the command fails.
const TOLD_LINES_MAX: usize = 15;

/// Lines of standard output that wait to be read.
const SAID_LINES_MAX: usize = 64;

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Kept open: a process that reads it ends with this one.
    _stdin: Option<ChildStdin>,
    said: mpsc::Receiver<String>,
    log: Log,
}

/// The last lines that a process logged; the whole of it is in a file.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    name: String,
    last: Arc<Mutex<VecDeque<String>>>,
}

/// Where the logs of all processes go.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    pub(crate) folder: PathBuf,
    pub(crate) is_shown: bool,
    pub(crate) threads: Tasks,
}

impl Process {
    /// Starts `program`. Its log goes to `<name>.log`, after that of an earlier process of the name.
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Logs) -> anyhow::Result<Process> {
        let program = command.get_program().display().to_string();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let path = logs.folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&path)?;
        let log = Log { name: name.to_owned(), last: Arc::default() };
        let (say, said) = mpsc::channel(SAID_LINES_MAX);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Process { name: name.to_owned(), child, _stdin: stdin, said, log: log.clone() };
        let (name, is_shown) = (name.to_owned(), logs.is_shown);
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
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its latest log.
    pub(crate) fn log(&self) -> Log {
        self.log.clone()
    }

    /// The next line of its standard output.
    pub(crate) async fn line(&mut self) -> anyhow::Result<String> {
        self.said.recv().await.with_context(|| format!("the {} ended without a word", self.name))
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends SIGSTOP: it does nothing any more, and its connections stay.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = Pid::from_raw(self.child.id().cast_signed()).context("a child has a process id")?;
        Ok(kill_process(id, signal)?)
    }

    /// `kill -9`, and the wait for it.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
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
    pub(crate) fn tell(&self) {
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
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where this program lies")?;
    let own = own.canonicalize().with_context(|| format!("the path {}", own.display()))?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    anyhow::ensure!(path.is_file(), "{} does not exist; `make build` makes it", path.display());
    Ok(path)
}
