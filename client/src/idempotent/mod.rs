//! Handlers that have their effect once, however often a message comes.
//!
//! A message comes again after a crash, a rebalance or a lost acknowledgement, and a producer may have sent it twice. A **mark** says
//! that its effect is there. Where the mark is decides what can be promised:
//!
//! | store | effect | promise |
//! | --- | --- | --- |
//! | [`SqlStore`] (features `sqlite`, `postgres`, `mysql`) with [`in_db_once`](Idempotent::in_db_once) | rows of the same database | **once**: mark and rows commit together |
//! | [`RedisStore`] (feature `redis`) with [`once`](Idempotent::once) | anything, anywhere | at least once, and once as long as nothing dies or stands still at the wrong moment (see below) |
//! | [`MemoryStore`] with `once` | anything, in this process | the same, and nothing after the end of the process |
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use escrowmq_client::{Client, Idempotent, SqlStore};
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/billing").await?;
//! let store = SqlStore::new(pool);
//! store.create_tables().await?; // or SqlStore::<sqlx::Postgres>::definition(..) in a migration of yours
//!
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//! let idempotent = Idempotent::new(store, "billing");
//! idempotent.check(&client).await?; // do marks stay as long as messages may come again?
//! let handler = idempotent.in_db_once(|mut tx, message| async move {
//!     let bill = "INSERT INTO bills (of_order) VALUES ($1)";
//!     sqlx::query(bill).bind(&message.body()[..]).execute(&mut **tx).await?;
//!     Ok::<(), sqlx::Error>(())
//! });
//! let consumer = client.push_consumer("billing").subscribe("Orders", "*").start(handler).await?;
//! # drop(consumer);
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # Promises of the mark in the same database
//!
//! * **The effect is there once**, as far as it is rows of that database: also if two instances get the message at the same time,
//!   and if a process dies at any step. The second one waits for the first one's transaction, and then finds its mark or does the
//!   work.
//! * **A mark names the message**: consumer group, topic, unique id (that of the original, over all retries) and a checksum of the
//!   body, since ids repeat in the field. [`key_by`](Idempotent::key_by) takes a name of yours instead, where one key is one effect.
//! * **Marks go after [`keep`](Idempotent::keep)**, 7 days by default, in bounded steps. A message that comes later than that is new:
//!   [`check`](Idempotent::check) compares it with what the brokers say of their retention and retries.
//!
//! What it needs of you:
//!
//! * Do everything in the transaction that the handler gets, and leave ending it to this. What it does elsewhere (a mail, a request)
//!   may happen again.
//! * Commits must be durable, as for the [barrier](crate::transaction::barrier).
//!
//! # Promises of a mark with a lease
//!
//! [`once`](Idempotent::once) leases the message's key in the store, runs the handler while it renews the lease, and then writes
//! the mark. Effect and mark are in two places, and so this is weaker:
//!
//! * **No message is lost.** A message is acknowledged only after its handler has succeeded, here or elsewhere, and its mark is
//!   written. While the store is away the handler is not called, and the message comes again.
//! * **One at a time**, as long as processes run: while a key is leased elsewhere, the answer is [`OnceError::Busy`], and the message
//!   comes again. That uses up one of the tries that the consumer group has (16).
//! * **The effect happens again after a death between effect and mark**: the process, or the store before it has kept the mark. Let
//!   the effect bear that, by the message's key as an idempotency key, for example, or by a version as below.
//! * **Two may work at the same time if a process stands still for longer than its lease**
//!   ([`lease`](Idempotent::lease), 30 s) in the middle of the handler. When it goes on the handler is stopped at its next await. So
//!   is one whose lease cannot be renewed because the store is away.
//! * **A mark can be lost with its store.** Redis loses the last second with `appendfsync everysec`, what a replica has not got yet
//!   when it takes over, and whatever it evicts: use `maxmemory-policy noeviction`, and `appendfsync always` where it matters.
//!   A lost mark is a message that may have its effect again.
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # mod example {
//! use escrowmq_client::{Client, Idempotent, RedisStore};
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = redis::Client::open("redis://localhost")?.get_connection_manager().await?;
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//! let handler = Idempotent::new(RedisStore::new(connection), "mailing").once(|message| async move {
//!     println!("a mail about {:?}", message.body());
//!     Ok::<(), std::io::Error>(())
//! });
//! let consumer = client.push_consumer("mailing").subscribe("Orders", "*").start(handler).await?;
//! # drop(consumer);
//! # Ok(())
//! # }
//! # }
//! ```
#![cfg_attr(feature = "sqlite", doc = include_str!("version.md"))]

