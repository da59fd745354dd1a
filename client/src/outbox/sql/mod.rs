//! The outbox in a database that speaks SQL. What the database does is in transactions, and the statements are the same for all.

mod builder;
mod error;
mod people;
mod rows;
mod slots;
mod store;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use escrowmq_common::message::unique_id;
use escrowmq_common::task::{Shutdown, Tasks};
use sqlx::pool::PoolConnection;
use sqlx::{Pool, Transaction};
use tokio::sync::Notify;

pub use builder::OutboxBuilder;
pub use error::CommitError;

use super::row::{NewRow, OutboxQuery, OutboxRow, OutboxState, slot};
use super::{AddError, Relay, RelayBuilder};
use crate::message::Message;
use crate::producer::Producer;
use crate::sql::tables::Checked;
use crate::sql::{Dialect, begin, is_contention};
use rows::{SqlLeases, SqlRows};
use store::Statements;

/// Connections of a relay's own: its work, its leases, and what it hears. Two relays that shared them would keep each other from
/// renewing their leases.
const RELAY_CONNECTIONS: u32 = 3;
/// The one on which other processes are told of new rows.
const TELL_CONNECTIONS: u32 = 1;
const OWN_CONNECTION_WAIT: Duration = Duration::from_secs(10);
const OWN_CONNECTION_IDLE: Duration = Duration::from_secs(60);
/// After a failure a relay listens again after this time.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Other processes are told of new rows no more often than this.
const NOTIFY_EVERY: Duration = Duration::from_millis(10);

/// A database that can hold an outbox: `sqlx::Sqlite`, `sqlx::Postgres` and `sqlx::MySql`, each behind a feature of this crate.
pub trait OutboxDatabase: Dialect {}

impl<DB: Dialect> OutboxDatabase for DB {}

/// An outbox in one database. Cheap to clone; clones share everything. [The module](super) says what it promises.
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
    wake: Arc<Notify>,
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
                wake: Arc::default(),
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
    pub fn relay(&self, producer: &Producer) -> RelayBuilder {
        let (shared, producer) = (Arc::clone(&self.shared), producer.clone());
        RelayBuilder::new(move |settings| {
            let own = beside(&shared.pool, RELAY_CONNECTIONS);
            let rows = SqlRows::new(Arc::clone(&shared), own.clone());
            let relay = unique_id().to_string();
            let leases =
                SqlLeases { shared: Arc::clone(&shared), own: own.clone(), relay, checked: Checked::default() };
            let wake = Arc::clone(&shared.wake);
            let relay = Relay::start(settings, producer, wake, rows, leases);
            relay.tasks.spawn("outbox listener", hear(shared, own, relay.shutdown.clone()));
            relay
        })
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
        // As one that writes from the start: a relay may write between its reads and its writes.
        let mut transaction = begin(&self.shared.pool, DB::BEGIN).await?;
        let Some(row) = statements.find::<DB>(&mut transaction, id).await? else { return Ok(false) };
        let changed = if again {
            statements.requeue::<DB>(&mut transaction, id).await?
        } else {
            statements.discard::<DB>(&mut transaction, id).await?
        };
        // All at once, so that a relay sees them in their order.
        let slot = slot(&row.key, &row.unique_id);
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

/// Wakes a relay when other processes tell of new rows, until shutdown.
async fn hear<DB: OutboxDatabase>(shared: Arc<Shared<DB>>, own: Pool<DB>, stop: Shutdown) {
    loop {
        let heard = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            heard = DB::listen(&own, &shared.channel, &shared.wake) => heard,
        };
        // Looking each second finds the same.
        tracing::debug!(error = ?heard.err(), "the outbox is not told of new rows; it listens again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LISTEN_AGAIN) => {}
        }
    }
}
