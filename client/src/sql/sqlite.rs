//! SQLite: one writer at a time, so one relay does all the work, and others stand by.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Pool, Sqlite};
use tokio::sync::Notify;

use super::tables::{Column, Indexes};
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
        column: |column| {
            let column = match column {
                Column::Id => "INTEGER PRIMARY KEY AUTOINCREMENT",
                Column::Int => "INTEGER NOT NULL",
                Column::Count => "INTEGER NOT NULL DEFAULT 0",
                Column::Ascii(_) | Column::Text(_) | Column::LongText | Column::Time => "TEXT NOT NULL",
                Column::Note(_) => "TEXT",
                Column::Bytes => "BLOB NOT NULL",
            };
            column.to_owned()
        },
        indexes: Indexes::AfterTableByName,
        table_end: "",
        keyed_table_end: " WITHOUT ROWID",
    };

    const TELLS: bool = false;

    const SHARES: bool = false;

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
