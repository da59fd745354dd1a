//! `escrowmq completions`, and what packages bring along.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use escrowmq_common::manual;

use crate::ending::failed;

/// Arguments of `escrowmq completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash, now:  source <(escrowmq completions bash)\n\
    The Debian package installs completions for bash, zsh and fish.")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Arguments of the hidden `escrowmq generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArguments {
    /// Where to; made if it is missing
    folder: PathBuf,
}

/// Prints completions.
pub(crate) fn run(arguments: &Arguments, command: &mut Command) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, command, "escrowmq", &mut text);
    match io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.into()),
    }
}

/// Writes manual pages and completions.
pub(crate) fn generate(arguments: &GenerateArguments, command: Command) -> ExitCode {
    match manual::write(command, "1", &arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            failed(&anyhow::Error::from(error).context(format!("cannot write to {}", arguments.folder.display())))
        }
    }
}
