//! The statements about rows: they are added, read and settled.
//!
//! ```text
//!  add -> waiting -> a broker has it -> deleted, or `sent` for a while
//!            |  ^
//!            |  `------------------------- requeue (a person)
//!            |-> failed: refused too often ---^
//!            `-> held: behind a failed one ---^
//! ```

use bytes::Bytes;

use crate::outbox::row::{NewRow, OutboxState, Work};
use crate::outbox::rows::{PAGE, SLOTS_AT_ONCE, SMALL_ROW};
use crate::sql::{Cell, Dialect, Kind, Spelling, Value};

/// Lists of ids have one of these lengths, filled up with the last one: the statements stay few.
const LIST_LENGTHS: [usize; 3] = [1, 16, 256];

const WORK: [Kind; 11] = [
    Kind::Int,
    Kind::Int,
    Kind::Text,
    Kind::Text,
    Kind::Text,
    Kind::Int,
    Kind::Text,
    Kind::Bytes,
    Kind::Int,
    Kind::Int,
    Kind::Int,
];
/// The statements, with the table's name in them.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    pub(super) table: String,
    pub(super) spelling: Spelling,
    add: String,
    read: String,
}

impl Statements {
    pub(super) fn new(table: &str, spelling: Spelling) -> Statements {
        let parameter = spelling.parameter;
        let values: Vec<String> = (1..=9).map(parameter).collect();
        let now = spelling.now;
        let add = format!(
            "INSERT INTO {table} (slot, tenant, topic, order_key, unique_id, flag, properties, body, bytes, state, created_at, \
             changed_at) VALUES ({}, 'waiting', {now}, {now})",
            values.join(", ")
        );
        let age = (spelling.age_ms)("created_at");
        let parts = (0..SLOTS_AT_ONCE).map(|number| {
            let select = format!(
                "SELECT id, slot, topic, order_key, unique_id, flag, properties, \
                 CASE WHEN bytes <= {SMALL_ROW} THEN body END AS small, bytes, attempts, {age} AS age FROM {table} \
                 WHERE state = 'waiting' AND slot = {} ORDER BY id LIMIT {PAGE}",
                parameter(number + 1)
            );
            (spelling.part)(&select, number)
        });
        let read = parts.collect::<Vec<_>>().join(" UNION ALL ");
        Statements { table: table.to_owned(), spelling, add, read }
    }

    pub(super) fn parameter(&self, number: usize) -> String {
        (self.spelling.parameter)(number)
    }

