//! The statements of people: what they look at, and what they do about failed rows.

use super::store::Statements;
use crate::outbox::row::{OutboxQuery, OutboxRow, OutboxState};
use crate::sql::{Cell, Dialect, Kind, Value};

const SEEN: [Kind; 12] = [
    Kind::Int,
    Kind::Text,
    Kind::Text,
    Kind::Text,
    Kind::Text,
    Kind::Text,
    Kind::Int,
    Kind::Int,
    Kind::Text,
    Kind::Text,
    Kind::Text,
    Kind::Int,
];

impl Statements {
    fn seen(&self) -> String {
        let (created, changed) = ((self.spelling.time_text)("created_at"), (self.spelling.time_text)("changed_at"));
        format!(
            "SELECT id, state, tenant, topic, order_key, unique_id, bytes, attempts, last_error, {created}, {changed}, {} FROM {}",
            (self.spelling.age_ms)("created_at"),
            self.table
        )
    }

    /// Rows in the order of their ids.
    pub(super) async fn list<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        query: &OutboxQuery,
    ) -> Result<Vec<OutboxRow>, sqlx::Error> {
        let state = query.state.map(|state| format!(" AND state = '{state}'")).unwrap_or_default();
        let (all, parameter, limit) = (self.seen(), self.parameter(1), query.limit());
        let select = format!("{all} WHERE id > {parameter}{state} ORDER BY id LIMIT {limit}");
        let rows = DB::select(connection, &select, &[Value::Int(query.after)], &SEEN).await?;
        rows.into_iter().map(|mut cells| seen(&mut cells)).collect()
    }

    /// One row, and the slot that it is in.
    pub(super) async fn find<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        id: i64,
    ) -> Result<Option<OutboxRow>, sqlx::Error> {
        let select = format!("{} WHERE id = {}", self.seen(), self.parameter(1));
        let mut rows = DB::select(connection, &select, &[Value::Int(id)], &SEEN).await?;
        rows.first_mut().map(|cells| seen(cells)).transpose()
    }

    /// How many rows are in each state.
    pub(super) async fn count<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
    ) -> Result<Vec<(String, i64)>, sqlx::Error> {
        let select = format!("SELECT state, count(*) FROM {} GROUP BY state", self.table);
        let rows = DB::select(connection, &select, &[], &[Kind::Text, Kind::Int]).await?;
        Ok(rows.into_iter().map(|mut cells| (cells[0].text(), cells[1].int())).collect())
    }

    /// A failed row waits again, with all its attempts before it. Says whether there was one.
    pub(super) async fn requeue<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        id: i64,
    ) -> Result<bool, sqlx::Error> {
        let change = format!(
            "UPDATE {} SET state = 'waiting', attempts = 0, changed_at = {} WHERE id = {} AND state = 'failed'",
            self.table,
            self.spelling.now,
            self.parameter(1)
        );
        Ok(DB::execute(connection, &change, &[Value::Int(id)]).await? == 1)
    }

    /// Deletes a failed row. Says whether there was one.
    pub(super) async fn discard<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        id: i64,
    ) -> Result<bool, sqlx::Error> {
        let change = format!("DELETE FROM {} WHERE id = {} AND state = 'failed'", self.table, self.parameter(1));
        Ok(DB::execute(connection, &change, &[Value::Int(id)]).await? == 1)
    }
}

fn seen(cells: &mut [Cell]) -> Result<OutboxRow, sqlx::Error> {
    let word = cells[1].text();
    let state = OutboxState::from_word(&word);
    let state = state.ok_or_else(|| sqlx::Error::Decode(format!("the outbox has a row in state {word:?}").into()))?;
    Ok(OutboxRow {
        id: cells[0].int(),
        state,
        tenant: cells[2].text(),
        topic: cells[3].text(),
        key: cells[4].text(),
        unique_id: cells[5].text(),
        bytes: cells[6].int().unsigned_abs(),
        attempts: u32::try_from(cells[7].int()).unwrap_or(u32::MAX),
        last_error: cells[8].text(),
        created_at: cells[9].text(),
        changed_at: cells[10].text(),
        age: std::time::Duration::from_millis(u64::try_from(cells[11].int()).unwrap_or(0)),
    })
}
