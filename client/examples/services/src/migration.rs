//! From a hand-written table of messages *being sent* to the outbox.
//!
//! Many applications have such a table: a row for each message with a state and a counter, and a timed job that sends what waits and gives
//! up after three tries. It moves to the outbox while the application goes on, in three steps:
//!
//! 1. Deploy the application with [`add`](escrowmq_client::Outbox::add) in place of the insert into its own table, and without the timed
//!    job. From here on the old table only shrinks.
//! 2. Run [`move_rows`] until it answers 0. Each step moves some rows in one transaction: a crash in between loses and repeats nothing.
//! 3. Drop the old table. Rows that had been given up stay in it for a person to look at.
//!
//! A relay may run from the beginning. Messages of the old table that have not been moved yet come after newer ones of the outbox: where
//! their order matters, run step 2 before step 1 goes on line, with the application stopped.

use escrowmq_client::{Message, Outbox};
use sqlx::{PgPool, Postgres};

/// The table as such applications have it.
pub const OLD_TABLE: &str = "CREATE TABLE IF NOT EXISTS message_log (
    id BIGSERIAL PRIMARY KEY,
    topic TEXT NOT NULL,
    body BYTEA NOT NULL,
    order_key TEXT,
    state TEXT NOT NULL DEFAULT 'sending',
    tries INT NOT NULL DEFAULT 0
)";

/// Moves up to `count` rows that wait, in their order. Answers how many it has moved.
///
/// # Errors
///
/// The database's error, or a row that no broker would take; nothing of this step is moved then, and trying again is safe.
pub async fn move_rows(pool: &PgPool, outbox: &Outbox<Postgres>, count: i64) -> anyhow::Result<usize> {
    let mut tx = pool.begin().await?;
    let delete = "DELETE FROM message_log WHERE id IN (
            SELECT id FROM message_log WHERE state = 'sending' ORDER BY id LIMIT $1 FOR UPDATE
        ) RETURNING id, topic, body, order_key";
    let mut rows: Vec<(i64, String, Vec<u8>, Option<String>)> =
        sqlx::query_as(delete).bind(count).fetch_all(&mut *tx).await?;
    rows.sort_unstable_by_key(|row| row.0);
    let moved = rows.len();
    for (id, topic, body, order_key) in rows {
        // The old number goes along, so that a consumer which knew the message by it still does.
        let mut message = Message::new(topic, body).key(format!("message-log-{id}"));
        if let Some(key) = order_key {
            message = message.sharding_key(key);
        }
        outbox.add(&mut tx, message).await?;
    }
    outbox.commit(tx).await?;
    Ok(moved)
}
