//! SQLite: one writer at a time, so one relay does all the work, and others stand by.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Pool, Sqlite};
use tokio::sync::Notify;

use super::{Cell, Dialect, Kind, Spelling, Value, primitives, values};

impl Dialect for Sqlite {
    const SPELLING: Spelling = Spelling {
        parameter: |number| format!("?{number}"),
        now: "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        later: |ms| format!("strftime('%Y-%m-%d %H:%M:%f', 'now', ({ms} / 1000.0) || ' seconds')"),
        age_ms: |column| format!("CAST((julianday('now') - julianday({column})) * 86400000.0 AS INTEGER)"),
        time_text: |column| format!("coalesce({column}, '')"),
        // A part of a union has no ORDER BY of its own.
        part: |select, number| format!("SELECT * FROM ({select}) AS part{number}"),
        unless_there: " ON CONFLICT DO NOTHING",
        if_new: " ON CONFLICT DO NOTHING",
        or_renew: |until| format!(" ON CONFLICT (relay) DO UPDATE SET alive_until = {until}"),
    };

    const TELLS: bool = false;

    const SHARES: bool = false;

    fn outbox_tables(table: &str) -> Vec<String> {
        // An index lives in the schema of its table, and the table is named without it.
        let bare = table.rsplit('.').next().unwrap_or(table);
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slot INTEGER NOT NULL,
    state TEXT NOT NULL,
    tenant TEXT NOT NULL,
    topic TEXT NOT NULL,
    order_key TEXT NOT NULL,
    unique_id TEXT NOT NULL,
    flag INTEGER NOT NULL,
    properties TEXT NOT NULL,
    body BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL
)"
            ),
            format!("CREATE INDEX IF NOT EXISTS {table}_by_slot ON {bare} (state, slot, id)"),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_slots (
    slot INTEGER NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    owned_until TEXT NOT NULL
)"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}_relays (
    relay TEXT NOT NULL PRIMARY KEY,
    alive_until TEXT NOT NULL
)"
            ),
        ]
    }

    fn mark_tables(table: &str) -> Vec<String> {
        let bare = table.rsplit('.').next().unwrap_or(table);
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (
    consumer_group TEXT NOT NULL,
    message_key TEXT NOT NULL,
    done_at TEXT NOT NULL,
    PRIMARY KEY (consumer_group, message_key)
) WITHOUT ROWID"
            ),
            format!("CREATE INDEX IF NOT EXISTS {table}_by_age ON {bare} (consumer_group, done_at)"),
        ]
    }

    const BEGIN: &str = "BEGIN IMMEDIATE";

    async fn prepare(_: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn is_contention(error: &dyn sqlx::error::DatabaseError) -> bool {
        // SQLITE_BUSY and SQLITE_LOCKED; the extended codes keep them in the low byte.
        let code = error.code().and_then(|code| code.parse::<i32>().ok());
        code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
    }

    async fn notify(_: &Pool<Sqlite>, _: &str) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn listen(_: &Pool<Sqlite>, _: &str, _: &Notify) -> Result<(), sqlx::Error> {
        std::future::pending().await
    }

    primitives!(Sqlite);
}

values!(Sqlite);
