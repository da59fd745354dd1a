//! The barrier's use of a database: the row, its states, the statements, and the differences between databases.
//!
//! A plain unique key does the work, so no isolation level matters: of two inserts under one id the second one waits for the
//! first one's transaction to end, and then fails if that has committed. The statements that plant give up the wait after a
//! short time, in the way of each database.

use std::future::Future;

use crate::queue::MessageQueue;
use crate::sql::tables::{Column, Family, Table};
use crate::trace::Labels;
use crate::transaction::Half;

/// The state of a row. The numbers are in people's databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The local transaction has committed. Never changes to anything but `Contradicted`.
    Committed,
    /// Planted by a check: the local transaction cannot commit any more.
    RolledBack,
    /// The local transaction has committed, and yet the broker had rolled back by an operator's hand. Kept for people.
    Contradicted,
}

impl State {
    pub(super) const fn number(self) -> i64 {
        match self {
            State::Committed => 1,
            State::RolledBack => 2,
            State::Contradicted => 3,
        }
    }

    pub(super) fn from_number(number: i64) -> Result<State, sqlx::Error> {
        [State::Committed, State::RolledBack, State::Contradicted]
            .into_iter()
            .find(|state| state.number() == number)
            .ok_or_else(|| sqlx::Error::Decode(format!("the barrier's table has a row in state {number}").into()))
    }
}

/// One row: a transaction's id, its state, and whom to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) broker: String,
    pub(super) queue_id: i64,
    pub(super) position: i64,
    pub(super) counter: i64,
    /// Milliseconds since 1970 by the database's clock, the only one that decides about age. Given when it is written.
    pub(super) created_at: i64,
}

impl Row {
    /// The row by which the local transaction of `half` commits.
    pub(super) fn committed(group: &str, half: &Half) -> Row {
        Row {
            id: half.message_id.clone(),
            state: State::Committed,
            group: group.to_owned(),
            topic: half.queue.topic().to_owned(),
            broker: half.queue.broker().to_owned(),
            queue_id: half.queue.id().into(),
            position: half.position,
            counter: half.table_offset,
            created_at: 0,
        }
    }

    /// The same, rolled back.
    pub(super) fn rolled_back(&self) -> Row {
        Row { state: State::RolledBack, ..self.clone() }
    }

    /// The half that the row is about.
    pub(super) fn half(&self) -> Half {
        Half {
            transaction_id: self.id.clone(),
            message_id: self.id.clone(),
            queue: MessageQueue::new(self.topic.as_str(), self.broker.as_str(), self.queue_id as i32),
            position: self.position,
            table_offset: self.counter,
            labels: Labels::default(),
        }
    }
}

/// The rows of a page: those of one group and state that are older than `age_ms`, oldest first, after `after`.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    pub(super) group: &'a str,
    pub(super) state: State,
    pub(super) age_ms: i64,
    /// Age and id of the row that the last page ended with.
    pub(super) after: (i64, String),
    pub(super) limit: i64,
}

/// The statements, with the table's name in them.
#[derive(Clone, Debug)]
pub struct Statements {
    /// By what local transactions begin.
    pub(super) begin: String,
    pub(super) insert: String,
    /// As `insert`, but a row that is there is no error.
    pub(super) plant: String,
    pub(super) find: String,
    pub(super) page: String,
    pub(super) contradict: String,
    /// Lacks the state and the list of ids.
    pub(super) delete: String,
}

/// How a database spells the statements.
pub(super) struct Spelling {
    /// The n-th parameter, from 1.
    pub(super) parameter: fn(usize) -> String,
    /// Milliseconds since 1970, constant within a statement.
    pub(super) now_ms: &'static str,
    /// The clause that makes an insert do nothing if the row is there.
    pub(super) unless_there: &'static str,
}

const COLUMNS: &str = "id, state, producer_group, topic, broker, queue_id, half_position, half_counter, created_at";

impl Spelling {
    pub(super) fn statements(&self, table: &str, begin: String) -> Statements {
        let parameter = self.parameter;
        let now_ms = self.now_ms;
        let values: Vec<String> = (1..=8).map(parameter).collect();
        let insert = format!("INSERT INTO {table} ({COLUMNS}) VALUES ({}, {now_ms})", values.join(", "));
        Statements {
            begin,
            plant: format!("{insert}{}", self.unless_there),
            insert,
            find: format!("SELECT {COLUMNS} FROM {table} WHERE id = {}", parameter(1)),
            // Written so that all three databases walk the index from the given row on.
            page: format!(
                "SELECT {COLUMNS} FROM {table} WHERE producer_group = {} AND state = {} AND created_at <= {now_ms} - {} \
                 AND created_at >= {} AND (created_at > {} OR id > {}) ORDER BY created_at, id LIMIT {}",
                parameter(1),
                parameter(2),
                parameter(3),
                parameter(4),
                parameter(5),
                parameter(6),
                parameter(7),
            ),
            contradict: format!("UPDATE {table} SET state = 3 WHERE id = {} AND state = 1", parameter(1)),
            delete: format!("DELETE FROM {table} WHERE state = "),
        }
    }
}

/// The part of [`BarrierDatabase`](super::BarrierDatabase) that is not for others.
pub trait Dialect: crate::sql::Dialect {
    /// The statements for this table. Local transactions begin with `begin`, or as the database does it.
    fn statements(table: &str, begin: Option<&str>) -> Statements;

    /// The options of the barrier's own connections, whose statements wait no longer than this for a lock.
    fn own_options(options: ConnectOptions<Self>, lock_wait: std::time::Duration) -> ConnectOptions<Self>;

