//! `escrowmq admin`: what an operator asks of a cluster.
//!
//! Each command asks a nameserver who is there, asks all the brokers that it concerns, and prints one table, or with
//! `--json` one JSON value. An answer that is no success ends the command with the broker's own words and exit code 1.

mod cluster;
pub(crate) mod connection;
mod group;
mod log;
mod message;
mod offset;
mod operator;
pub(crate) mod output;
mod time;
mod topic;
pub(crate) mod txn;

use std::process::ExitCode;

use clap::Subcommand;

use crate::ending::{block_on, failed};
use connection::Cluster;
use output::Output;

/// Which cluster is asked, and who reads the answer.
#[derive(Debug, clap::Args)]
struct Target {
    /// Nameservers, host:port with ';' between them
    #[arg(long, short, global = true, default_value = "127.0.0.1:9876", env = "NAMESRV_ADDR")]
    namesrv: String,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
}

/// Arguments of `escrowmq admin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Topics: create, list, delete, status
    #[command(subcommand)]
    Topic(topic::Command),
    /// Consumer groups: create, list
    #[command(subcommand)]
    Group(group::Command),
    /// Brokers and what they do
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Messages: view by id, find by key
    #[command(subcommand)]
    Message(message::Command),
    /// Consumer offsets: show, reset
    #[command(subcommand)]
    Offset(offset::Command),
    /// The log of the broker on this machine: give up what cannot be read
    #[command(subcommand)]
    Log(log::Command),
}

/// Runs one command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match block_on(perform(arguments)) {
        Ok(output) => {
            print!("{}", if arguments.target.json { output.json() } else { output.table() });
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

async fn perform(arguments: &Arguments) -> anyhow::Result<Output> {
    let cluster = Cluster::new(&arguments.target.namesrv);
    match &arguments.subject {
        Subject::Topic(command) => topic::run(&cluster, command).await,
        Subject::Group(command) => group::run(&cluster, command).await,
        Subject::Cluster(command) => cluster::run(&cluster, command).await,
        Subject::Message(command) => message::run(&cluster, command).await,
        Subject::Offset(command) => offset::run(&cluster, command).await,
        Subject::Log(command) => log::run(&cluster, command).await,
    }
}
