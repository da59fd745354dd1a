//! `escrowmq txn`: transactions that nobody has decided yet, and what an operator does about them.
//!
//! Each command asks all brokers that take writes, or the one that a handle names. A handle is `broker:half id`: every
//! command prints and takes them. A broker that does not answer is named on stderr, what the others said is printed all
//! the same, and the exit code is 1, because the answer is not whole.
//!
//! Promises: nothing is decided without a reason, nor without a yes; deciding again is safe, because the first decision
//! stands; the exit code is 0 only if everything asked for is so.

pub(crate) mod age;
mod brokers;
mod count;
mod decide;
mod handle;
mod list;
mod merge;
pub(crate) mod print;
mod show;
mod view;
mod watch;

use std::io;
use std::process::ExitCode;

use clap::Subcommand;
use escrowmq_client::TransactionAction;

use super::Target;
use crate::ending::{block_on, failed};
use brokers::Brokers;

/// Arguments of `escrowmq txn`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List open and parked transactions, oldest first
    List(list::Arguments),
    /// Show all that is known of one transaction: times, checks and who was asked, operators' acts, decision, properties
    Show(show::Arguments),
    /// Make the messages of transactions visible to consumers
    Commit(decide::Arguments),
    /// Hide the messages of transactions for ever
    Rollback(decide::Arguments),
    /// Put parked transactions back into the checks, with their count at 0
    Resume(decide::Arguments),
    /// Take open transactions out of the checks; they stay stored, and can be decided or resumed
    Park(decide::Arguments),
    /// Count open and parked transactions of each producer group, with the age of the oldest
    Count(count::Arguments),
    /// Count again and again, and show what changes, until Ctrl-C
    Watch(watch::Arguments),
}

/// Whether everything that was asked for is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Yes,
    /// Something is missing, and the user was told.
    No,
}

impl Whole {
    fn if_none(failures: &[String]) -> Self {
        if failures.is_empty() { Self::Yes } else { Self::No }
    }
}

/// Runs one command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match block_on(perform(arguments)) {
        Ok(Whole::Yes) => ExitCode::SUCCESS,
        Ok(Whole::No) => ExitCode::FAILURE,
        // The reader of the output has enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn perform(arguments: &Arguments) -> anyhow::Result<Whole> {
    if let Some((_, decide)) = decision(&arguments.command) {
        decide.refuse_if_nobody_can_be_asked()?;
    }
    let brokers = Brokers::find(&arguments.target.namesrv).await?;
    let json = arguments.target.json;
    let done = match &arguments.command {
        Command::List(arguments) => list::run(&brokers, arguments, json).await,
        Command::Show(arguments) => show::run(&brokers, arguments, json).await,
        Command::Count(arguments) => count::run(&brokers, arguments, json).await,
        Command::Watch(arguments) => watch::run(&brokers, arguments, json).await,
        command @ (Command::Commit(_) | Command::Rollback(_) | Command::Resume(_) | Command::Park(_)) => {
            let (action, arguments) = decision(command).expect("these decide");
            decide::run(&brokers, action, arguments, json).await
        }
    };
    brokers.close().await;
    done
}

fn decision(command: &Command) -> Option<(TransactionAction, &decide::Arguments)> {
    match command {
        Command::Commit(arguments) => Some((TransactionAction::Commit, arguments)),
        Command::Rollback(arguments) => Some((TransactionAction::Rollback, arguments)),
        Command::Resume(arguments) => Some((TransactionAction::Resume, arguments)),
        Command::Park(arguments) => Some((TransactionAction::Park, arguments)),
        Command::List(_) | Command::Show(_) | Command::Count(_) | Command::Watch(_) => None,
    }
}