    /// Adds a row.
    pub(super) async fn add<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        tenant: &str,
        row: &NewRow,
    ) -> Result<(), sqlx::Error> {
        let bytes = i64::try_from(row.bytes()).unwrap_or(i64::MAX);
        let values = [
            Value::Int(row.slot),
            Value::Text(tenant),
            Value::Text(&row.topic),
            Value::Text(&row.key),
            Value::Text(&row.unique_id),
            Value::Int(row.flag),
            Value::Text(&row.properties),
            Value::Bytes(&row.body),
            Value::Int(bytes),
        ];
        DB::execute(connection, &self.add, &values).await.map(drop)
    }

    /// The first waiting rows of these slots, each slot's in the order of their ids.
    pub(super) async fn read<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        slots: &[i64],
    ) -> Result<Vec<Work>, sqlx::Error> {
        let mut rows = Vec::new();
        for slots in slots.chunks(SLOTS_AT_ONCE) {
            // No slot has a negative number.
            let padded = slots.iter().copied().chain(std::iter::repeat(-1)).take(SLOTS_AT_ONCE);
            let values: Vec<Value<'_>> = padded.map(Value::Int).collect();
            let found = DB::select(connection, &self.read, &values, &WORK).await?;
            rows.extend(found.into_iter().map(|mut cells| work(&mut cells)));
        }
        // A union promises no order.
        rows.sort_unstable_by_key(|row| (row.slot, row.id));
        Ok(rows)
    }

    /// The body of a row, if it is still there.
    pub(super) async fn body<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        id: i64,
    ) -> Result<Option<Bytes>, sqlx::Error> {
        let select = format!("SELECT body FROM {} WHERE id = {}", self.table, self.parameter(1));
        let mut rows = DB::select(connection, &select, &[Value::Int(id)], &[Kind::Bytes]).await?;
        Ok(rows.first_mut().and_then(|cells| cells[0].bytes()).map(Bytes::from))
    }

    /// One row as a relay reads it, with its body.
    pub(super) async fn work<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        id: i64,
    ) -> Result<Option<Work>, sqlx::Error> {
        let select = format!(
            "SELECT id, slot, topic, order_key, unique_id, flag, properties, body, bytes, attempts, {} FROM {} WHERE id = {}",
            (self.spelling.age_ms)("created_at"),
            self.table,
            self.parameter(1)
        );
        let mut rows = DB::select(connection, &select, &[Value::Int(id)], &WORK).await?;
        Ok(rows.first_mut().map(|cells| work(cells)))
    }

    /// A broker has these.
    pub(super) async fn settle<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        ids: &[i64],
        keeps: bool,
    ) -> Result<(), sqlx::Error> {
        let (table, now) = (&self.table, self.spelling.now);
        let change = if keeps {
            format!("UPDATE {table} SET state = 'sent', changed_at = {now} WHERE id IN")
        } else {
            format!("DELETE FROM {table} WHERE id IN")
        };
        self.with_ids::<DB>(connection, &change, "", ids).await.map(drop)
    }

    /// These wait behind a failed one.
    pub(super) async fn hold<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        ids: &[i64],
    ) -> Result<(), sqlx::Error> {
        let change =
            format!("UPDATE {} SET state = 'held', changed_at = {} WHERE id IN", self.table, self.spelling.now);
        self.with_ids::<DB>(connection, &change, " AND state = 'waiting'", ids).await.map(drop)
    }

    /// Keys of a slot that have a failed row, or that have held ones.
    pub(super) async fn keys<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        state: OutboxState,
        slot: i64,
    ) -> Result<Vec<String>, sqlx::Error> {
        let (table, state) = (&self.table, state.word());
        let select = format!(
            "SELECT DISTINCT order_key FROM {table} WHERE state = '{state}' AND slot = {} AND order_key <> ''",
            self.parameter(1)
        );
        let rows = DB::select(connection, &select, &[Value::Int(slot)], &[Kind::Text]).await?;
        Ok(rows.into_iter().map(|mut cells| cells[0].text()).collect())
    }

    /// Whether there is any row in a state.
    pub(super) async fn has<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        state: OutboxState,
    ) -> Result<bool, sqlx::Error> {
        let select = format!("SELECT id FROM {} WHERE state = '{}' LIMIT 1", self.table, state.word());
        Ok(!DB::select(connection, &select, &[], &[Kind::Int]).await?.is_empty())
    }

    /// Lets the held rows of a key go.
    pub(super) async fn let_go<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        slot: i64,
        key: &str,
    ) -> Result<u64, sqlx::Error> {
        let change = format!(
            "UPDATE {} SET state = 'waiting', changed_at = {} WHERE state = 'held' AND slot = {} AND order_key = {}",
            self.table,
            self.spelling.now,
            self.parameter(1),
            self.parameter(2)
        );
        DB::execute(connection, &change, &[Value::Int(slot), Value::Text(key)]).await
    }

    /// A broker refused a row. May be written again.
    pub(super) async fn refused<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        row: &Work,
        state: OutboxState,
        error: &str,
    ) -> Result<(), sqlx::Error> {
        let change = format!(
            "UPDATE {} SET state = '{}', attempts = {}, last_error = {}, changed_at = {} WHERE id = {} AND state = \
             'waiting'",
            self.table,
            state.word(),
            row.attempts + 1,
            self.parameter(1),
            self.spelling.now,
            self.parameter(2)
        );
        DB::execute(connection, &change, &[Value::Text(error), Value::Int(row.id)]).await.map(drop)
    }

    /// Why a row waits on.
    pub(super) async fn note<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        id: i64,
        error: &str,
    ) -> Result<(), sqlx::Error> {
        let change = format!(
            "UPDATE {} SET last_error = {} WHERE id = {} AND state = 'waiting'",
            self.table,
            self.parameter(1),
            self.parameter(2)
        );
        DB::execute(connection, &change, &[Value::Text(error), Value::Int(id)]).await.map(drop)
    }

    /// Deletes a page of a slot's sent rows that are older than this. Says whether there may be more.
    pub(super) async fn forget<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        slot: i64,
        age_ms: i64,
    ) -> Result<bool, sqlx::Error> {
        let age = (self.spelling.age_ms)("changed_at");
        let select = format!(
            "SELECT id, {age} FROM {} WHERE state = 'sent' AND slot = {} ORDER BY id LIMIT 256",
            self.table,
            self.parameter(1)
        );
        let rows = DB::select(connection, &select, &[Value::Int(slot)], &[Kind::Int, Kind::Int]).await?;
        let old: Vec<i64> = rows.iter().filter(|cells| cells[1].int() >= age_ms).map(|cells| cells[0].int()).collect();
        let change = format!("DELETE FROM {} WHERE id IN", self.table);
        self.with_ids::<DB>(connection, &change, " AND state = 'sent'", &old).await?;
        Ok(old.len() == 256)
    }

    /// Runs `change`, which lacks its list of ids, and `rest` after the list.
    pub(super) async fn with_ids<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        change: &str,
        rest: &str,
        ids: &[i64],
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for ids in ids.chunks(LIST_LENGTHS[2]) {
            let length = LIST_LENGTHS.into_iter().find(|length| ids.len() <= *length).unwrap_or(LIST_LENGTHS[2]);
            let last = ids.last().copied().unwrap_or(-1);
            let padded = ids.iter().copied().chain(std::iter::repeat(last)).take(length);
            let values: Vec<Value<'_>> = padded.map(Value::Int).collect();
            let list: Vec<String> = (1..=length).map(|number| self.parameter(number)).collect();
            let statement = format!("{change} ({}){rest}", list.join(", "));
            changed += DB::execute(connection, &statement, &values).await?;
        }
        Ok(changed)
    }
}

fn work(cells: &mut [Cell]) -> Work {
    Work {
        id: cells[0].int(),
        slot: cells[1].int(),
        topic: cells[2].text(),
        key: cells[3].text(),
        unique_id: cells[4].text(),
        flag: cells[5].int(),
        properties: cells[6].text(),
        body: cells[7].bytes().map(Bytes::from),
        bytes: cells[8].int(),
        attempts: cells[9].int(),
        age_ms: cells[10].int(),
    }
}
