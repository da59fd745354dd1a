//! `escrowmq txn list`.

use std::time::Duration;

use anyhow::bail;
use escrowmq_client::{BrokerAddress, RequestError, TransactionInfo, TransactionQuery};
use escrowmq_common::clock;
use serde_json::{Value, json};

use super::super::connection::unknown_topic;
use super::super::output::Output;
use super::brokers::{Brokers, explain, report};
use super::count::{Counts, unknown_group};
use super::handle::Handle;
use super::merge::{Merge, Step};
use super::print::emit;
use super::{Whole, age, view};
use crate::words::counted;

/// Most transactions of one answer, and of one piece of a long table.
const PAGE_MAX: u32 = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only of this producer group; an error if no broker knows it
    #[arg(long, short)]
    group: Option<String>,
    /// Only with a message for this topic
    #[arg(long, short)]
    topic: Option<String>,
    /// Only open or only parked ones
    #[arg(long, short, value_enum)]
    state: Option<State>,
    /// Only those stored at least so long ago, such as 10m or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = age::parse)]
    older_than: Option<Duration>,
    /// Most transactions of a page
    #[arg(long, short, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All pages
    #[arg(long, short, conflicts_with = "limit")]
    all: bool,
    /// The page after this cursor, as the page before names it
    #[arg(long, value_name = "CURSOR", value_delimiter = ',')]
    after: Vec<Handle>,
    /// Only of the broker with this name
    #[arg(long, short)]
    broker: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    Open,
    Parked,
}

impl Arguments {
    fn query(&self) -> TransactionQuery {
        TransactionQuery {
            group: self.group.clone(),
            topic: self.topic.clone(),
            parked: self.state.map(|state| matches!(state, State::Parked)),
            older_than: self.older_than,
            limit: Some(if self.all { PAGE_MAX } else { self.limit.min(PAGE_MAX) }),
            after: None,
            all_halves: false,
        }
    }
}

impl Arguments {
    /// Nothing was found: an error if that is because nobody knows the group or the topic.
    async fn refuse_what_is_not_there(&self, brokers: &Brokers) -> anyhow::Result<()> {
        if let Some(topic) = &self.topic
            && let Err(RequestError::NoRoute { .. }) = brokers.admin.queues(topic).await
        {
            bail!(unknown_topic(topic));
        }
        if let Some(group) = &self.group {
            let (counts, failures) = Counts::ask(brokers, Some(group)).await;
            if counts.0.is_empty() && failures.is_empty() {
                bail!(unknown_group(group));
            }
        }
        Ok(())
    }
}

pub(super) async fn run(brokers: &Brokers, arguments: &Arguments, json: bool) -> anyhow::Result<Whole> {
    let masters: Vec<&BrokerAddress> = match &arguments.broker {
        Some(name) => vec![brokers.named(name)?],
        None => brokers.masters.iter().collect(),
    };
    for start in &arguments.after {
        if !masters.iter().any(|master| master.broker == start.broker) {
            eprintln!(
                "escrowmq: broker {} of the cursor is not asked: it is not registered, or --broker",
                start.broker
            );
        }
    }
    let start = |broker: &str| arguments.after.iter().find(|start| start.broker == broker).map(|start| start.half_id);
    let mut merge = Merge::new(masters.iter().map(|master| start(&master.broker)));
    let mut printer = Printer::new(json);
    let mut failures = Vec::new();
    let limit = if arguments.all { usize::MAX } else { arguments.limit as usize };
    while printer.count < limit {
        match merge.step() {
            Step::Fetch(at, after) => {
                let query = TransactionQuery { after, ..arguments.query() };
                match brokers.admin.list_transactions(&masters[at].addr, &query).await {
                    Ok(page) => merge.page(at, page),
                    Err(error) => {
                        failures.push(explain(masters[at], &error));
                        merge.give_up(at);
                    }
                }
            }
            Step::Row(at, info) => printer.put(&masters[at].broker, &info)?,
            Step::End => break,
        }
    }
    report(&failures, masters.len())?;
    if printer.count == 0 && arguments.after.is_empty() && failures.is_empty() {
        arguments.refuse_what_is_not_there(brokers).await?;
    }
    let cursors = masters.iter().zip(merge.cursors());
    let cursors = cursors.filter_map(|(master, after)| Some(view::handle(&master.broker, after?).to_string()));
    let next = merge.has_more().then(|| cursors.collect::<Vec<_>>().join(","));
    printer.end(next.as_deref())?;
    Ok(Whole::if_none(&failures))
}

/// Prints long lists piece by piece, so that their length costs no memory.
struct Printer {
    json: bool,
    now: i64,
    count: usize,
    /// The rows that are not printed yet.
    table: Output,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self { json, now: clock::wall_ms(), count: 0, table: view::table() }
    }

    fn put(&mut self, broker: &str, info: &TransactionInfo) -> anyhow::Result<()> {
        self.count += 1;
        if self.json {
            let begin = if self.count == 1 { "{\"transactions\":[\n" } else { ",\n" };
            emit(&format!("{begin}{}", Value::Object(view::object(broker, info, self.now))))?;
        } else {
            self.table.row(view::row(broker, info, self.now));
            if self.count.is_multiple_of(PAGE_MAX as usize) {
                emit(&self.table.piece())?;
            }
        }
        Ok(())
    }

    fn end(mut self, next: Option<&str>) -> anyhow::Result<()> {
        if self.json {
            let begin = if self.count == 0 { "{\"transactions\":[" } else { "" };
            return Ok(emit(&format!("{begin}\n],\"next\":{}}}\n", json!(next)))?);
        }
        emit(&self.table.piece())?;
        let shown = counted(self.count, "transaction");
        emit(&match next {
            Some(next) => format!("{shown}; the next page: the same command with --after {next}\n"),
            None => format!("{shown}\n"),
        })?;
        Ok(())
    }
}
