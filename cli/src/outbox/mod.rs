//! `escrowmq outbox`: messages that wait in a database, and what a person does about those that have failed.
//!
//! Each command speaks to the database alone: brokers may be away. Promises: nothing is discarded without a yes; doing it again is
//! safe; the exit code is 0 only if everything asked for is so.

mod failed;
mod look;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use escrowmq_client::{Outbox, OutboxDatabase, OutboxState};
use sqlx::pool::PoolOptions;

use crate::admin::output::Output;
use crate::admin::txn::age;
use crate::admin::txn::print::emit;
use crate::ending::{block_on, failed};

/// How long the database may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// The end of the error where a server refuses a connection.
const WITHOUT_TLS: &str =
    ". It is spoken to without TLS: if it insists on TLS, run this beside the server, or through a tunnel";

/// Arguments of `escrowmq outbox`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// URL of the database: sqlite, postgres or mysql, spoken to without TLS. Give one with a password by the variable, which others do
    /// not see
    #[arg(long, global = true, env = "ESCROWMQ_DATABASE", hide_env_values = true, default_value = "")]
    database: String,
    /// The outbox's table
    #[arg(long, global = true, default_value = "escrowmq_outbox")]
    table: String,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List rows, oldest first
    List {
        /// Only rows in this state: waiting, held, failed or sent
        #[arg(long, short, value_parser = state)]
        state: Option<OutboxState>,
        /// Only rows after this id
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show all that is known of one row: its times, its last error, its message
    Show {
        /// The row
        id: i64,
    },
    /// Let failed rows be sent again, and those that they hold back
    Requeue(failed::Arguments),
    /// Delete failed rows, whose messages are then never sent, and let those go that they hold back
    Discard(failed::Arguments),
    /// Count the rows of each state again and again, with the age of the oldest that waits, until Ctrl-C
    Watch {
        /// Time between two looks
        #[arg(long, short, value_name = "DURATION", default_value = "2s", value_parser = age::parse_interval)]
        interval: Duration,
    },
}

fn state(word: &str) -> Result<OutboxState, String> {
    OutboxState::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = OutboxState::ALL.into_iter().map(OutboxState::word).collect();
        format!("one of {}", words.join(", "))
    })
}

/// Runs one command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match block_on(perform(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

async fn perform(arguments: &Arguments) -> anyhow::Result<bool> {
    match arguments.database.split(':').next() {
        Some("sqlite") => perform_in::<sqlx::Sqlite>(arguments).await,
        Some("postgres" | "postgresql") => perform_in::<sqlx::Postgres>(arguments).await,
        Some("mysql" | "mariadb") => perform_in::<sqlx::MySql>(arguments).await,
        _ => bail!(
            "name the database by --database or ESCROWMQ_DATABASE: sqlite://file, postgres://user@host/name or \
             mysql://user@host/name; nothing was done"
        ),
    }
}

async fn perform_in<DB: OutboxDatabase>(arguments: &Arguments) -> anyhow::Result<bool> {
    if let Command::Discard(rows) = &arguments.command {
        crate::confirm::refuse_if_nobody_can_be_asked(rows.yes)?;
    }
    let pool = PoolOptions::<DB>::new().max_connections(2).acquire_timeout(CONNECT_TIME);
    let pool = pool.connect(&arguments.database).await.map_err(|error| {
        let hint = if matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Database(_)) { WITHOUT_TLS } else { "" };
        anyhow::Error::new(error).context(format!("the database does not take a connection; nothing was done{hint}"))
    })?;
    let outbox = Outbox::builder(pool).table(&arguments.table).build()?;
    outbox.check_tables().await.context("nothing was done")?;
    match &arguments.command {
        Command::List { state, after, limit } => look::list(&outbox, *state, *after, *limit, arguments.json).await,
        Command::Show { id } => look::show(&outbox, *id, arguments.json).await,
        Command::Requeue(rows) => failed::requeue(&outbox, rows, arguments.json).await,
        Command::Discard(rows) => failed::discard(&outbox, rows, arguments.json).await,
        Command::Watch { interval } => look::watch(&outbox, *interval, arguments.json).await,
    }
}

fn print(output: &Output, json: bool) -> anyhow::Result<()> {
    Ok(emit(&if json { output.json() } else { output.table() })?)
}
