//! `escrowmq demo`: the life of transactional messages, told by real processes.
//!
//! ```text
//!  demo ---starts---> nameserver, broker, a second producer        (binaries beside the running one)
//!   |  producer of the group: sends halves, answers checks from a ledger file
//!   |  observer: pulls every queue, to see what is visible at any moment
//!   `  consumer of its own group: tells what arrives
//! ```
//!
//! With `--namesrv` it is told at services that run already, where a topic and two groups of its own stay.
//!
//! Promises: each claim on the screen was checked a moment before; a claim that fails ends the demo with the reason, the
//! end of the processes' logs and exit code 1; no process and no folder is left behind, however it ends (short of a
//! `kill -9` of the demo itself). Nothing is timed: each step waits for a condition, up to a deadline.
//!
//! Left to others: what any of it means for other clients; this is a story, the proofs are in the tests.

mod cluster;
mod ledger;
mod observer;
mod orders;
mod producer;
mod stage;
mod story;
mod timeline;

use std::process::ExitCode;

use anyhow::Context as _;

pub(crate) use producer::{Arguments as ProducerArguments, run as run_producer};

use cluster::Cluster;
use timeline::Timeline;

use crate::processes::interrupted;

/// Arguments of `escrowmq demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep the folder with data, settings and logs
    #[arg(long)]
    keep: bool,
    /// Nameservers of services that run already, host:port with ';' between them: the story is told there, with a topic of its own and
    /// without the broker's death
    #[arg(long, short, value_name = "ADDR")]
    namesrv: Option<String>,
    /// Show the logs of the processes
    #[arg(long, short)]
    verbose: bool,
}

/// Runs the demo: success if everything went as it was told.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let timeline = Timeline::start();
    match perform(arguments, timeline) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            timeline.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &Arguments, timeline: Timeline) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("escrowmq-demo-").tempdir().context("a temporary folder")?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime")?;
    // Outlives the story, so that its processes end and its logs can be told however the story ends.
    let mut cluster = Cluster::new(folder.path(), arguments.verbose)?;
    let told = runtime.block_on(async {
        tokio::select! {
            ended = story::tell(&mut cluster, timeline, arguments.namesrv.as_deref()) => Ok(ended),
            name = interrupted() => Err(name),
        }
    });
    // Tasks that still run in here would talk to processes that are about to go.
    runtime.shutdown_background();
    let ended = match told {
        Ok(ended) => ended.inspect_err(|_| cluster.tell_logs()),
        Err(name) => Err(anyhow::anyhow!("interrupted by {}", name?)),
    };
    drop(cluster);
    if arguments.keep {
        timeline.note(&format!("data, settings and logs stay in {}", folder.keep().display()));
    } else {
        folder.close().context("removing the temporary folder")?;
    }
    ended
}
