//! The outbox: messages that are written in your own transaction, and sent afterwards.
//!
//! A message that is added is sent if your transaction commits, and never if it does not. It is sent **at least once**: under the
//! same unique id on every try, so a consumer that keeps that id has its effect once. A broker stores it once where the topic has a
//! duplicate window (`duplicate.window.seconds`, off by default, and not with Apache RocketMQ) and the repeat comes within it.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use escrowmq_client::{Client, Message, Outbox};
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/shop").await?;
//! let outbox = Outbox::new(pool.clone());
//! outbox.create_tables().await?; // or Outbox::<sqlx::Postgres>::definition(..) in a migration of yours
//!
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//! let producer = client.producer("orders").start().await?;
//! let relay = outbox.relay(&producer).start()?; // here, or in a process of its own, or in several
//!
//! let mut tx = pool.begin().await?;
//! sqlx::query("INSERT INTO orders (number) VALUES (17)").execute(&mut *tx).await?;
//! outbox.add(&mut tx, Message::new("Orders", "order 17").sharding_key("customer-3")).await?;
//! outbox.commit(tx).await?; // both, or neither
//!
//! relay.shutdown().await;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! # Promises
//!
//! * **No row without its message, no message without its row**, whatever process dies at whatever point: the row is part of your
//!   transaction, and goes only when a broker has confirmed its message.
//! * **Messages of one sharding key are sent in order**: in that of their ids, which is the order of the transactions that the
//!   database ran one after the other. Of two that ran at the same time either may come first. Others need no order.
//! * **Nothing that waits is missed.** Numbers of rows commit out of order, so relays look for all that waits and remember no
//!   place up to which everything was sent.
//! * **No row fails by time.** Brokers that are away, busy or without a route use up no attempt; the relay tries again, after 30 s
//!   at most, and says how old the oldest row is. A row that brokers refuse for what it is fails after
//!   [`max_attempts`](RelayBuilder::max_attempts), keeps the last error for a person, and holds its key back until that person
//!   has [requeued](Outbox::requeue) or [discarded](Outbox::discard) it ([`OnFailed`]).
//! * **Two relays do not send one row**, as long as each of them runs: work is shared by slots, and a slot is leased by the
//!   clock of the database. A process that stands still for longer than its lease, and then goes on, may send again what
//!   another one has sent meanwhile: under the same id, and possibly after newer ones of its key.
//!
//! # What it needs of you
//!
//! * Commits must be durable, as for the [barrier](crate::transaction::barrier).
//! * SQLite: a pool with `journal_mode(Wal)`, a busy timeout, and transactions that begin with `BEGIN IMMEDIATE`. One relay does
//!   all the work; others stand by.
//! * PostgreSQL: relays hear of new rows at once by LISTEN on a connection of their own. Behind a pooler that mixes sessions, and
//!   with the other databases, another process finds them within a second.
//! * MySQL and MariaDB: InnoDB.
//! * One set of tables for each cluster of brokers. Several outboxes in a database have a [`table`](OutboxBuilder::table) each.
//!
//! # The tables
//!
//! `escrowmq_outbox` has a row for each message: `id`, `state` (`waiting`, `held`, `failed`, `sent`), `tenant`, `topic`,
//! `order_key` (the sharding key), `unique_id`, `properties` (JSON), `body`, `bytes`, `attempts`, `last_error`, `created_at`,
//! `changed_at` (UTC). `escrowmq_outbox_slots` says which relay owns which slot until when, `escrowmq_outbox_relays` who is there, and
//! `escrowmq_schema` which version of the tables this is.

mod builder;
mod error;
mod lease;
mod people;
mod relay;
mod row;
mod sending;
mod slots;
mod store;
mod tables;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use escrowmq_common::task::Tasks;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Pool, Transaction};
use tokio::sync::Notify;

pub use builder::OutboxBuilder;
pub use error::{AddError, CommitError};
pub use people::OutboxQuery;
pub use relay::{OnFailed, Relay, RelayBuilder, RelayStats};
pub use row::{OutboxRow, OutboxState};

use crate::message::Message;
use crate::producer::Producer;
use crate::sql::tables::Checked;
use crate::sql::{Dialect, is_contention};
use row::NewRow;
use store::Statements;

/// Connections of a relay's own: its work, its leases, and what it hears. Two relays that shared them would keep each other from
/// renewing their leases.
const RELAY_CONNECTIONS: u32 = 3;
/// The one on which other processes are told of new rows.
const TELL_CONNECTIONS: u32 = 1;
const OWN_CONNECTION_WAIT: Duration = Duration::from_secs(10);
const OWN_CONNECTION_IDLE: Duration = Duration::from_secs(60);
/// Other processes are told of new rows no more often than this.
const NOTIFY_EVERY: Duration = Duration::from_millis(10);

