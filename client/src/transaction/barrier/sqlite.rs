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

    fn definitions(table: &str) -> Vec<String> {
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (
    id TEXT NOT NULL PRIMARY KEY,
    state INTEGER NOT NULL,
    producer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    broker TEXT NOT NULL,
    queue_id INTEGER NOT NULL,
    half_position INTEGER NOT NULL,
    half_counter INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID"
            ),
            format!(
                "CREATE INDEX IF NOT EXISTS {table}_by_age ON {} (producer_group, state, created_at, id)",
                // The index lives in the table's schema, and the table is named without it.
                table.rsplit('.').next().unwrap_or(table)
            ),
        ]
    }

    fn statements(table: &str, begin: Option<&str>) -> Statements {
        SPELLING.statements(table, begin.unwrap_or("BEGIN IMMEDIATE").to_owned())
    }

    fn own_options(options: ConnectOptions<Sqlite>, lock_wait: Duration) -> ConnectOptions<Sqlite> {
        options.busy_timeout(lock_wait).create_if_missing(false)
    }

    fn is_contention(error: &dyn sqlx::error::DatabaseError) -> bool {
        // SQLITE_BUSY and SQLITE_LOCKED; the extended codes keep them in the low byte.
        let code = error.code().and_then(|code| code.parse::<i32>().ok());
        code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
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
