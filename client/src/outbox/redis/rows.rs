//! A relay's rows and its lease in Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use super::place::{Seen, place};
use super::{Connection, Keys, scripts};
use crate::outbox::lease::{Leases, Owned};
use crate::outbox::row::{OutboxState, SLOTS, Work};
use crate::outbox::rows::{PAGE, Rows, SLOTS_AT_ONCE, SMALL_ROW};
use crate::script::millis;

/// Rows that one script settles.
const SETTLED_AT_ONCE: usize = 256;

/// What one relay does in Redis.
#[derive(Clone)]
pub(super) struct Relaying<C> {
    pub(super) keys: Keys<C>,
    pub(super) relay: Arc<str>,
}

impl<C: Connection> Rows for Relaying<C> {
    type Error = RedisError;

    async fn read(&mut self, slots: &[i64]) -> Result<Vec<Work>, RedisError> {
        let mut rows = Vec::new();
        for slots in slots.chunks(SLOTS_AT_ONCE) {
            let mut call = self.keys.call(scripts::READ);
            call.arg(PAGE).arg(SMALL_ROW).arg(slots);
            rows.extend(Seen::all(self.keys.ask(&call).await?).map(|seen| seen.work));
        }
        rows.sort_unstable_by_key(|row| (row.slot, row.id));
        Ok(rows)
    }

    async fn body(&mut self, id: i64) -> Result<Option<Bytes>, RedisError> {
        self.keys.body(id).await
    }

    async fn settle(&mut self, ids: &[i64], keeps: bool) -> Result<(), RedisError> {
        for ids in ids.chunks(SETTLED_AT_ONCE) {
            let mut call = self.keys.call(scripts::SETTLE);
            call.arg(u8::from(keeps)).arg(places(ids));
            self.keys.ask::<()>(&call).await?;
        }
        Ok(())
    }

    async fn refused(&mut self, row: &Work, state: OutboxState, error: &str) -> Result<(), RedisError> {
        let (slot, seq) = place(row.id);
        let mut call = self.keys.call(scripts::REFUSED);
        call.arg(&*self.relay).arg(slot).arg(seq).arg(row.attempts).arg(state.word()).arg(error);
        self.keys.ask(&call).await
    }

    async fn note(&mut self, id: i64, error: &str) -> Result<(), RedisError> {
        let (slot, seq) = place(id);
        self.keys.ask(self.keys.call(scripts::NOTE).arg(&*self.relay).arg(slot).arg(seq).arg(error)).await
    }

    async fn blocked(&mut self, slot: i64) -> Result<Vec<String>, RedisError> {
        self.keys.ask(self.keys.call(scripts::BLOCKED).arg(slot)).await
    }

    async fn hold(&mut self, ids: &[i64]) -> Result<(), RedisError> {
        self.keys.ask(self.keys.call(scripts::HOLD).arg(&*self.relay).arg(places(ids))).await
    }

    async fn tidy(&mut self, slots: &[i64], holds: bool, keep_sent: Duration) -> Result<(), RedisError> {
        for slots in slots.chunks(SLOTS_AT_ONCE) {
            let mut call = self.keys.call(scripts::TIDY);
            call.arg(&*self.relay).arg(u8::from(holds)).arg(millis(keep_sent)).arg(slots);
            while self.keys.ask::<u8>(&call).await? == 1 {}
        }
        Ok(())
    }
}

impl<C: Connection> Leases for Relaying<C> {
    type Error = RedisError;

    async fn turn(&self, owned: &Owned, lease_ms: i64, until: Duration) -> Result<(), RedisError> {
        let mut call = self.keys.call(scripts::LEASE);
        if self.keys.ask::<u8>(call.arg(&*self.relay).arg(lease_ms)).await? == 1 {
            owned.set(&(0..SLOTS).collect::<Vec<_>>(), until);
        } else {
            // What is still on its way is cut off.
            owned.set(&[], Duration::ZERO);
        }
        Ok(())
    }

    async fn leave(&self) -> Result<(), RedisError> {
        self.keys.ask(self.keys.call(scripts::LEAVE).arg(&*self.relay)).await
    }
}

/// Slot and number of each row.
fn places(ids: &[i64]) -> Vec<i64> {
    ids.iter().flat_map(|id| <[i64; 2]>::from(place(*id))).collect()
}
