//! A relay's rows and leases in the database, on connections of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::Pool;
use sqlx::pool::PoolConnection;

use super::tables::tables;
use super::{OutboxDatabase, Shared, connection};
use crate::outbox::lease::{Leases, Owned};
use crate::outbox::row::{OutboxState, SLOTS, Work, mixed};
use crate::outbox::rows::Rows;
use crate::sql::tables::Checked;

/// Relays that start together want the same slots.
const TAKE_ATTEMPTS: u32 = 3;

/// Rows, on one connection at a time.
pub(super) struct SqlRows<DB: OutboxDatabase> {
    shared: Arc<Shared<DB>>,
    own: Pool<DB>,
    connection: Option<PoolConnection<DB>>,
}

impl<DB: OutboxDatabase> SqlRows<DB> {
    pub(super) fn new(shared: Arc<Shared<DB>>, own: Pool<DB>) -> SqlRows<DB> {
        SqlRows { shared, own, connection: None }
    }

    /// The connection, made if there is none.
    async fn connected(&mut self) -> Result<&mut DB::Connection, sqlx::Error> {
        if self.connection.is_none() {
            self.connection = Some(connection(&self.own).await?);
        }
        Ok(&mut **self.connection.as_mut().expect("it was just made"))
    }

    /// After a failure the next try has a connection of its own.
    fn kept<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.is_err()
            && let Some(connection) = self.connection.take()
        {
            // Not back into the pool: it may be broken.
            drop(connection.detach());
        }
        result
    }
}

/// Runs this with `$statements` on the connection of `$rows`.
macro_rules! on_connection {
    ($rows:ident, |$statements:ident, $connection:ident| $work:expr) => {{
        let shared = Arc::clone(&$rows.shared);
        let $statements = &shared.statements;
        let $connection = $rows.connected().await?;
        let done = $work;
        $rows.kept(done)
    }};
}

impl<DB: OutboxDatabase> Rows for SqlRows<DB> {
    type Error = sqlx::Error;

    async fn read(&mut self, slots: &[i64]) -> Result<Vec<Work>, sqlx::Error> {
        on_connection!(self, |statements, connection| statements.read::<DB>(connection, slots).await)
    }

    async fn body(&mut self, id: i64) -> Result<Option<Bytes>, sqlx::Error> {
        on_connection!(self, |statements, connection| statements.body::<DB>(connection, id).await)
    }

    async fn settle(&mut self, ids: &[i64], keeps: bool) -> Result<(), sqlx::Error> {
        on_connection!(self, |statements, connection| statements.settle::<DB>(connection, ids, keeps).await)
    }

    async fn refused(&mut self, row: &Work, state: OutboxState, error: &str) -> Result<(), sqlx::Error> {
        on_connection!(self, |statements, connection| statements.refused::<DB>(connection, row, state, error).await)
    }

    async fn note(&mut self, id: i64, error: &str) -> Result<(), sqlx::Error> {
        on_connection!(self, |statements, connection| statements.note::<DB>(connection, id, error).await)
    }

    async fn blocked(&mut self, slot: i64) -> Result<Vec<String>, sqlx::Error> {
        on_connection!(self, |statements, connection| async {
            let mut keys = statements.keys::<DB>(connection, OutboxState::Failed, slot).await?;
            keys.extend(statements.keys::<DB>(connection, OutboxState::Held, slot).await?);
            Ok(keys)
        }
        .await)
    }

    async fn hold(&mut self, ids: &[i64]) -> Result<(), sqlx::Error> {
        on_connection!(self, |statements, connection| statements.hold::<DB>(connection, ids).await)
    }

    async fn tidy(&mut self, slots: &[i64], holds: bool, keep_sent: Duration) -> Result<(), sqlx::Error> {
        let age_ms = i64::try_from(keep_sent.as_millis()).unwrap_or(i64::MAX);
        on_connection!(self, |statements, connection| async {
            let has_held = statements.has::<DB>(connection, OutboxState::Held).await?;
            let has_sent = statements.has::<DB>(connection, OutboxState::Sent).await?;
            for &slot in slots {
                while has_sent && statements.forget::<DB>(connection, slot, age_ms).await? {}
                if !has_held {
                    continue;
                }
                let failed =
                    if holds { statements.keys::<DB>(connection, OutboxState::Failed, slot).await? } else { vec![] };
                for key in statements.keys::<DB>(connection, OutboxState::Held, slot).await? {
                    if !failed.contains(&key) {
                        statements.let_go::<DB>(connection, slot, &key).await?;
                    }
                }
            }
            Ok(())
        }
        .await)
    }
}

/// Leases of slots in the database.
pub(super) struct SqlLeases<DB: OutboxDatabase> {
    pub(super) shared: Arc<Shared<DB>>,
    pub(super) own: Pool<DB>,
    pub(super) relay: String,
    /// A relay owns nothing, and so sends nothing, in tables that it does not know.
    pub(super) checked: Checked,
}

impl<DB: OutboxDatabase> Leases for SqlLeases<DB> {
    type Error = sqlx::Error;

    async fn turn(&self, owned: &Owned, lease_ms: i64, until: Duration) -> Result<(), sqlx::Error> {
        let statements = &self.shared.statements;
        self.checked.check(&self.own, || tables::<DB>(&self.shared.table)).await?;
        let mut connection = connection(&self.own).await?;
        let relays = statements.announce::<DB>(&mut connection, &self.relay, lease_ms).await?.max(1);
        let mut slots = statements.renew::<DB>(&mut connection, &self.relay, lease_ms).await?;
        let share =
            if DB::SHARES { SLOTS.unsigned_abs().div_ceil(relays.unsigned_abs()) } else { SLOTS.unsigned_abs() };
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        for _ in 0..TAKE_ATTEMPTS {
            let mut vacant = Vec::new();
            if slots.len() < share {
                vacant = statements.vacant::<DB>(&mut connection).await?;
                vacant.sort_unstable_by_key(|number| mixed(*number));
                vacant.truncate(share - slots.len());
            }
            if vacant.is_empty() {
                break;
            }
            statements.take::<DB>(&mut connection, &vacant, &self.relay, lease_ms).await?;
            slots = statements.renew::<DB>(&mut connection, &self.relay, lease_ms).await?;
        }
        owned.set(&slots, until);
        let surplus = owned.remove_idle(slots.len().saturating_sub(share));
        if !surplus.is_empty() {
            statements.give_up::<DB>(&mut connection, &surplus, &self.relay).await?;
        }
        Ok(())
    }

    async fn leave(&self) -> Result<(), sqlx::Error> {
        let mut connection = connection(&self.own).await?;
        self.shared.statements.leave::<DB>(&mut connection, &self.relay).await
    }
}
