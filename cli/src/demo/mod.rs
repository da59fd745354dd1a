//! `escrowmq demo`: the life of transactional messages, told by real processes.

use std::process::ExitCode;

/// Arguments of `escrowmq demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep the folder with data, settings and logs
    #[arg(long)]
    pub(crate) keep: bool,
    /// Show the logs of the processes
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Arguments of the hidden `escrowmq demo-producer`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProducerArguments {
    /// Nameserver
    #[arg(long)]
    pub(crate) namesrv: String,
}

/// Runs the demo.
pub(crate) fn run(_: &Arguments) -> ExitCode {
    ExitCode::FAILURE
}

/// Runs the producer that the demo kills.
pub(crate) fn run_producer(_: &ProducerArguments) -> ExitCode {
    ExitCode::FAILURE
}