mod error;
mod keep;
#[cfg(feature = "tower")]
mod layer;
mod leased;
mod memory_store;
#[cfg(feature = "redis")]
mod redis_store;
#[cfg(feature = "sql")]
mod sql_store;
mod store;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::message::body_crc;
use escrowmq_common::message::properties::name;

pub use error::OnceError;
pub use keep::KeepError;
#[cfg(feature = "tower")]
pub use layer::{Once, OnceLayer};
pub use memory_store::MemoryStore;
#[cfg(feature = "redis")]
pub use redis_store::RedisStore;
#[cfg(feature = "sql")]
pub use sql_store::SqlStore;
pub use store::{Begun, MarkStore, StoreError};

use crate::client::Client;
use crate::consumer::Verdict;
use crate::message::MessageExt;

/// How long marks stay if nothing else is said.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a lease is if nothing else is said, and at least.
const LEASE: Duration = Duration::from_secs(30);
const LEASE_MIN: Duration = Duration::from_secs(1);

/// Characters of a key. Longer ones are cut, and told apart by their length and checksum.
const KEY_CHARS_MAX: usize = 480;

type KeyBy = Box<dyn Fn(&MessageExt) -> String + Send + Sync>;

/// Makes handlers idempotent. The module says what it promises.
pub struct Idempotent<S> {
    store: S,
    group: String,
    key_by: KeyBy,
    keep: Duration,
    lease: Duration,
}

impl<S: fmt::Debug> fmt::Debug for Idempotent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotent").field("store", &self.store).field("group", &self.group).finish_non_exhaustive()
    }
}

/// The future of an idempotent handler.
pub type OnceFuture<E> = Pin<Box<dyn Future<Output = Result<Verdict, OnceError<E>>> + Send>>;

impl<S> Idempotent<S> {
    /// Marks are kept in `store`, for this consumer group.
    pub fn new(store: S, group: impl Into<String>) -> Idempotent<S> {
        Idempotent { store, group: group.into(), key_by: Box::new(key), keep: KEEP, lease: LEASE }
    }

    /// Two messages with the same answer are one effect. Default: topic, unique id and checksum of the body.
    #[must_use]
    pub fn key_by(mut self, key: impl Fn(&MessageExt) -> String + Send + Sync + 'static) -> Self {
        self.key_by = Box::new(key);
        self
    }

    /// How long marks stay. Default 7 days. No shorter than messages may come again: see [`check`](Self::check).
    #[must_use]
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = time;
        self
    }

    /// For [`once`](Self::once): how long a message of a process that is gone waits for others, and how long a process may stand
    /// still. Renewed while a handler runs. Default 30 s; less than a second counts as one.
    #[must_use]
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time.max(LEASE_MIN);
        self
    }

    /// Asks all brokers for how long a message may come again: the time that they store it, and the 16 retries that a group has
    /// unless it is told otherwise. A program calls it once, before it consumes.
    ///
    /// # Errors
    ///
    /// [`KeepError::TooShort`] if marks go before that, [`KeepError::NotTold`] if a broker does not say.
    pub async fn check(&self, client: &Client) -> Result<(), KeepError> {
        keep::check(client, self.keep).await
    }

    fn key(&self, message: &MessageExt) -> String {
        bounded((self.key_by)(message))
    }

    /// With the group in front, for a store that knows none.
    fn whole_key(&self, message: &MessageExt) -> String {
        // No group that a broker knows has a slash.
        format!("{}/{}", self.group, self.key(message))
    }
}

