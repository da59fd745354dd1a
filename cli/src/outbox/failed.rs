//! Deciding about failed rows: `requeue`, `discard`.

use escrowmq_client::{Outbox, OutboxDatabase, OutboxQuery, OutboxState};

use super::{Output, print};
use crate::confirm::ask;

/// Rows that are read at a time.
const PAGE: u32 = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Failed rows
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// All failed rows
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

impl Arguments {
    async fn rows<DB: OutboxDatabase>(&self, outbox: &Outbox<DB>) -> anyhow::Result<Vec<i64>> {
        if !self.all {
            return Ok(self.ids.clone());
        }
        let mut ids: Vec<i64> = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let query = OutboxQuery { state: Some(OutboxState::Failed), after, limit: PAGE };
            let page = outbox.list(&query).await?;
            if page.is_empty() {
                return Ok(ids);
            }
            ids.extend(page.iter().map(|row| row.id));
        }
    }
}

/// Nobody is asked: a row that is sent again can fail again, and no more.
pub(super) async fn requeue<DB: OutboxDatabase>(
    outbox: &Outbox<DB>,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<bool> {
    let mut done = Done::default();
    for id in arguments.rows(outbox).await? {
        done.count(id, outbox.requeue(id).await?);
    }
    done.tell("wait again", json)
}

pub(super) async fn discard<DB: OutboxDatabase>(
    outbox: &Outbox<DB>,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<bool> {
    let rows = arguments.rows(outbox).await?;
    let about = format!("{} failed rows; their messages will never be sent\n", rows.len());
    if !arguments.yes && !ask(&about, "discard them")? {
        print(&Output::done("nothing was discarded"), json)?;
        return Ok(false);
    }
    let mut done = Done::default();
    for id in rows {
        done.count(id, outbox.discard(id).await?);
    }
    done.tell("are discarded", json)
}

#[derive(Default)]
struct Done {
    rows: u64,
    others: Vec<i64>,
}

impl Done {
    fn count(&mut self, id: i64, is_done: bool) {
        if is_done {
            self.rows += 1;
        } else {
            self.others.push(id);
        }
    }

    fn tell(&self, what: &str, json: bool) -> anyhow::Result<bool> {
        print(&Output::done(format!("{} rows {what}", self.rows)), json)?;
        for id in &self.others {
            eprintln!("escrowmq: row {id} has not failed, or is gone: nothing was done about it");
        }
        Ok(self.others.is_empty())
    }
}
