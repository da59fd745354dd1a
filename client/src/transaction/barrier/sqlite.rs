//! SQLite: one writer at a time, so planting waits for whatever writes.
//!
//! Local transactions begin with `BEGIN IMMEDIATE`: they take the write lock at once, within the pool's busy timeout, instead of
//! failing half way when the lock cannot be had. A check reads first, which waits for nobody in WAL mode.

use std::time::Duration;

use sqlx::Sqlite;
use sqlx::sqlite::SqliteConnection;

use super::database::{ConnectOptions, Dialect, Page, Row, Spelling, State, Statements, queries};

const SPELLING: Spelling = Spelling {
    parameter: |number| format!("?{number}"),
    now_ms: "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)",
    unless_there: " ON CONFLICT DO NOTHING",
};

impl Dialect for Sqlite {
    const OWN_CONNECTIONS_MAX: u32 = 1;

    fn statements(table: &str, begin: Option<&str>) -> Statements {
        SPELLING.statements(table, begin.unwrap_or("BEGIN IMMEDIATE").to_owned())
    }

    fn own_options(options: ConnectOptions<Sqlite>, lock_wait: Duration) -> ConnectOptions<Sqlite> {
        options.busy_timeout(lock_wait).create_if_missing(false)
    }

    async fn plant(
        connection: &mut SqliteConnection,
        statements: &Statements,
        row: &Row,
        _: Duration,
    ) -> Result<bool, sqlx::Error> {
        // A transaction of its own; the wait is the connection's busy timeout.
        Ok(written(&statements.plant, row).execute(connection).await?.rows_affected() == 1)
    }

    queries!(Sqlite);
}

super::database::rows!(Sqlite, sqlx::sqlite::SqliteRow);
