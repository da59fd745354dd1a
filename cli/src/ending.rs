//! How a command runs, and how it ends where it fails.

use std::process::ExitCode;

use crate::words::told;

/// Runs a command on this thread.
pub(crate) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Tells the user why a command failed, and returns its exit code.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("escrowmq: {}", told(error));
    ExitCode::FAILURE
}
