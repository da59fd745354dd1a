//! The outbox in Redis, which is weaker than the one in a database: **Redis keeps what it was told to keep, and no more**.
//!
//! Your writes and the message are one `MULTI`, and so one entry of the append-only file: a crash of Redis keeps both or loses both.
//!
//! * `appendonly yes` with `appendfsync always` keeps what Redis has answered. The default, `everysec`, loses up to the last second,
//!   and without `appendonly` everything since the last snapshot is gone. The message of a write that is lost may have been sent.
//! * A replica that takes over lacks what it had not got: the same loss, whatever is synced. It may lack the relay's lease, too: then
//!   two relays send the same messages for a while, under the same ids, and possibly out of order.
//! * `MULTI` rolls nothing back: where one of **your** commands fails as it runs (a wrong type, for example), the others and the
//!   message stay. Check what they need before, under `WATCH`, for example.
//! * An eviction policy other than `noeviction` may drop messages.
//!
//! ```no_run
//! use escrowmq_client::{Client, Message, RedisOutbox};
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut connection = redis::Client::open("redis://localhost")?.get_connection_manager().await?;
//! let outbox = RedisOutbox::new(connection.clone());
//!
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//! let producer = client.producer("orders").start().await?;
//! let relay = outbox.relay(&producer).start()?; // here, or in a process of its own, or in several
//!
//! let mut pipe = redis::pipe();
//! pipe.atomic().hset("order:17", "customer", 3).ignore();
//! outbox.add(&mut pipe, Message::new("Orders", "order 17").sharding_key("customer-3"))?;
//! pipe.exec_async(&mut connection).await?; // both, or neither
//! outbox.wake();
//!
//! relay.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! As far as Redis keeps what it has answered:
//!
//! * **No write without its message, no message without its write**, whatever process dies at whatever point. An error of `exec_async`
//!   other than an answer of Redis leaves open whether both are there or neither.
//! * **Messages of one sharding key are sent in order**: in that in which Redis ran their `MULTI`.
//! * **At least once, and no row fails by time**: attempts, failed rows and what they hold back are as [outside of Redis](super#promises).
//! * **One relay sends**, whichever has the lease by the clock of Redis; the others stand by. One that stands still for longer than its
//!   lease, and then goes on, sends nothing more until it has the lease again; what it was sending then may be sent again by the next
//!   one.
//!
//! # What it needs of you
//!
//! * Redis 7.0 or later, or Valkey. **An older one refuses the message's command as it runs, and not your own ones.**
//! * In a cluster, keys of yours whose hash tag is the one of the [`prefix`](RedisOutbox::prefix): a `MULTI` has one slot.
//! * A connection that connects again by itself, as redis' `ConnectionManager` does, or a cluster's.
//! * A relay in another process than the one that adds finds messages within a second.
//!
//! # The keys
//!
//! `{escrowmq:outbox}:new:N` are streams of rows that wait, one for each of 128 slots, as an outbox in a database has them. A row that
//! was refused or held back is a hash, `{escrowmq:outbox}:row:N:SEQ`, and the sorted sets `{escrowmq:outbox}:failed:N`, `:held:N`,
//! `:waiting:N` and `:sent:N` say which rows are in which state. `{escrowmq:outbox}:lease` is the relay that sends.

mod place;
mod rows;
mod scripts;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use escrowmq_common::clock;
use escrowmq_common::message::unique_id;
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError};
use tokio::sync::Notify;

use super::row::{NewRow, OutboxQuery, OutboxRow, OutboxState, SLOTS};
use super::{AddError, Relay, RelayBuilder};
use crate::message::Message;
use crate::producer::Producer;
use crate::script;
use place::{Seen, place};
use rows::Relaying;

/// The hash tag of the keys.
const PREFIX: &str = "{escrowmq:outbox}";

/// A connection that an outbox can use.
trait Connection: ConnectionLike + Clone + Send + Sync + 'static {}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Connection for C {}

/// The keys of an outbox, and the way to them.
#[derive(Clone)]
struct Keys<C> {
    connection: C,
    prefix: Arc<str>,
}

impl<C: Connection> Keys<C> {
    fn call(&self, script: &str) -> Cmd {
        script::call(&format!("{}{script}", scripts::FUNCTIONS), &self.prefix)
    }

    async fn ask<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, RedisError> {
        script::ask(&self.connection, call).await
    }

    async fn body(&self, id: i64) -> Result<Option<Bytes>, RedisError> {
        let (slot, seq) = place(id);
        let body: Option<Vec<u8>> = self.ask(self.call(scripts::BODY).arg(slot).arg(seq)).await?;
        Ok(body.map(Bytes::from))
    }

    /// The first rows of a slot after a number, in these states.
    async fn list(
        &self,
        (slot, after): (i64, i64),
        states: &[OutboxState],
        limit: usize,
    ) -> Result<Vec<Seen>, RedisError> {
        let states: Vec<&str> = states.iter().map(|state| state.word()).collect();
        let mut call = self.call(scripts::LIST);
        call.arg(slot).arg(after).arg(limit).arg(states);
        let mut rows: Vec<Seen> = Seen::all(self.ask(&call).await?).collect();
        rows.sort_unstable_by_key(|seen| seen.work.id);
        rows.truncate(limit);
        Ok(rows)
    }

    async fn find(&self, id: i64) -> Result<Option<Seen>, RedisError> {
        let (slot, seq) = place(id);
        let found = self.list((slot, (seq - 1).max(0)), &OutboxState::ALL, 1).await?;
        Ok(found.into_iter().find(|seen| seen.work.id == id))
    }
}

/// An outbox in Redis. Cheap to clone; clones share everything. [The module](self) says what it promises, and what it does not.
#[derive(Clone)]
pub struct RedisOutbox<C> {
    keys: Keys<C>,
    wake: Arc<Notify>,
}

