//! Marks in Redis, each by one script, so that nothing comes between looking and writing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue};

use super::{Begun, MarkStore, StoreError};
use crate::script::{self, millis};

/// The beginning of the keys.
const PREFIX: &str = "escrowmq:mark:";

/// The word of a mark whose effect is there. A token is no such word.
const DONE: &str = "done";

/// Leases to a token, or renews. Answers 0: leased, 1: done, 2: busy, and for how many milliseconds.
const BEGIN: &str = "\
local there = redis.call('GET', KEYS[1])
if there == 'done' then return {1, 0} end
if there and there ~= ARGV[1] then return {2, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {0, 0}";

/// Marks as done. Answers whether nobody else had leased or done it.
const MARK: &str = "\
local there = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], 'done', 'PX', ARGV[2])
if not there or there == ARGV[1] then return 1 end
return 0";

/// Ends the lease of a token.
const GIVE_UP: &str = "\
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// Marks in Redis, version 2.6.12 or later. Cheap to clone. [The module](crate::idempotent) says what it promises, and what it does not.
///
/// The connection should connect again by itself, as redis' `ConnectionManager` does, or a cluster's.
#[derive(Clone)]
pub struct RedisStore<C> {
    connection: C,
    prefix: Arc<str>,
}

impl<C> fmt::Debug for RedisStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisStore<C> {
    /// Marks under keys that begin with `escrowmq:mark:`.
    pub fn new(connection: C) -> RedisStore<C> {
        RedisStore { connection, prefix: PREFIX.into() }
    }

    /// The beginning of the keys. Default `escrowmq:mark:`. The consumer group and the message's key follow.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn script(&self, script: &str, key: &str) -> Cmd {
        script::call(script, &format!("{}{key}", self.prefix))
    }

    async fn ask<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, StoreError> {
        Ok(script::ask(&self.connection, call).await?)
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> MarkStore for RedisStore<C> {
    async fn begin(&self, key: &str, token: &str, lease: Duration) -> Result<Begun, StoreError> {
        debug_assert_ne!(token, DONE);
        let mut call = self.script(BEGIN, key);
        call.arg(token).arg(millis(lease));
        match self.ask::<(u8, i64)>(&call).await? {
            (0, _) => Ok(Begun::Leased),
            (1, _) => Ok(Begun::Done),
            (_, left) => Ok(Begun::Busy { left: Duration::from_millis(left.max(0).unsigned_abs()) }),
        }
    }

    async fn done(&self, key: &str, token: &str, keep: Duration) -> Result<bool, StoreError> {
        let mut call = self.script(MARK, key);
        call.arg(token).arg(millis(keep));
        Ok(self.ask::<u8>(&call).await? == 1)
    }

    async fn give_up(&self, key: &str, token: &str) -> Result<(), StoreError> {
        let mut call = self.script(GIVE_UP, key);
        call.arg(token);
        self.ask::<u8>(&call).await.map(drop)
    }
}
