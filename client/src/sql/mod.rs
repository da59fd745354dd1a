//! What outbox and idempotence need of a database, and where databases differ: two primitives, and the spelling of columns and
//! times.
//!
//! Everything else is written once, in SQL that all of them read. Times are columns that a person can read, and only the clock of
//! the database decides about them.

mod begin;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
pub(crate) mod tables;

use std::future::Future;

use sqlx::Pool;
use tokio::sync::Notify;

/// What is bound to a parameter.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// How a column is read.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Int,
    /// A text; NULL is read as an empty one.
    Text,
    /// Bytes, or NULL.
    Bytes,
}

/// A column that was read.
#[derive(Clone, Debug)]
pub enum Cell {
    /// See [`Kind::Int`].
    Int(i64),
    /// See [`Kind::Text`].
    Text(String),
    /// See [`Kind::Bytes`].
    Bytes(Option<Vec<u8>>),
}

impl Cell {
    pub(crate) fn int(&self) -> i64 {
        if let Cell::Int(number) = self { *number } else { unreachable!("the column is read as a number") }
    }

    pub(crate) fn text(&mut self) -> String {
        if let Cell::Text(text) = self { std::mem::take(text) } else { unreachable!("the column is read as a text") }
    }

    pub(crate) fn bytes(&mut self) -> Option<Vec<u8>> {
        if let Cell::Bytes(bytes) = self { bytes.take() } else { unreachable!("the column is read as bytes") }
    }
}

/// How a database spells what is not the same everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// The n-th parameter, from 1.
    pub(crate) parameter: fn(usize) -> String,
    /// Now, in the type of the columns of times.
    pub(crate) now: &'static str,
    /// Now and so many milliseconds; the argument is a parameter.
    pub(crate) later: fn(&str) -> String,
    /// Milliseconds since the time in a column.
    pub(crate) age_ms: fn(&str) -> String,
    /// The time in a column as a text, in UTC.
    pub(crate) time_text: fn(&str) -> String,
    /// A column of a derived table, as a part of a union.
    pub(crate) part: fn(&str, usize) -> String,
    /// What makes an insert do nothing if the row is there.
    pub(crate) unless_there: &'static str,
    /// What makes an insert say that the row is there by changing none; otherwise it says so by an error.
    pub(crate) if_new: &'static str,
    /// What makes an insert of a relay renew `alive_until` instead; the argument is the new value.
    pub(crate) or_renew: fn(&str) -> String,
    /// The type of a column.
    pub(crate) column: fn(tables::Column) -> String,
    /// Where indexes are defined.
    pub(crate) indexes: tables::Indexes,
    /// What follows the definition of a table whose key is a number that the database gives.
    pub(crate) table_end: &'static str,
    /// The same for other keys.
    pub(crate) keyed_table_end: &'static str,
}

/// The part of [`OutboxDatabase`](crate::OutboxDatabase) that is not for others.
pub trait Dialect: sqlx::Database {
    /// How it spells.
    const SPELLING: Spelling;

    /// Whether several relays share the work. Otherwise one has all of it, and the others take over when it is gone.
    const SHARES: bool;

    /// The statement by which a transaction begins that will write.
    const BEGIN: &str;

    /// Makes a connection of the relay's own fit for it.
    fn prepare(connection: &mut Self::Connection) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Whether another try of the whole transaction may succeed: a lock, a deadlock, a serialization failure.
    fn is_contention(error: &dyn sqlx::error::DatabaseError) -> bool;

    /// Runs a statement. Says how many rows it changed.
    fn execute(
        connection: &mut Self::Connection,
        statement: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs a query whose columns are read as `kinds` says.
    fn select(
        connection: &mut Self::Connection,
        statement: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> impl Future<Output = Result<Vec<Vec<Cell>>, sqlx::Error>> + Send;

    /// Whether relays in other processes can be told of work.
    const TELLS: bool;

    /// Tells them, if the database can.
    fn notify(pool: &Pool<Self>, channel: &str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Hands on what [`notify`](Self::notify) tells, until the connection fails. Never ends where the database cannot.
    fn listen(pool: &Pool<Self>, channel: &str, heard: &Notify)
    -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// The two primitives, which read the same for all databases, and which sqlx's types cannot say once.
macro_rules! primitives {
    ($database:ty) => {
        async fn execute(
            connection: &mut Self::Connection,
            statement: &str,
            values: &[Value<'_>],
        ) -> Result<u64, sqlx::Error> {
            bound(statement, values).execute(connection).await.map(|done| done.rows_affected())
        }

        async fn select(
            connection: &mut Self::Connection,
            statement: &str,
            values: &[Value<'_>],
            kinds: &[Kind],
        ) -> Result<Vec<Vec<Cell>>, sqlx::Error> {
            let rows = bound(statement, values).fetch_all(connection).await?;
            rows.iter().map(|row| kinds.iter().enumerate().map(|(at, kind)| cell(row, at, *kind)).collect()).collect()
        }
    };
}

/// How values go into a statement and come out of a row.
macro_rules! values {
    ($database:ty) => {
        fn bound<'q>(
            statement: &'q str,
            values: &'q [Value<'q>],
        ) -> sqlx::query::Query<'q, $database, <$database as sqlx::Database>::Arguments<'q>> {
            values.iter().fold(sqlx::query(statement), |query, value| match value {
                Value::Int(number) => query.bind(*number),
                Value::Text(text) => query.bind(*text),
                Value::Bytes(bytes) => query.bind(*bytes),
            })
        }

        fn cell(row: &<$database as sqlx::Database>::Row, at: usize, kind: Kind) -> Result<Cell, sqlx::Error> {
            use sqlx::Row as _;
            // Unchecked: sqlx takes MySQL's text for binary data if its collation is a binary one.
            Ok(match kind {
                Kind::Int => Cell::Int(row.try_get_unchecked(at)?),
                Kind::Text => Cell::Text(row.try_get_unchecked::<Option<String>, _>(at)?.unwrap_or_default()),
                Kind::Bytes => Cell::Bytes(row.try_get_unchecked(at)?),
            })
        }
    };
}

pub(crate) use begin::begin;
use {primitives, values};

/// Whether the error says that somebody else was in the way, and that another try of the whole transaction may succeed.
pub(crate) fn is_contention<DB: Dialect>(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if DB::is_contention(error.as_ref()))
}
