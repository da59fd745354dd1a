//! Scripts in Redis, on a connection of the user's.

use std::io;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, RedisError, cmd};
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// The call of a script, which in a cluster goes where `key` is.
pub(crate) fn call(script: &str, key: &str) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(script).arg(1).arg(key);
    call
}

/// A script may be run twice, so an answer that was lost or is late is one error as others are.
pub(crate) async fn ask<C, T>(connection: &C, call: &Cmd) -> Result<T, RedisError>
where
    C: ConnectionLike + Clone,
    T: FromRedisValue,
{
    let mut connection = connection.clone();
    let late = |_| {
        let said = format!("Redis did not answer within {ANSWER:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, said).into())
    };
    timeout(ANSWER, call.query_async(&mut connection)).await.unwrap_or_else(late)
}

/// Whole milliseconds, at least one, and no more than Redis can add to its clock.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}
