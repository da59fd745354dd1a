//! A tracer that lets calls of a running process fail. Needs privileges, and strace.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::wait::until;

/// It ends when this is dropped, and the calls work again.
#[derive(Debug)]
pub struct Tracer(Child);

impl Tracer {
    /// Lets calls of a process fail from now on, as `strace -e inject=` takes it (`fdatasync:error=EIO`). What it traces goes to
    /// `output`. `None` where there is no tracer, or none that may follow the process.
    pub async fn failing(pid: u32, inject: &str, output: &Path) -> Option<Tracer> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &pid.to_string(), "-e", &format!("inject={inject}"), "-o"]).arg(output);
        let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut tracer = Tracer(child);
        until("the tracer", async || tracer.is_attached(pid)).await.then_some(tracer)
    }

    /// Whether it follows the process; `None` as long as nobody knows.
    fn is_attached(&mut self, pid: u32) -> Option<bool> {
        if self.0.try_wait().expect("a child can be waited for").is_some() {
            return Some(false);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).map(str::trim);
        tracer.is_some_and(|tracer| tracer != "0").then_some(true)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both fail only for one that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