impl<S: MarkStore> Idempotent<S> {
    /// A handler for a push consumer: runs `handler` while it has the lease of the message's key, unless a mark says that it has
    /// been. [The module](self) says what this promises, and what it does not.
    ///
    /// After a [`Verdict`] other than `Done` there is no mark. A consumer drops a handler that takes too long. The key is then busy until its lease ends.
    ///
    /// # Errors
    ///
    /// The handler's future ends with an [`OnceError`] if the message has to come again.
    pub fn once<F, R, V, E>(self, handler: F) -> impl Fn(MessageExt) -> OnceFuture<E> + Send + Sync + 'static
    where
        F: Fn(MessageExt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Verdict> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let (this, handler) = (Arc::new(self), Arc::new(handler));
        move |message| {
            let (this, handler) = (Arc::clone(&this), Arc::clone(&handler));
            Box::pin(async move {
                let key = this.whole_key(&message);
                leased::once(&this.store, &key, this.lease, this.keep, || handler(message)).await
            })
        }
    }
}

#[cfg(feature = "sql")]
impl<DB: crate::sql::Dialect> Idempotent<SqlStore<DB>> {
    /// A handler for a push consumer: runs `handler` in a transaction of the database, unless a mark says that it has been. A
    /// [`Verdict`] other than `Done` rolls the transaction back, as an error does.
    ///
    /// # Errors
    ///
    /// The handler's future ends with an [`OnceError`] if the message has to come again.
    pub fn in_db_once<F, R, V, E>(self, handler: F) -> impl Fn(MessageExt) -> OnceFuture<E> + Send + Sync + 'static
    where
        F: Fn(crate::LocalTransaction<DB>, MessageExt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Verdict> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let (this, handler) = (Arc::new(self), Arc::new(handler));
        move |message| {
            let (this, handler) = (Arc::clone(&this), Arc::clone(&handler));
            Box::pin(async move {
                let key = this.key(&message);
                this.store.once(&this.group, &key, this.keep, |tx| handler(tx, message)).await
            })
        }
    }
}

/// The usual key.
fn key(message: &MessageExt) -> String {
    let id = message.property(name::UNIQUE_KEY).or_else(|| message.property(name::ORIGIN_MESSAGE_ID));
    let id = id.map_or_else(|| message.message_id(), str::to_owned);
    format!("{}/{id}/{:08x}", message.topic(), body_crc(message.body()))
}

fn bounded(key: String) -> String {
    if key.chars().count() <= KEY_CHARS_MAX {
        return key;
    }
    let beginning: String = key.chars().take(KEY_CHARS_MAX - 32).collect();
    format!("{beginning}/{}/{:08x}", key.len(), body_crc(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::message::testing::delivered;

    #[test]
    fn a_key_names_topic_and_body_and_long_ones_stay_apart() {
        let one = key(&delivered("T", 0, b"a"));
        assert_eq!(one, key(&delivered("T", 0, b"a")));
        assert_ne!(one, key(&delivered("U", 0, b"a")));
        assert_ne!(one, key(&delivered("T", 0, b"b")));
        let (long, other) = ("ü".repeat(600), format!("{}a", "ü".repeat(599)));
        assert!(bounded(long.clone()).chars().count() <= KEY_CHARS_MAX);
        assert_ne!(bounded(long.clone()), bounded(other));
        assert_eq!(bounded(long.clone()), bounded(long));
        assert_eq!(bounded("short".into()), "short");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_handled_once_for_each_group() {
        let (store, calls) = (MemoryStore::new(), Arc::new(AtomicU32::new(0)));
        let handler = |group: &str| {
            let calls = Arc::clone(&calls);
            Idempotent::new(store.clone(), group).lease(Duration::ZERO).once(move |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                async { Ok::<(), String>(()) }
            })
        };
        let (one, other) = (handler("g"), handler("h"));
        for _ in 0..2 {
            one(delivered("T", 0, b"a")).await.expect("done");
            other(delivered("T", 0, b"a")).await.expect("done");
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
