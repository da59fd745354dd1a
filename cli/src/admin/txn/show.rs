//! `escrowmq txn show`.

use anyhow::{Context as _, bail};
use escrowmq_client::{BrokerAddress, TransactionInfo, TransactionQuery};
use escrowmq_common::clock;
use serde_json::Value;

use super::brokers::{Brokers, explain};
use super::handle::Name;
use super::print::emit;
use super::{Whole, view};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A handle (broker:number), the offset message id of the half, or with --group its transaction id
    name: String,
    /// Look for a transaction id among the open and parked transactions of this producer group
    #[arg(long, short)]
    group: Option<String>,
}

pub(super) async fn run(brokers: &Brokers, arguments: &Arguments, json: bool) -> anyhow::Result<Whole> {
    let (broker, info) = if let Some(group) = &arguments.group {
        by_transaction_id(brokers, group, &arguments.name).await?
    } else {
        let name = arguments.name.parse::<Name>().map_err(|_| {
            anyhow::anyhow!(
                "{:?} is neither a handle nor an offset message id; \
                 if it is a transaction id, name its producer group with --group",
                arguments.name
            )
        })?;
        let (broker, handle) = brokers.of(&name)?;
        (broker, get(brokers, broker, handle.half_id).await?)
    };
    let now = clock::wall_ms();
    if json {
        emit(&format!("{:#}\n", Value::Object(view::object(&broker.broker, &info, now))))?;
    } else {
        emit(&view::details(&broker.broker, &info, now).table())?;
    }
    Ok(Whole::Yes)
}

async fn get(brokers: &Brokers, broker: &BrokerAddress, half_id: u64) -> anyhow::Result<TransactionInfo> {
    let answer = brokers.admin.transaction(&broker.addr, half_id).await;
    let found = answer.map_err(|error| anyhow::anyhow!(explain(broker, &error)))?;
    found.with_context(|| {
        format!(
            "broker {} knows no half message {half_id}: there never was one, or it was decided longer ago than the \
             broker remembers (transactionRecordHours)",
            broker.broker
        )
    })
}

/// Goes through what the group has open or parked: transaction ids are the producers' own, and brokers keep no table of
/// them.
async fn by_transaction_id<'b>(
    brokers: &'b Brokers,
    group: &str,
    id: &str,
) -> anyhow::Result<(&'b BrokerAddress, TransactionInfo)> {
    let mut failures = Vec::new();
    for broker in &brokers.masters {
        let mut query = TransactionQuery {
            group: Some(group.to_owned()),
            limit: Some(1000),
            all_halves: true,
            ..TransactionQuery::default()
        };
        loop {
            let page = match brokers.admin.list_transactions(&broker.addr, &query).await {
                Ok(page) => page,
                Err(error) => {
                    failures.push(explain(broker, &error));
                    break;
                }
            };
            if let Some(info) = page.transactions.iter().find(|info| info.transaction_id == id) {
                return Ok((broker, get(brokers, broker, info.half_id).await?));
            }
            if page.next.is_none() || page.next <= query.after {
                break;
            }
            query.after = page.next;
        }
    }
    if !failures.is_empty() {
        bail!("{id} was not found, but not all brokers answered: {}", failures.join("; "));
    }
    bail!(
        "group {group} has no open or parked transaction {id}; a decided one is shown by its handle or offset message id"
    )
}
