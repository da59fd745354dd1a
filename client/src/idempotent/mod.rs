//! Handlers that have their effect once, however often a message comes.
//!
//! A message comes again after a crash, a rebalance or a lost acknowledgement, and a producer may have sent it twice. Here a **mark** is
//! written in the same transaction of your database as the handler's own rows: both commit, or neither.
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
//! let handler = Idempotent::new(store, "billing").in_db_once(|mut tx, message| async move {
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
//! # Promises
//!
//! * **The effect is there once**, as far as it is rows of that database: also if two instances get the message at the same time,
//!   and if a process dies at any step. The second one waits for the first one's transaction, and then finds its mark or does the
//!   work.
//! * **A mark names the message**: consumer group, topic, unique id (that of the original, over all retries) and a checksum of the
//!   body, since ids repeat in the field. [`key_by`](Idempotent::key_by) takes a name of yours instead, where one key is one effect.
//! * **Marks go after [`keep`](Idempotent::keep)**, 7 days by default, in bounded steps. Keep them for longer than a message may be
//!   stored and retried: a message that comes later than that is new.
//!
//! # What it needs of you
//!
//! * Do everything in the transaction that the handler gets, and leave ending it to this. What it does elsewhere (a mail, a request)
//!   may happen again.
//! * Commits must be durable, as for the [barrier](crate::transaction::barrier).

mod sql_store;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::message::body_crc;
use escrowmq_common::message::properties::name;

pub use sql_store::{OnceError, SqlStore};

use crate::message::MessageExt;
use crate::sql::Dialect;
use crate::transaction::barrier::LocalTransaction;

/// How long marks stay if nothing else is said.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Characters of a key. Longer ones are cut, and told apart by their length and checksum.
const KEY_CHARS_MAX: usize = 480;

type KeyBy = Box<dyn Fn(&MessageExt) -> String + Send + Sync>;

/// Makes handlers idempotent. The module says what it promises.
pub struct Idempotent<S> {
    store: S,
    group: String,
    key_by: KeyBy,
    keep: Duration,
}

impl<S: fmt::Debug> fmt::Debug for Idempotent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotent").field("store", &self.store).field("group", &self.group).finish_non_exhaustive()
    }
}

/// The future of an idempotent handler.
pub type OnceFuture<E> = Pin<Box<dyn Future<Output = Result<(), OnceError<E>>> + Send>>;

impl<S> Idempotent<S> {
    /// Marks are kept in `store`, for this consumer group.
    pub fn new(store: S, group: impl Into<String>) -> Idempotent<S> {
        Idempotent { store, group: group.into(), key_by: Box::new(key), keep: KEEP }
    }

    /// Two messages with the same answer are one effect. Default: topic, unique id and checksum of the body.
    #[must_use]
    pub fn key_by(mut self, key: impl Fn(&MessageExt) -> String + Send + Sync + 'static) -> Self {
        self.key_by = Box::new(key);
        self
    }

    /// How long marks stay. Default 7 days.
    #[must_use]
    pub fn keep(mut self, time: Duration) -> Self {
        self.keep = time;
        self
    }

    fn key(&self, message: &MessageExt) -> String {
        bounded((self.key_by)(message))
    }
}

impl<DB: Dialect> Idempotent<SqlStore<DB>> {
    /// A handler for a push consumer: runs `handler` in a transaction of the database, unless a mark says that it has been.
    ///
    /// # Errors
    ///
    /// The handler's future ends with an [`OnceError`] if the message has to come again.
    pub fn in_db_once<F, R, E>(self, handler: F) -> impl Fn(MessageExt) -> OnceFuture<E> + Send + Sync + 'static
    where
        F: Fn(LocalTransaction<DB>, MessageExt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
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
}
