//! PostgreSQL: an insert waits for the open transaction that holds its key, and `lock_timeout` ends the wait.
//!
//! Planting runs at READ COMMITTED, whatever the default is: at the higher levels an insert that meets a row newer than its
//! snapshot would be a serialization failure instead of "it is there". Both sides insist on a commit that survives a crash of
//! the server, also where `synchronous_commit` is off: a broker that was told of a commit must not remember more than the
//! database does.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Postgres};

use super::database::{ConnectOptions, Dialect, Page, Row, Spelling, State, Statements, queries};

const SPELLING: Spelling = Spelling {
    parameter: |number| format!("${number}"),
    now_ms: "(extract(epoch FROM statement_timestamp()) * 1000)::bigint",
    unless_there: " ON CONFLICT DO NOTHING",
};

/// Goes with the statement that begins a transaction, in the same round trip. Levels above `on` stay.
const DURABLE: &str =
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

impl Dialect for Postgres {
    const OWN_CONNECTIONS_MAX: u32 = 4;

    fn statements(table: &str, begin: Option<&str>) -> Statements {
        SPELLING.statements(table, format!("{}; {DURABLE}", begin.unwrap_or("BEGIN")))
    }

    fn own_options(options: ConnectOptions<Postgres>, _: Duration) -> ConnectOptions<Postgres> {
        options
    }

    async fn plant(
        connection: &mut PgConnection,
        statements: &Statements,
        row: &Row,
        lock_wait: Duration,
    ) -> Result<bool, sqlx::Error> {
        // For this transaction alone, so that it works behind a pooler that mixes sessions, too.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {}; {DURABLE}",
            lock_wait.as_millis().max(1)
        );
        let mut planting = connection.begin_with(begin).await?;
        let planted = written(&statements.plant, row).execute(&mut *planting).await?.rows_affected() == 1;
        planting.commit().await?;
        Ok(planted)
    }

    queries!(Postgres);
}

super::database::rows!(Postgres, sqlx::postgres::PgRow);