impl<C> fmt::Debug for RedisOutbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOutbox").field("prefix", &self.keys.prefix).finish_non_exhaustive()
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisOutbox<C> {
    /// The outbox whose keys begin with `{escrowmq:outbox}`.
    pub fn new(connection: C) -> RedisOutbox<C> {
        RedisOutbox { keys: Keys { connection, prefix: PREFIX.into() }, wake: Arc::default() }
    }

    /// The beginning of the keys, which is their hash tag unless it has one. Default `escrowmq:outbox`. Each cluster of brokers needs
    /// an outbox of its own.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        let is_tagged = prefix.contains('{');
        self.keys.prefix = if is_tagged { prefix.into() } else { format!("{{{prefix}}}").into() };
        self
    }

    /// Adds a message to your `MULTI`, and answers its unique id. It is sent once that has been executed. The answer of the pipeline
    /// has no value for it.
    ///
    /// # Errors
    ///
    /// See [`AddError`]; the pipeline is then as it was. [`AddError::NotAtomic`] for a pipeline on which `atomic()` was not called.
    pub fn add(&self, pipeline: &mut Pipeline, message: Message) -> Result<String, AddError> {
        if !pipeline.is_transaction() {
            return Err(AddError::NotAtomic);
        }
        let row = NewRow::of(message)?;
        // Unlike a script this command does not fail as it runs: without memory Redis refuses the whole `MULTI`.
        let added = pipeline.cmd("XADD").arg(format!("{}:new:{}", self.keys.prefix, row.slot)).arg("0-*");
        added.arg("topic").arg(&row.topic).arg("order_key").arg(&row.key).arg("unique_id").arg(&row.unique_id);
        added.arg("flag").arg(row.flag).arg("properties").arg(&row.properties).arg("body").arg(&row.body[..]);
        added.arg("bytes").arg(row.bytes()).arg("created_at").arg(clock::wall_ms()).ignore();
        Ok(row.unique_id)
    }

    /// Tells relays of this process that there are new rows. They find them within a second all the same.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// A relay that sends with this producer. Its [`slots`](super::RelayStats::slots) are 128 while it has the lease.
    pub fn relay(&self, producer: &Producer) -> RelayBuilder {
        let (outbox, producer) = (self.clone(), producer.clone());
        RelayBuilder::new(move |settings| {
            let relaying = Relaying { keys: outbox.keys, relay: unique_id().to_string().into() };
            Relay::start(settings, producer, outbox.wake, relaying.clone(), relaying)
        })
    }

    /// Rows: one slot after the other, and in each in the order of their ids. The messages of a key are in one slot.
    ///
    /// # Errors
    ///
    /// That of Redis.
    pub async fn list(&self, query: &OutboxQuery) -> Result<Vec<OutboxRow>, RedisError> {
        let states = query.state.map_or(OutboxState::ALL.to_vec(), |state| vec![state]);
        let limit = query.limit() as usize;
        let (first, mut after) = place(query.after);
        let mut rows = Vec::new();
        for slot in first..SLOTS {
            let found = self.keys.list((slot, after), &states, limit - rows.len()).await?;
            rows.extend(found.into_iter().map(OutboxRow::from));
            if rows.len() >= limit {
                break;
            }
            after = 0;
        }
        Ok(rows)
    }

    /// One row.
    ///
    /// # Errors
    ///
    /// That of Redis.
    pub async fn find(&self, id: i64) -> Result<Option<OutboxRow>, RedisError> {
        Ok(self.keys.find(id).await?.map(OutboxRow::from))
    }

    /// The message of a row.
    ///
    /// # Errors
    ///
    /// That of Redis, or what is wrong with a row that somebody else has written.
    pub async fn message(&self, id: i64) -> Result<Option<Message>, RedisError> {
        let Some(seen) = self.keys.find(id).await? else { return Ok(None) };
        let body = self.keys.body(id).await?.unwrap_or_default();
        let damaged = |reason| RedisError::from((ErrorKind::Parse, "the row is damaged", reason));
        seen.work.message(body).map(Some).map_err(damaged)
    }

    /// How many rows are in each state.
    ///
    /// # Errors
    ///
    /// That of Redis.
    pub async fn count(&self) -> Result<BTreeMap<OutboxState, u64>, RedisError> {
        let slots: Vec<i64> = (0..SLOTS).collect();
        let mut counted = BTreeMap::new();
        for state in OutboxState::ALL {
            let count = self.keys.ask(self.keys.call(scripts::COUNT).arg(state.word()).arg(&slots)).await?;
            if count > 0 {
                counted.insert(state, count);
            }
        }
        Ok(counted)
    }

    /// Lets a failed row be sent again, with all its attempts before it, and lets those go that it held back. Says whether there
    /// was a failed one of this id.
    ///
    /// # Errors
    ///
    /// That of Redis; trying again is safe.
    pub async fn requeue(&self, id: i64) -> Result<bool, RedisError> {
        self.release(id, true).await
    }

    /// Deletes a failed row, and lets those go that it held back. Its message is never sent. Says whether there was a failed one of
    /// this id.
    ///
    /// # Errors
    ///
    /// That of Redis; trying again is safe.
    pub async fn discard(&self, id: i64) -> Result<bool, RedisError> {
        self.release(id, false).await
    }

    async fn release(&self, id: i64, again: bool) -> Result<bool, RedisError> {
        let (slot, seq) = place(id);
        let mut call = self.keys.call(scripts::RELEASE);
        let released: u8 = self.keys.ask(call.arg(slot).arg(seq).arg(u8::from(again))).await?;
        self.wake();
        Ok(released == 1)
    }
}