/// A database that can hold an outbox: `sqlx::Sqlite`, `sqlx::Postgres` and `sqlx::MySql`, each behind a feature of this crate.
pub trait OutboxDatabase: Dialect {}

impl<DB: Dialect> OutboxDatabase for DB {}

/// An outbox in one database. Cheap to clone; clones share everything. The module says what it promises.
pub struct Outbox<DB: OutboxDatabase> {
    shared: Arc<Shared<DB>>,
}

struct Shared<DB: OutboxDatabase> {
    /// The user's, for what people do.
    pool: Pool<DB>,
    /// Of the outbox's own, as are those of its relays: they never wait for a connection that a transaction of the user's holds.
    telling: Pool<DB>,
    table: String,
    tenant: String,
    /// The name under which other processes are told of new rows.
    channel: String,
    statements: Statements,
    /// There may be new rows.
    wake: Notify,
    /// Other processes are to be told so.
    tell: Notify,
    tells: OnceLock<()>,
    tasks: Tasks,
}

/// Up to `count` connections beside those of `pool`, made as it makes its own: its hooks may choose a schema or a role.
fn beside<DB: OutboxDatabase>(pool: &Pool<DB>, count: u32) -> Pool<DB> {
    let options = pool.options().clone().min_connections(0).max_connections(count);
    let options = options.acquire_timeout(OWN_CONNECTION_WAIT).idle_timeout(OWN_CONNECTION_IDLE);
    options.connect_lazy_with(pool.connect_options().as_ref().clone())
}

/// A connection for a relay.
async fn connection<DB: OutboxDatabase>(own: &Pool<DB>) -> Result<PoolConnection<DB>, sqlx::Error> {
    let mut connection = own.acquire().await?;
    DB::prepare(&mut connection).await?;
    Ok(connection)
}

impl<DB: OutboxDatabase> Clone for Outbox<DB> {
    fn clone(&self) -> Self {
        Outbox { shared: Arc::clone(&self.shared) }
    }
}

impl<DB: OutboxDatabase> fmt::Debug for Outbox<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("database", &DB::NAME).field("table", &self.shared.table).finish_non_exhaustive()
    }
}

impl<DB: OutboxDatabase> Outbox<DB> {
    /// The outbox in the database of `pool`, in the table `escrowmq_outbox`. Call it within a Tokio runtime, as sqlx wants it for
    /// its pools. Connects to nothing by itself.
    pub fn new(pool: Pool<DB>) -> Outbox<DB> {
        Outbox::with_settings(pool, builder::TABLE.to_owned(), String::new())
    }

    /// The outbox with settings of your own.
    pub fn builder(pool: Pool<DB>) -> OutboxBuilder<DB> {
        OutboxBuilder::new(pool)
    }

    fn with_settings(pool: Pool<DB>, table: String, tenant: String) -> Outbox<DB> {
        let statements = Statements::new(&table, DB::SPELLING);
        Outbox {
            shared: Arc::new(Shared {
                channel: table.replace('.', "_"),
                telling: beside(&pool, TELL_CONNECTIONS),
                pool,
                table,
                tenant,
                statements,
                wake: Notify::new(),
                tell: Notify::new(),
                tells: OnceLock::new(),
                tasks: Tasks::new(),
            }),
        }
    }

    /// Creates the tables that are not there. Running it again changes nothing, also when several processes do so.
    ///
    /// # Errors
    ///
    /// The database's error; trying again is safe.
    pub async fn create_tables(&self) -> Result<(), sqlx::Error> {
        tables::tables::<DB>(&self.shared.table).create(&self.shared.pool).await
    }

    /// Whether the tables are there, in the version that this program knows. A relay looks by itself.
    ///
    /// # Errors
    ///
    /// [`sqlx::Error::Configuration`] if they are not; else the database's.
    pub async fn check_tables(&self) -> Result<(), sqlx::Error> {
        Checked::default().check(&self.shared.pool, || tables::tables::<DB>(&self.shared.table)).await
    }

    /// The definition of the tables in SQL, for a migration of yours. `table` may be qualified by a schema.
    pub fn definition(table: &str) -> String {
        tables::tables::<DB>(table).definition()
    }

    /// Adds a message to your transaction, and answers its unique id. It is sent once the transaction has committed.
    ///
    /// # Errors
    ///
    /// See [`AddError`]. A message that no broker would take is refused here, where its transaction can still be rolled back.
    pub async fn add(&self, connection: &mut DB::Connection, message: Message) -> Result<String, AddError> {
        let row = NewRow::of(message)?;
        let added = self.shared.statements.add::<DB>(connection, &self.shared.tenant, &row).await;
        added.map_err(|error| AddError::Database { retryable: is_contention::<DB>(&error), error })?;
        Ok(row.unique_id)
    }

