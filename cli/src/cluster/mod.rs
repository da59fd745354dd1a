//! `escrowmq cluster`: a whole cluster of processes on this machine, for a look at what groups do when members die.
//!
//! ```text
//!  cluster --starts--> nameservers ns0, ns1; groups a and b of three brokers each: a0 a1 a2, b0 b1 b2      [members]
//!    |  asks each member for its page of metrics: role, term, entries, messages                            [watch]
//!    |  sends messages to a topic on both groups all the time, and notes how they end                      [load]
//!    |  reads commands, a line each: kill a1, start a1                                                     [commands]
//!    `  shows a table, at one place of a terminal, or one after the other                                  [table, screen]
//! ```
//!
//! Promises: every process ends with this one, and the folder goes, however it ends (short of a `kill -9` of this one).
//! Leaves to others: what any of it means (docs/replication.md), and proofs.

mod commands;
mod load;
mod members;
mod screen;
mod table;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, interval, sleep_until};

use crate::ending::failed;
use crate::processes::interrupted;

use commands::Command;
use load::Load;
use members::Cluster;
use screen::Screen;
use watch::Watch;

/// Arguments of `escrowmq cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// End after so many seconds [default: with `quit`, or Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
    /// Messages that are sent in a second, to both groups together
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Keep the folder with data, settings and logs
    #[arg(long)]
    keep: bool,
}

/// Between two looks at the members.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs the cluster to its end.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match perform(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn perform(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("escrowmq-cluster-").tempdir().context("a temporary folder")?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime")?;
    // Outlives the runtime, so that its processes end and its logs can be told however the command ends.
    let mut cluster = Cluster::new(folder.path())?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = conduct(&mut cluster, arguments) => ended,
            name = interrupted() => name.map(drop),
        }
    });
    runtime.shutdown_background();
    if ended.is_err() {
        cluster.tell_logs();
    }
    drop(cluster);
    if arguments.keep {
        println!("data, settings and logs stay in {}", folder.keep().display());
    } else {
        folder.close().context("removing the temporary folder")?;
    }
    ended
}

async fn conduct(cluster: &mut Cluster, arguments: &Arguments) -> anyhow::Result<()> {
    println!("starting 2 nameservers and 2 groups of 3 brokers in {}", cluster.folder().display());
    cluster.start_all()?;
    let mut watch = Watch::default();
    watch.until_leaders(cluster).await?;
    let load = Load::start(cluster, arguments.rate).await?;
    let mut commands = commands::read()?;
    let mut screen = Screen::open();
    let mut looks = interval(LOOK_EVERY);
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let over = async || match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    };
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let view = watch.look(cluster).await;
                screen.show(&table::draw(cluster, &view, &load.look(), screen.last_words()));
            }
            Some(line) = commands.recv() => match Command::read(&line) {
                Ok(Command::Quit) => return Ok(()),
                Ok(Command::Do(deed, name)) => {
                    let told = match watch.name_of(&name) {
                        Some(member) => cluster.act(deed, &member),
                        None => Err(anyhow::anyhow!("group {name} has no leader now")),
                    };
                    screen.say(told.unwrap_or_else(|error| crate::words::told(&error)));
                }
                Err(help) => screen.say(help),
            },
            () = over() => return Ok(()),
        }
    }
}
