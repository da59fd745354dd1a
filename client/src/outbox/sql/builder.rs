//! Settings of an outbox.

use sqlx::Pool;

use super::{Outbox, OutboxDatabase};
use crate::error::StartError;
use crate::limit::{TABLE_BYTES_MAX, is_table_name};

/// The usual table.
pub(super) const TABLE: &str = "escrowmq_outbox";
/// Bytes of a tenant's name.
const TENANT_BYTES_MAX: usize = 255;

/// Collects the settings of an [`Outbox`]. Made by [`Outbox::builder`].
#[must_use = "a builder does nothing until `build`"]
#[derive(Debug)]
pub struct OutboxBuilder<DB: OutboxDatabase> {
    pool: Pool<DB>,
    table: String,
    tenant: String,
}

impl<DB: OutboxDatabase> OutboxBuilder<DB> {
    pub(super) fn new(pool: Pool<DB>) -> Self {
        OutboxBuilder { pool, table: TABLE.to_owned(), tenant: String::new() }
    }

    /// The table, optionally with its schema in front. Default `escrowmq_outbox`. The names of the others begin with it.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// The tenant whose messages are added here: the column `tenant` of their rows. Relays send those of all tenants. Default:
    /// none.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Makes the outbox, within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError::Setting`] for settings that cannot be.
    pub fn build(self) -> Result<Outbox<DB>, StartError> {
        if !is_table_name(&self.table) {
            let reason = format!(
                "{:?} is no name of at most {TABLE_BYTES_MAX} letters, digits and underscores, with its schema in front or not",
                self.table
            );
            return Err(StartError::setting("table", reason));
        }
        if self.tenant.len() > TENANT_BYTES_MAX {
            return Err(StartError::setting("tenant", format!("must have at most {TENANT_BYTES_MAX} bytes")));
        }
        Ok(Outbox::with_settings(self.pool, self.table, self.tenant))
    }
}