    /// Commits a transaction that has messages, and wakes the relays.
    ///
    /// # Errors
    ///
    /// See [`CommitError`].
    pub async fn commit(&self, transaction: Transaction<'_, DB>) -> Result<(), CommitError> {
        let committed = transaction.commit().await.map_err(CommitError::of::<DB>);
        // Also if nobody knows.
        self.wake();
        committed
    }

    /// Tells relays that there are new rows, after a commit of your own, within a Tokio runtime. They find them within a second all
    /// the same.
    pub fn wake(&self) {
        let shared = &self.shared;
        shared.wake.notify_one();
        if !DB::TELLS {
            return;
        }
        shared.tells.get_or_init(|| {
            let weak = Arc::downgrade(shared);
            shared.tasks.spawn("outbox teller", tell(weak));
        });
        shared.tell.notify_one();
    }

    /// A relay that sends with this producer.
    pub fn relay(&self, producer: &Producer) -> RelayBuilder<DB> {
        RelayBuilder::new(self.clone(), producer.clone())
    }

    /// Rows, in the order of their ids.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn list(&self, query: &OutboxQuery) -> Result<Vec<OutboxRow>, sqlx::Error> {
        let mut connection = self.shared.pool.acquire().await?;
        self.shared.statements.list::<DB>(&mut connection, query).await
    }

    /// One row.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn find(&self, id: i64) -> Result<Option<OutboxRow>, sqlx::Error> {
        let mut connection = self.shared.pool.acquire().await?;
        self.shared.statements.find::<DB>(&mut connection, id).await
    }

    /// The message of a row.
    ///
    /// # Errors
    ///
    /// The database's, or what is wrong with a row that somebody else has written.
    pub async fn message(&self, id: i64) -> Result<Option<Message>, sqlx::Error> {
        let mut connection = self.shared.pool.acquire().await?;
        let Some(work) = self.shared.statements.work::<DB>(&mut connection, id).await? else { return Ok(None) };
        let body = work.body.clone().unwrap_or_default();
        work.message(body).map(Some).map_err(|reason| sqlx::Error::Decode(reason.into()))
    }

    /// How many rows are in each state.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn count(&self) -> Result<BTreeMap<OutboxState, u64>, sqlx::Error> {
        let mut connection = self.shared.pool.acquire().await?;
        let counted = self.shared.statements.count::<DB>(&mut connection).await?;
        let known = |(word, count): (String, i64)| Some((OutboxState::from_word(&word)?, count.unsigned_abs()));
        Ok(counted.into_iter().filter_map(known).collect())
    }

    /// Lets a failed row be sent again, with all its attempts before it, and lets those go that it held back. Says whether there
    /// was a failed one of this id.
    ///
    /// # Errors
    ///
    /// The database's; trying again is safe.
    pub async fn requeue(&self, id: i64) -> Result<bool, sqlx::Error> {
        self.release(id, true).await
    }

    /// Deletes a failed row, and lets those go that it held back. Its message is never sent. Says whether there was a failed one of
    /// this id.
    ///
    /// # Errors
    ///
    /// The database's; trying again is safe.
    pub async fn discard(&self, id: i64) -> Result<bool, sqlx::Error> {
        self.release(id, false).await
    }

    async fn release(&self, id: i64, again: bool) -> Result<bool, sqlx::Error> {
        let statements = &self.shared.statements;
        let mut connection = self.shared.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let Some(row) = statements.find::<DB>(&mut transaction, id).await? else { return Ok(false) };
        let changed = if again {
            statements.requeue::<DB>(&mut transaction, id).await?
        } else {
            statements.discard::<DB>(&mut transaction, id).await?
        };
        // All at once, so that a relay sees them in their order.
        let slot = row::slot(&row.key, &row.unique_id);
        let failed = statements.keys::<DB>(&mut transaction, OutboxState::Failed, slot).await?;
        if changed && !row.key.is_empty() && !failed.contains(&row.key) {
            statements.let_go::<DB>(&mut transaction, slot, &row.key).await?;
        }
        transaction.commit().await?;
        self.wake();
        Ok(changed)
    }
}

/// Tells other processes, until the outbox is gone.
async fn tell<DB: OutboxDatabase>(outbox: Weak<Shared<DB>>) {
    loop {
        let Some(shared) = outbox.upgrade() else { return };
        let told = tokio::time::timeout(OWN_CONNECTION_IDLE, shared.tell.notified()).await;
        if told.is_ok()
            && let Err(error) = DB::notify(&shared.telling, &shared.channel).await
        {
            tracing::debug!(%error, "other relays are not told of new rows; they find them within a second");
        }
        drop(shared);
        tokio::time::sleep(NOTIFY_EVERY).await;
    }
}
