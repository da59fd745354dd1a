//! The barrier: one row in your own database that makes a local transaction and its message one.
//!
//! `run_in_db` stores the half message, writes the barrier's row and runs your closure in one transaction of your database, and
//! commits both. Checks are answered from the row, so there is no check code to write:
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use escrowmq_client::{Barrier, Client, Message, RunInDbError};
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = sqlx::PgPool::connect("postgres://localhost/shop").await?;
//! let barrier = Barrier::new(pool);
//! barrier.create_table().await?; // or Barrier::<sqlx::Postgres>::definition(..) in a migration of yours
//!
//! let client = Client::builder("127.0.0.1:9876").connect().await?;
//! let producer = client.transaction_producer("orders", barrier.checker()).topics(["Orders"]).start().await?;
//!
//! let placed = producer
//!     .run_in_db(&barrier, Message::new("Orders", "order 17"), async |mut tx| {
//!         sqlx::query("INSERT INTO orders (number) VALUES (17)").execute(&mut **tx).await
//!     })
//!     .await;
//! match placed {
//!     Ok(committed) => println!("{} order is in the database, and its message out", committed.value.rows_affected()),
//!     Err(RunInDbError::Aborted { error, .. }) => println!("no order and no message: {error}"),
//!     Err(RunInDbError::NotBegun(error)) => println!("no order and no message: {error}"),
//!     Err(RunInDbError::Unresolved { .. }) => println!("both or none, and the check will find out which"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! ```text
//!  run_in_db                                          check (any process of the group)
//!    half -> broker
//!    BEGIN                                              read the row
//!    INSERT row (committed)  <---- one key ---->        none: INSERT row (rolled back), waits for a moment at most
//!    your closure                                         written: rolled back, for good
//!    COMMIT                                               it is there: what it says
//!    commit -> broker                                     somebody holds the key: in progress, ask again
//!    row deleted, later
//! ```
//!
//! # Promises
//!
//! * **The message becomes visible exactly if your transaction commits**, whatever process or connection dies at whatever
//!   point. Both sides insert under one unique key, so that only one of them can commit: an open local transaction makes a check
//!   answer "in progress", and a local transaction that comes after a check finds the planted row and fails, with
//!   [`AbortCause::Planted`]. That holds at every isolation level, since unique keys do not know any.
//! * **A check never waits for your transaction** for longer than [`lock_wait`](BarrierBuilder::lock_wait), and uses connections
//!   of its own, so that an exhausted pool does not stop it: up to four more per process (SQLite: one), closed when idle.
//! * **Nothing is guessed.** If the connection is lost during COMMIT, the database is asked as a check would ask it; if it does
//!   not answer, you get [`RunInDbError::Unresolved`] and the check settles it. A failed COMMIT is treated alike, and so is a
//!   transaction that the database has given up unnoticed by the closure: right before COMMIT the row must still be there.
//! * **Rows go when the broker is known to have settled their transaction**, and not before: right after a confirmed commit, in
//!   batches, or by [`sweep`](Barrier::sweep), which tells old rows' decision again and deletes them once it is confirmed. Rolled
//!   back rows stay for [`keep_rolled_back`](BarrierBuilder::keep_rolled_back), and a local transaction whose half was stored
//!   longer than [`begin_within`](BarrierBuilder::begin_within) ago does not begin, so it never meets a table from which its
//!   row is gone. Cleaning walks an index in bounded steps; its cost depends on what there is to do, not on what is stored.
//!
//! # What it needs of you
//!
//! * Do everything in the transaction that the closure gets, and leave ending it to `run_in_db`: no COMMIT or ROLLBACK in SQL,
//!   and in MySQL nothing that commits by itself, such as `CREATE TABLE`. Savepoints are fine.
//! * Commits must be durable. With PostgreSQL the barrier sees to it (`synchronous_commit` is raised from `off` to `on` in its
//!   transactions). SQLite in WAL mode needs `synchronous = FULL` to survive a power cut; MySQL needs
//!   `innodb_flush_log_at_trx_commit = 1`, which is its default. A database restored from a backup, or failed over to a replica
//!   that lags, has forgotten commits that the broker knows of.
//! * One table per cluster of brokers: rows name brokers, not clusters. Two clusters with one database get a
//!   [`table`](BarrierBuilder::table) each. Groups may share a table.
//! * With brokers that confirm no decisions (Apache RocketMQ) nobody ever learns that a transaction is settled, so committed
//!   rows stay. Delete those whose half messages the broker has long dropped, by `created_at` (milliseconds).
//! * A connection that vanished without a word keeps its transaction open on the server, and checks are answered "in progress"
//!   for as long as that lasts: let the server notice (`tcp_keepalives_idle`, `idle_in_transaction_session_timeout`).
//!
//! TLS to the database is sqlx's: turn on its feature in your own dependency on sqlx 0.8.
//!
//! # The table
//!
//! | column | |
//! | --- | --- |
//! | `id` | the transaction's id, which is the message's unique id; the key |
//! | `state` | 1 committed, 2 rolled back by a check, 3 committed here but rolled back at the broker by an operator |
//! | `producer_group`, `topic`, `broker`, `queue_id`, `half_position`, `half_counter` | whom to tell about it |
//! | `created_at` | milliseconds since 1970, by the database's clock |

