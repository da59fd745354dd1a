//! Tables: defined once for all databases, and remembered with their version and the number of their parts.
//!
//! `escrowmq_schema`, in the schema of the tables that it is about, has a row for each family of tables. A version of this crate that
//! wants other columns finds the number there, runs the steps in between, and writes the new one. Where the number is not the one that
//! this code knows, [`Family::create`] and [`Family::check`] are errors.

use std::time::Duration;

use sqlx::{Database, Pool};
use tokio::sync::OnceCell;

use super::{Dialect, Kind, Spelling, Value};

/// How often a statement that makes a table is tried, and the first pause in between, which grows by as much each time.
const CREATE_TRIES: u32 = 6;
const CREATE_PAUSE: Duration = Duration::from_millis(20);

/// The version of all tables so far.
const VERSION: i64 = 1;

/// What a column holds. None is NULL but `Note`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "mysql"), expect(dead_code, reason = "the other databases do not bound their texts"))]
pub(crate) enum Column {
    /// A number that the database gives: the primary key.
    Id,
    /// A whole number.
    Int,
    /// A whole number that is 0 from the start.
    Count,
    /// A text of at most so many ASCII characters.
    Ascii(u32),
    /// A text of at most so many characters, compared byte by byte.
    Text(u32),
    /// A text of any length.
    LongText,
    /// A text of at most so many characters, or NULL.
    Note(u32),
    /// Bytes.
    Bytes,
    /// A time.
    Time,
}

/// Where an index is defined, and how it is named.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    expect(dead_code, reason = "each database has its own")
)]
pub(crate) enum Indexes {
    /// In the table's own definition.
    InTable,
    /// In a statement that names the table's schema with the table.
    AfterTable,
    /// In a statement that names the table's schema with the index.
    AfterTableByName,
}

/// A table.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: &'static [(&'static str, Column)],
    /// Columns of the primary key; empty if that is a [`Column::Id`].
    pub(crate) key: &'static str,
    /// End of the name, and columns.
    pub(crate) index: Option<(&'static str, &'static str)>,
}

impl Table {
    fn define(&self, spelling: &Spelling) -> Vec<String> {
        let name = &self.name;
        let columns = self.columns.iter().map(|(column, kind)| format!("{column} {}", (spelling.column)(*kind)));
        let mut lines: Vec<String> = columns.collect();
        if !self.key.is_empty() {
            lines.push(format!("PRIMARY KEY ({})", self.key));
        }
        let mut after = None;
        if let Some((index, columns)) = self.index {
            let bare = bare(name);
            match spelling.indexes {
                Indexes::InTable => lines.push(format!("KEY {index} ({columns})")),
                Indexes::AfterTable => {
                    after = Some(format!("CREATE INDEX IF NOT EXISTS {bare}_{index} ON {name} ({columns})"));
                }
                Indexes::AfterTableByName => {
                    after = Some(format!("CREATE INDEX IF NOT EXISTS {name}_{index} ON {bare} ({columns})"));
                }
            }
        }
        let end = if self.key.is_empty() { spelling.table_end } else { spelling.keyed_table_end };
        let table = format!("CREATE TABLE IF NOT EXISTS {name} (\n    {}\n){end}", lines.join(",\n    "));
        std::iter::once(table).chain(after).collect()
    }
}

/// A name without its schema.
fn bare(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Tables that belong together.
pub(crate) struct Family {
    /// The name that its user has given, optionally with a schema.
    name: String,
    /// Into how many tables the rows are divided.
    parts: i64,
    /// May be run again.
    statements: Vec<String>,
}

impl Family {
    /// These tables, and what else there has to be.
    pub(crate) fn new<DB: Dialect>(name: &str, parts: u32, tables: &[Table], more: Vec<String>) -> Family {
        let mut family = Family { name: name.to_owned(), parts: parts.into(), statements: Vec::new() };
        let schema = Table {
            name: family.schema(),
            columns: &[("table_name", Column::Text(255)), ("version", Column::Int), ("parts", Column::Int)],
            key: "table_name",
            index: None,
        };
        let spelling = DB::SPELLING;
        family.statements.extend(tables.iter().chain([&schema]).flat_map(|table| table.define(&spelling)));
        family.statements.extend(more);
        let (schema, bare) = (family.schema(), bare(name));
        family.statements.push(format!(
            "INSERT INTO {schema} (table_name, version, parts) SELECT '{bare}', {VERSION}, {parts} FROM (SELECT 1 AS one) AS one_row \
             WHERE NOT EXISTS (SELECT 1 FROM {schema} WHERE table_name = '{bare}')"
        ));
        family
    }

    fn schema(&self) -> String {
        let prefix = self.name.len() - bare(&self.name).len();
        format!("{}escrowmq_schema", &self.name[..prefix])
    }

    /// The definition in SQL.
    pub(crate) fn definition(self) -> String {
        self.statements.into_iter().map(|statement| statement + ";\n").collect()
    }

    /// Creates what is not there.
    pub(crate) async fn create<DB: Dialect>(&self, pool: &Pool<DB>) -> Result<(), sqlx::Error> {
        let mut connection = pool.acquire().await?;
        for statement in &self.statements {
            // "If not exists" is no lock: of processes that create it at the same time some fail, or deadlock, and find it the next time.
            let mut tries = 1;
            while let Err(error) = DB::execute(&mut connection, statement, &[]).await {
                if tries == CREATE_TRIES {
                    return Err(error);
                }
                tokio::time::sleep(CREATE_PAUSE * tries).await;
                tries += 1;
            }
        }
        self.check::<DB>(&mut connection).await
    }

    /// Whether this code may work on the tables that are there.
    pub(crate) async fn check<DB: Dialect>(
        &self,
        connection: &mut <DB as Database>::Connection,
    ) -> Result<(), sqlx::Error> {
        let parameter = (DB::SPELLING.parameter)(1);
        let select = format!("SELECT version, parts FROM {} WHERE table_name = {parameter}", self.schema());
        let values = [Value::Text(bare(&self.name))];
        let rows = DB::select(connection, &select, &values, &[Kind::Int, Kind::Int]).await?;
        let (name, schema) = (&self.name, self.schema());
        let Some(row) = rows.first() else {
            return refused(format!("{schema} has no row about {name}: create the tables first"));
        };
        let (version, parts) = (row[0].int(), row[1].int());
        if version != VERSION {
            return refused(format!("{name} has version {version}, and this program knows {VERSION} alone"));
        }
        if parts != self.parts {
            return refused(format!(
                "{name} is divided into {parts} tables, not into {}: that cannot be changed, since rows would not be found again; \
                 take another name for other tables",
                self.parts
            ));
        }
        Ok(())
    }
}

/// Remembers that tables were found to be those that this code knows. They are looked at once, and again after an error.
#[derive(Debug, Default)]
pub(crate) struct Checked(OnceCell<()>);

impl Checked {
    /// [`Family::check`], on a connection of this pool.
    pub(crate) async fn check<DB: Dialect>(
        &self,
        pool: &Pool<DB>,
        family: impl FnOnce() -> Family + Send,
    ) -> Result<(), sqlx::Error> {
        let check = async || {
            let mut connection = pool.acquire().await?;
            family().check::<DB>(&mut connection).await
        };
        self.0.get_or_try_init(check).await.map(drop)
    }
}

fn refused(reason: String) -> Result<(), sqlx::Error> {
    Err(sqlx::Error::Configuration(reason.into()))
}
