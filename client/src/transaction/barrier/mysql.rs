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

    fn definitions(table: &str) -> Vec<String> {
        vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (
    id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    state BIGINT NOT NULL,
    producer_group VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    topic VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    broker VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    queue_id BIGINT NOT NULL,
    half_position BIGINT NOT NULL,
    half_counter BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    KEY by_age (producer_group, state, created_at, id)
) ENGINE = InnoDB"
        )]
    }

    fn statements(table: &str, begin: Option<&str>) -> Statements {
        SPELLING.statements(table, begin.unwrap_or("START TRANSACTION").to_owned())
    }

    fn own_options(options: ConnectOptions<MySql>, _: Duration) -> ConnectOptions<MySql> {
        options
    }

    fn is_contention(error: &dyn sqlx::error::DatabaseError) -> bool {
        // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK.
        error
            .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
            .is_some_and(|error| matches!(error.number(), 1205 | 1213))
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