mod builder;
mod checker;
mod cleaner;
mod database;
mod error;
pub(crate) mod local;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod run;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(all(test, feature = "sqlite"))]
mod tests;
mod verdict;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::Pool;

pub use builder::BarrierBuilder;
pub use checker::BarrierChecker;
pub use cleaner::Swept;
pub use error::{AbortCause, RunInDbError};
pub use local::LocalTransaction;
pub use run::CommittedInDb;

use crate::sql::tables::Checked;
use builder::Settings;
use cleaner::Cleaner;
use database::{Dialect, Statements};

/// A database that can hold the barrier: `sqlx::Sqlite`, `sqlx::Postgres` and `sqlx::MySql`, each behind a feature of this
/// crate.
pub trait BarrierDatabase: Dialect {}

impl<DB: Dialect> BarrierDatabase for DB {}

/// The barrier's table in one database. Cheap to clone; clones share everything. The module says what it promises.
pub struct Barrier<DB: BarrierDatabase> {
    shared: Arc<Shared<DB>>,
}

struct Shared<DB: BarrierDatabase> {
    /// The user's: local transactions run on it.
    pool: Pool<DB>,
    /// The barrier's: checks and cleaning never wait for a connection that a local transaction holds.
    own: Pool<DB>,
    statements: Statements,
    settings: Settings,
    checked: Checked,
    /// One per producer that runs local transactions here.
    cleaners: Mutex<Vec<Cleaner>>,
}

impl<DB: BarrierDatabase> Clone for Barrier<DB> {
    fn clone(&self) -> Self {
        Barrier { shared: Arc::clone(&self.shared) }
    }
}

impl<DB: BarrierDatabase> fmt::Debug for Barrier<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("database", &DB::NAME).field("settings", &self.shared.settings).finish()
    }
}

impl<DB: BarrierDatabase> Barrier<DB> {
    /// The barrier in the database of `pool`, in the table `escrowmq_barrier`. Call it within a Tokio runtime, as sqlx wants it
    /// for its pools. Connects to nothing by itself.
    pub fn new(pool: Pool<DB>) -> Barrier<DB> {
        Barrier::with_settings(pool, Settings::default())
    }

    /// The barrier with settings of your own.
    pub fn builder(pool: Pool<DB>) -> BarrierBuilder<DB> {
        BarrierBuilder::new(pool)
    }

    fn with_settings(pool: Pool<DB>, settings: Settings) -> Barrier<DB> {
        let options = DB::own_options(pool.connect_options().as_ref().clone(), settings.lock_wait);
        // With the hooks of the user's pool, which may choose a schema or a role.
        let own = pool
            .options()
            .clone()
            .min_connections(0)
            .max_connections(DB::OWN_CONNECTIONS_MAX)
            .acquire_timeout(builder::OWN_CONNECTION_WAIT)
            .idle_timeout(builder::OWN_CONNECTION_IDLE)
            .connect_lazy_with(options);
        let statements = DB::statements(&settings.table, settings.begin.as_deref());
        Barrier {
            shared: Arc::new(Shared {
                pool,
                own,
                statements,
                settings,
                checked: Checked::default(),
                cleaners: Mutex::default(),
            }),
        }
    }

    /// Creates the table and its index if they are not there.
    ///
    /// # Errors
    ///
    /// The database's error; trying again is safe.
    pub async fn create_table(&self) -> Result<(), sqlx::Error> {
        database::table::<DB>(&self.shared.settings.table).create(&self.shared.pool).await
    }

    /// Looks once whether the table is the one that this code knows.
    async fn check_table(&self) -> Result<(), sqlx::Error> {
        let shared = &*self.shared;
        shared.checked.check(&shared.own, || database::table::<DB>(&shared.settings.table)).await
    }

    /// The definition of the table and its index in SQL, for a migration of yours. `table` may be qualified by a schema.
    pub fn definition(table: &str) -> String {
        database::table::<DB>(table).definition()
    }

    /// Answers the broker's checks from the table: what [`transaction_producer`](crate::Client::transaction_producer) takes as
    /// its listener, alone or as a part of a [`Router`](crate::Router). Transactions that it is asked about and that
    /// `run_in_db` did not run have no row, so they are rolled back.
    pub fn checker(&self) -> BarrierChecker<DB> {
        BarrierChecker::new(self.clone())
    }
}
