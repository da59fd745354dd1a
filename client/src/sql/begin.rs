//! Beginning a transaction on a pool whose connections user code has had.

use sqlx::{Connection as _, Database, Pool, Transaction};

/// Begins a transaction by this statement. User code that has ended a transaction by SQL leaves sqlx a connection that counts as
/// being in one, and that would fail each time that it is taken: such connections are closed.
pub(crate) async fn begin<DB: Database>(
    pool: &Pool<DB>,
    statement: &str,
) -> Result<Transaction<'static, DB>, sqlx::Error> {
    loop {
        let connection = pool.acquire().await?;
        if !connection.is_in_transaction() {
            return Transaction::begin(connection, Some(statement.to_owned().into())).await;
        }
        tracing::warn!("a connection was left in a transaction that somebody ended by SQL: it is closed");
        drop(connection.detach());
    }
}
