//! `escrowmq broker`: one running broker, or nameserver: what it logs.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::logging::Filter;
use escrowmq_common::settings::{self, properties};
use serde_json::json;

use crate::admin::connection::Cluster;
use crate::ending::{block_on, failed};

/// The setting.
const KEY: &str = "logLevel";

/// Arguments of `escrowmq broker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a running broker logs, or change it at once, by module
    LogLevel(LogLevel),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The setting logLevel: kept in the broker's properties file if it has one, else until its next start.\n\
    Anything but `info` alone needs this command on the broker's own machine."
)]
struct LogLevel {
    /// Address of the broker
    #[arg(long, short, value_name = "HOST:PORT", default_value = "127.0.0.1:10911")]
    broker: String,
    /// Address of a nameserver, instead of a broker
    #[arg(long, short, value_name = "HOST:PORT", conflicts_with = "broker")]
    nameserver: Option<String>,
    /// Begin with `info` alone instead of what is in force
    #[arg(long)]
    reset: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// A level for all modules (off, error, warn, info, debug, trace), or one for a module such as `escrowmq_broker::retention=debug`.
    /// Others stay as they are. Without any the present ones are shown
    #[arg(value_name = "LEVEL|MODULE=LEVEL")]
    changes: Vec<Filter>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let Command::LogLevel(arguments) = &arguments.command;
    match block_on(change(arguments)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

async fn change(arguments: &LogLevel) -> anyhow::Result<String> {
    let (address, ask, tell) = match &arguments.nameserver {
        Some(nameserver) => (nameserver, request::GET_NAMESRV_CONFIG, request::UPDATE_NAMESRV_CONFIG),
        None => (&arguments.broker, request::GET_BROKER_CONFIG, request::UPDATE_BROKER_CONFIG),
    };
    let cluster = Cluster::new("");
    let answer = cluster.call(address, Frame::request(ask)).await?;
    let before = settings::changes(&answer.body)?.remove(KEY);
    let before: Filter =
        before.with_context(|| format!("{address} has no setting {KEY}: it is of an older version"))?.parse()?;
    let begin = if arguments.reset { Filter::default() } else { before.clone() };
    let after = arguments.changes.iter().fold(begin, |filter, change| filter.with(change));
    if after != before {
        let body = properties::write([(KEY, after.to_string().as_str())]);
        cluster.call(address, Frame::request(tell).with_body(body)).await?;
    }
    let (before, after) = (before.to_string(), after.to_string());
    if arguments.json {
        return Ok(json!({ "address": address, "before": before, "logLevel": after }).to_string());
    }
    let was = if before == after { String::new() } else { format!(" (before: {before})") };
    Ok(format!("{address} logs {after}{was}"))
}
