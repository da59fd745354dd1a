//! The statements about slots and relays: who is there, and who owns what until when.

use super::store::Statements;
use crate::outbox::row::SLOTS;
use crate::sql::{Dialect, Kind, Value};

impl Statements {
    /// The statement that makes the rows of the slots.
    pub(super) fn slots(&self) -> String {
        let values: Vec<String> = (0..SLOTS).map(|slot| format!("({slot}, '', {})", self.spelling.now)).collect();
        format!(
            "INSERT INTO {}_slots (slot, owner, owned_until) VALUES {}{}",
            self.table,
            values.join(", "),
            self.spelling.unless_there
        )
    }

    /// The relay is alive for so long. Forgets those that are not, and says how many there are.
    pub(super) async fn announce<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        relay: &str,
        lease_ms: i64,
    ) -> Result<i64, sqlx::Error> {
        let (table, now) = (&self.table, self.spelling.now);
        let until = (self.spelling.later)(&lease_ms.to_string());
        let insert = format!(
            "INSERT INTO {table}_relays (relay, alive_until) VALUES ({}, {until}){}",
            self.parameter(1),
            (self.spelling.or_renew)(&until)
        );
        DB::execute(connection, &insert, &[Value::Text(relay)]).await?;
        DB::execute(connection, &format!("DELETE FROM {table}_relays WHERE alive_until < {now}"), &[]).await?;
        let count = format!("SELECT count(*) FROM {table}_relays");
        Ok(DB::select(connection, &count, &[], &[Kind::Int]).await?.first().map_or(1, |cells| cells[0].int()))
    }

    /// Renews what the relay owns, and says which slots those are.
    pub(super) async fn renew<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        relay: &str,
        lease_ms: i64,
    ) -> Result<Vec<i64>, sqlx::Error> {
        let until = (self.spelling.later)(&lease_ms.to_string());
        let renew =
            format!("UPDATE {}_slots SET owned_until = {until} WHERE owner = {}", self.table, self.parameter(1));
        DB::execute(connection, &renew, &[Value::Text(relay)]).await?;
        let select = format!("SELECT slot FROM {}_slots WHERE owner = {}", self.table, self.parameter(1));
        let rows = DB::select(connection, &select, &[Value::Text(relay)], &[Kind::Int]).await?;
        Ok(rows.iter().map(|cells| cells[0].int()).collect())
    }

    /// Slots that nobody owns now.
    pub(super) async fn vacant<DB: Dialect>(&self, connection: &mut DB::Connection) -> Result<Vec<i64>, sqlx::Error> {
        let select =
            format!("SELECT slot FROM {}_slots WHERE owned_until < {} ORDER BY slot", self.table, self.spelling.now);
        let rows = DB::select(connection, &select, &[], &[Kind::Int]).await?;
        Ok(rows.iter().map(|cells| cells[0].int()).collect())
    }

    /// Takes those of these slots that nobody owns.
    pub(super) async fn take<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        slots: &[i64],
        relay: &str,
        lease_ms: i64,
    ) -> Result<(), sqlx::Error> {
        // The name of a relay is a number that it has drawn.
        let (until, now) = ((self.spelling.later)(&lease_ms.to_string()), self.spelling.now);
        let change = format!("UPDATE {}_slots SET owner = '{relay}', owned_until = {until} WHERE slot IN", self.table);
        self.with_ids::<DB>(connection, &change, &format!(" AND owned_until < {now}"), slots).await.map(drop)
    }

    /// Gives up these slots, in one statement: their number times the time of a commit may be longer than a lease.
    pub(super) async fn give_up<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        slots: &[i64],
        relay: &str,
    ) -> Result<(), sqlx::Error> {
        let change = format!("{} WHERE slot IN", self.nobodys());
        self.with_ids::<DB>(connection, &change, &format!(" AND owner = '{relay}'"), slots).await.map(drop)
    }

    fn nobodys(&self) -> String {
        let past = (self.spelling.later)("-1000");
        format!("UPDATE {}_slots SET owner = '', owned_until = {past}", self.table)
    }

    /// Gives up all slots, and the relay's place among the living.
    pub(super) async fn leave<DB: Dialect>(
        &self,
        connection: &mut DB::Connection,
        relay: &str,
    ) -> Result<(), sqlx::Error> {
        let all = format!("{} WHERE owner = {}", self.nobodys(), self.parameter(1));
        DB::execute(connection, &all, &[Value::Text(relay)]).await?;
        let leave = format!("DELETE FROM {}_relays WHERE relay = {}", self.table, self.parameter(1));
        DB::execute(connection, &leave, &[Value::Text(relay)]).await.map(drop)
    }
}
