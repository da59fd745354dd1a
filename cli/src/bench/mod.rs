//! `escrowmq bench`: loads a broker and measures it, this one or any other that speaks the RocketMQ remoting protocol.
//!
//! Promises: a throughput counts what the broker acknowledged (or made visible, or delivered) within the window and
//! nothing else; a latency under a rate counts from the time at which the message was to be sent, so that a stall counts
//! for every message it delays; what was acknowledged is compared with what the broker says it stored; when this process
//! itself was the limit, the result says so. Nothing is asked of a broker that Apache RocketMQ does not answer.
//!
//! A run has one thread per `--threads` ([`engine`]), each driving its share of the connections without blocking. The
//! main thread ([`conduct`]) looks at the broker's processes at both edges of the window. Requests are encoded once and
//! patched ([`template`]); of answers no more is read than is needed ([`answer`]).
//!
//! Left to others: comparing two brokers (`tests/bench/compare`).

mod answer;
mod backlog;
mod checks;
mod conduct;
mod connections;
mod consume;
mod e2e;
mod engine;
mod histogram;
mod link;
mod names;
mod options;
mod pace;
mod process;
mod puller;
mod report;
mod send;
mod sender;
mod session;
mod tally;
mod target;
mod template;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use serde_json::Value;

use crate::ending::{block_on, failed};
use options::Common;
use report::Object;

/// Arguments of `escrowmq bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// Send messages: as fast as they are answered, or at a rate
    Send(send::SendArguments),
    /// Send half messages and commit them, counted when consumers could see them
    Txn(send::TxnArguments),
    /// Read a topic to its end
    Consume(consume::Arguments),
    /// Send at a rate and wait for the messages: latency from the intended send to the receipt
    E2e(e2e::Arguments),
    /// Leave half messages undecided, or messages unread, and compare rates before and after
    Backlog(backlog::Arguments),
    /// Leave half messages undecided, then register and answer the broker's checks about them
    Checks(checks::Arguments),
    /// Open idle connections, and compare rates before and after
    Connections(connections::Arguments),
}

impl Workload {
    fn common(&self) -> &Common {
        match self {
            Workload::Send(arguments) => &arguments.common,
            Workload::Txn(arguments) => &arguments.common,
            Workload::Consume(arguments) => &arguments.common,
            Workload::E2e(arguments) => &arguments.common,
            Workload::Backlog(arguments) => &arguments.common,
            Workload::Checks(arguments) => &arguments.common,
            Workload::Connections(arguments) => &arguments.common,
        }
    }

    async fn run(&self) -> anyhow::Result<Object> {
        match self {
            Workload::Send(arguments) => send::send(arguments).await,
            Workload::Txn(arguments) => send::transact(arguments).await,
            Workload::Consume(arguments) => consume::run(arguments).await,
            Workload::E2e(arguments) => e2e::run(arguments).await,
            Workload::Backlog(arguments) => backlog::run(arguments).await,
            Workload::Checks(arguments) => checks::run(arguments).await,
            Workload::Connections(arguments) => connections::run(arguments).await,
        }
    }
}

/// Runs one workload and prints what was measured.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match block_on(arguments.workload.run()) {
        Ok(object) => {
            let is_interrupted = object.get("interrupted") == Some(&Value::Bool(true));
            if arguments.workload.common().json {
                println!("{}", Value::Object(object));
            } else {
                print!("{}", report::text(&object));
            }
            if is_interrupted { ExitCode::from(130) } else { ExitCode::SUCCESS }
        }
        Err(error) => failed(&error),
    }
}
