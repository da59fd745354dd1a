//! MySQL (InnoDB): an insert waits for the open transaction that holds its key, and `innodb_lock_wait_timeout` ends the wait.
//!
//! The primary key alone is locked by an insert: no gaps, and so no waiting for transactions of other ids. Statements that
//! plant are transactions of their own, so the look at the row that is there sees what has committed at any isolation level.

use std::time::Duration;

use sqlx::MySql;
use sqlx::mysql::MySqlConnection;

use super::database::{ConnectOptions, Dialect, Page, Row, Spelling, State, Statements, queries};

const SPELLING: Spelling = Spelling {
    parameter: |_| "?".to_owned(),
    now_ms: "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(3)) DIV 1000)",
    // `INSERT IGNORE` would ignore more than that.
    unless_there: "",
};

impl Dialect for MySql {
    const OWN_CONNECTIONS_MAX: u32 = 4;

    fn statements(table: &str, begin: Option<&str>) -> Statements {
        SPELLING.statements(table, begin.unwrap_or("START TRANSACTION").to_owned())
    }

    fn own_options(options: ConnectOptions<MySql>, _: Duration) -> ConnectOptions<MySql> {
        options
    }

    async fn plant(
        connection: &mut MySqlConnection,
        statements: &Statements,
        row: &Row,
        lock_wait: Duration,
    ) -> Result<bool, sqlx::Error> {
        // Whole seconds, from one on.
        let seconds = lock_wait.as_millis().div_ceil(1000).max(1);
        Self::run(connection, &format!("SET autocommit = 1, innodb_lock_wait_timeout = {seconds}")).await?;
        match written(&statements.plant, row).execute(connection).await {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }

    queries!(MySql);
}

super::database::rows!(MySql, sqlx::mysql::MySqlRow);
