//! `bench send` and `bench txn`.

use super::options::{Common, Load};
use super::report::Object;
use super::sender::Work;
use super::session::Session;

/// Arguments of `bench send`.
#[derive(Debug, clap::Args)]
pub(super) struct SendArguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    load: Load,
}

/// Arguments of `bench txn`.
#[derive(Debug, clap::Args)]
pub(super) struct TxnArguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    load: Load,
    /// Wait for the answer to each commit, instead of sending it one-way as Java does; latency then is that of both
    #[arg(long = "await")]
    is_awaited: bool,
    /// Leave the half messages undecided instead of committing them
    #[arg(long, conflicts_with = "is_awaited")]
    half: bool,
}

pub(super) async fn send(arguments: &SendArguments) -> anyhow::Result<Object> {
    run("send", &arguments.common, &arguments.load, Work::Send).await
}

pub(super) async fn transact(arguments: &TxnArguments) -> anyhow::Result<Object> {
    let is_awaited = arguments.is_awaited;
    let work = if arguments.half { Work::Half } else { Work::Transaction { is_awaited } };
    let mut object = run("txn", &arguments.common, &arguments.load, work).await?;
    object.insert("awaited".to_owned(), arguments.is_awaited.into());
    Ok(object)
}

async fn run(command: &'static str, common: &Common, load: &Load, work: Work) -> anyhow::Result<Object> {
    load.check()?;
    let mut session = Session::open(common).await?;
    let topic = session.target.topic(common, command).await?;
    let result = session.sends(&topic, work, load, command).await;
    session.finish(command, &topic, Some(load), result).await
}
