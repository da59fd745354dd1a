//! MySQL and MariaDB (InnoDB): relays share the work at READ COMMITTED, where deleting rows locks nothing beside them.

use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, Pool};
use tokio::sync::Notify;

use super::tables::{Column, Indexes};
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
        column: |column| {
            let utf8 = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
            match column {
                Column::Id => "BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY".to_owned(),
                Column::Int => "BIGINT NOT NULL".to_owned(),
                Column::Count => "BIGINT NOT NULL DEFAULT 0".to_owned(),
                Column::Ascii(max) => format!("VARCHAR({max}) CHARACTER SET ascii COLLATE ascii_bin NOT NULL"),
                Column::Text(max) => format!("VARCHAR({max}) {utf8} NOT NULL"),
                Column::LongText => format!("MEDIUMTEXT {utf8} NOT NULL"),
                Column::Note(max) => format!("VARCHAR({max}) {utf8}"),
                Column::Bytes => "LONGBLOB NOT NULL".to_owned(),
                Column::Time => "DATETIME(3) NOT NULL".to_owned(),
            }
        },
        indexes: Indexes::InTable,
        table_end: " ENGINE = InnoDB",
        keyed_table_end: " ENGINE = InnoDB",
    };

    const TELLS: bool = false;

    const SHARES: bool = true;

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

values!(MySql);
