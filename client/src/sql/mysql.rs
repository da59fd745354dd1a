//! MySQL and MariaDB (InnoDB): relays share the work at READ COMMITTED, where deleting rows locks nothing beside them.

use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, Pool};
use tokio::sync::Notify;

use super::{Cell, Dialect, Kind, Spelling, Value, primitives, values};

impl Dialect for MySql {
    const SPELLING: Spelling = Spelling {
        parameter: |_| "?".to_owned(),
        now: "UTC_TIMESTAMP(3)",
        later: |ms| format!("UTC_TIMESTAMP(3) + INTERVAL ({ms} * 1000) MICROSECOND"),
        age_ms: |column| format!("(TIMESTAMPDIFF(MICROSECOND, {column}, UTC_TIMESTAMP(3)) DIV 1000)"),
        time_text: |column| format!("coalesce(DATE_FORMAT({column}, '%Y-%m-%d %H:%i:%s.%f'), '')"),
        part: |select, _| format!("({select})"),
        // `INSERT IGNORE` would ignore more than that.
        unless_there: " ON DUPLICATE KEY UPDATE slot = slot",
        if_new: "",
        or_renew: |until| format!(" ON DUPLICATE KEY UPDATE alive_until = {until}"),
    };

    const TELLS: bool = false;

    const SHARES: bool = true;

    fn outbox_tables(table: &str) -> Vec<String> {
        let name = text(255);
        let (long, key) = (text(4096), text(512));
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    slot BIGINT NOT NULL,
    state VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    tenant {name},
    topic {name},
    order_key {long},
    unique_id {key},
    flag BIGINT NOT NULL,
    properties MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    body LONGBLOB NOT NULL,
    bytes BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    last_error VARCHAR(2048) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    created_at DATETIME(3) NOT NULL,
    changed_at DATETIME(3) NOT NULL,
    KEY by_slot (state, slot, id)
) ENGINE = InnoDB"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_slots (
    slot BIGINT NOT NULL PRIMARY KEY,
    owner {name},
    owned_until DATETIME(3) NOT NULL
) ENGINE = InnoDB"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_relays (
    relay {name} PRIMARY KEY,
    alive_until DATETIME(3) NOT NULL
) ENGINE = InnoDB"
            ),
        ]
    }

    fn mark_tables(table: &str) -> Vec<String> {
        let (name, key) = (text(255), text(512));
        vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (
    consumer_group {name},
    message_key {key},
    done_at DATETIME(3) NOT NULL,
    PRIMARY KEY (consumer_group, message_key),
    KEY by_age (consumer_group, done_at)
) ENGINE = InnoDB"
        )]
    }

    const BEGIN: &str = "START TRANSACTION";

    async fn prepare(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        Self::execute(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", &[]).await.map(drop)
    }

    fn is_contention(error: &dyn sqlx::error::DatabaseError) -> bool {
        // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK.
        error
            .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
            .is_some_and(|error| matches!(error.number(), 1205 | 1213))
    }

    async fn notify(_: &Pool<MySql>, _: &str) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn listen(_: &Pool<MySql>, _: &str, _: &Notify) -> Result<(), sqlx::Error> {
        std::future::pending().await
    }

    primitives!(MySql);
}

/// A text that is compared byte by byte.
fn text(characters: u32) -> String {
    format!("VARCHAR({characters}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL")
}

values!(MySql);