    /// How many own connections make sense.
    const OWN_CONNECTIONS_MAX: u32;

    /// Plants a row if there is none, and answers whether it did. Waits no longer than `lock_wait` for an open transaction
    /// that has written one.
    fn plant(
        connection: &mut Self::Connection,
        statements: &Statements,
        row: &Row,
        lock_wait: std::time::Duration,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Writes a row; one that is there is an error.
    fn insert(
        connection: &mut Self::Connection,
        statements: &Statements,
        row: &Row,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// The row of this id.
    fn find(
        connection: &mut Self::Connection,
        statements: &Statements,
        id: &str,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send;

    /// A page of rows.
    fn page(
        connection: &mut Self::Connection,
        statements: &Statements,
        page: &Page<'_>,
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// Marks a committed row as contradicted.
    fn contradict(
        connection: &mut Self::Connection,
        statements: &Statements,
        id: &str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Deletes rows in this state.
    fn delete(
        connection: &mut Self::Connection,
        statements: &Statements,
        state: State,
        ids: &[String],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Runs one statement without parameters.
    fn run(connection: &mut Self::Connection, statement: &str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// The definition of the table.
pub(super) fn table<DB: Dialect>(name: &str) -> Family {
    let columns = &[
        ("id", Column::Ascii(255)),
        ("state", Column::Int),
        ("producer_group", Column::Text(255)),
        ("topic", Column::Text(255)),
        ("broker", Column::Text(255)),
        ("queue_id", Column::Int),
        ("half_position", Column::Int),
        ("half_counter", Column::Int),
        ("created_at", Column::Int),
    ];
    let index = Some(("by_age", "producer_group, state, created_at, id"));
    Family::new::<DB>(name, 1, &[Table { name: name.to_owned(), columns, key: "id", index }], Vec::new())
}

/// How to connect to a database.
pub(super) type ConnectOptions<DB> = <<DB as sqlx::Database>::Connection as sqlx::Connection>::Options;

/// The methods of [`Dialect`] that read the same for all databases, which sqlx's types cannot say once.
macro_rules! queries {
    ($database:ty) => {
        async fn insert(
            connection: &mut Self::Connection,
            statements: &Statements,
            row: &Row,
        ) -> Result<(), sqlx::Error> {
            written(&statements.insert, row).execute(connection).await.map(drop)
        }

        async fn find(
            connection: &mut Self::Connection,
            statements: &Statements,
            id: &str,
        ) -> Result<Option<Row>, sqlx::Error> {
            let found = sqlx::query(&statements.find).bind(id).fetch_optional(connection).await?;
            found.as_ref().map(read).transpose()
        }

        async fn page(
            connection: &mut Self::Connection,
            statements: &Statements,
            page: &Page<'_>,
        ) -> Result<Vec<Row>, sqlx::Error> {
            let (created_at, id) = &page.after;
            let query = sqlx::query(&statements.page).bind(page.group).bind(page.state.number()).bind(page.age_ms);
            let query = query.bind(created_at).bind(created_at).bind(id).bind(page.limit);
            query.fetch_all(connection).await?.iter().map(read).collect()
        }

        async fn contradict(
            connection: &mut Self::Connection,
            statements: &Statements,
            id: &str,
        ) -> Result<(), sqlx::Error> {
            sqlx::query(&statements.contradict).bind(id).execute(connection).await.map(drop)
        }

        async fn delete(
            connection: &mut Self::Connection,
            statements: &Statements,
            state: State,
            ids: &[String],
        ) -> Result<(), sqlx::Error> {
            if ids.is_empty() {
                return Ok(());
            }
            let mut query = sqlx::QueryBuilder::<$database>::new(&statements.delete);
            query.push(state.number()).push(" AND id IN (");
            let mut list = query.separated(", ");
            for id in ids {
                list.push_bind(id);
            }
            query.push(")");
            // Another number of ids is another statement: not worth keeping.
            query.build().persistent(false).execute(connection).await.map(drop)
        }

        async fn run(connection: &mut Self::Connection, statement: &str) -> Result<(), sqlx::Error> {
            sqlx::query(statement).persistent(false).execute(connection).await.map(drop)
        }
    };
}

/// How a row goes into a statement and comes out of an answer.
macro_rules! rows {
    ($database:ty, $row:ty) => {
        /// A statement with the columns of `row`, the time excepted.
        fn written<'q>(
            statement: &'q str,
            row: &'q Row,
        ) -> sqlx::query::Query<'q, $database, <$database as sqlx::Database>::Arguments<'q>> {
            let query = sqlx::query(statement).bind(&row.id).bind(row.state.number()).bind(&row.group);
            let query = query.bind(&row.topic).bind(&row.broker).bind(row.queue_id);
            query.bind(row.position).bind(row.counter)
        }

        /// The columns in the order of the statements.
        fn read(columns: &$row) -> Result<Row, sqlx::Error> {
            use sqlx::Row as _;
            // Unchecked: sqlx takes MySQL's text for binary data if its collation is a binary one.
            let text = |column: usize| columns.try_get_unchecked::<String, _>(column);
            Ok(Row {
                id: text(0)?,
                state: State::from_number(columns.try_get(1)?)?,
                group: text(2)?,
                topic: text(3)?,
                broker: text(4)?,
                queue_id: columns.try_get(5)?,
                position: columns.try_get(6)?,
                counter: columns.try_get(7)?,
                created_at: columns.try_get(8)?,
            })
        }
    };
}

pub(super) use {queries, rows};
