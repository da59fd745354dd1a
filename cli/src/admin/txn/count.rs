//! `escrowmq txn count`.

use std::collections::BTreeMap;

use anyhow::bail;
use escrowmq_client::GroupTransactions;
use escrowmq_common::clock;
use serde_json::{Value, json};

use super::super::output::Output;
use super::Whole;
use super::age::short;
use super::brokers::{Brokers, explain, report};
use super::print::emit;
use crate::words::counted;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this producer group
    #[arg(long, short)]
    group: Option<String>,
}

/// Each group's transactions at all brokers together.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(pub(super) BTreeMap<String, GroupTransactions>);

impl Counts {
    /// Asks all brokers; says which of them did not answer, and why.
    pub(super) async fn ask(brokers: &Brokers, group: Option<&str>) -> (Self, Vec<String>) {
        let (mut counts, mut failures) = (Self::default(), Vec::new());
        for broker in &brokers.masters {
            match brokers.admin.transaction_counts(&broker.addr, group).await {
                Ok(groups) => groups.iter().for_each(|group| counts.add(group)),
                Err(error) => failures.push(explain(broker, &error)),
            }
        }
        (counts, failures)
    }

    fn add(&mut self, more: &GroupTransactions) {
        let sum = self
            .0
            .entry(more.group.clone())
            .or_insert_with(|| GroupTransactions { group: more.group.clone(), ..GroupTransactions::default() });
        let oldest = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        sum.open += more.open;
        sum.parked += more.parked;
        sum.waiting_for_checker += more.waiting_for_checker;
        sum.oldest_open_at = oldest(sum.oldest_open_at, more.oldest_open_at);
        sum.oldest_parked_at = oldest(sum.oldest_parked_at, more.oldest_parked_at);
    }

    /// Open and parked ones, and groups, in words.
    pub(super) fn sum(&self) -> String {
        let sum = |number: fn(&GroupTransactions) -> u64| self.0.values().map(number).sum::<u64>();
        let groups = counted(self.0.len(), "group");
        format!("{} open and {} parked in {groups}", sum(|group| group.open), sum(|group| group.parked))
    }

    /// One object for each group.
    pub(super) fn objects(&self) -> Vec<Value> {
        let object = |group: &GroupTransactions| {
            json!({
                "group": group.group,
                "open": group.open,
                "parked": group.parked,
                "oldest_open_at_ms": group.oldest_open_at,
                "oldest_parked_at_ms": group.oldest_parked_at,
                "waiting_for_checker": group.waiting_for_checker,
            })
        };
        self.0.values().map(object).collect()
    }

    fn table(&self, now: i64) -> Output {
        let mut output =
            Output::new(&["GROUP", "OPEN", "PARKED", "OLDEST OPEN", "OLDEST PARKED", "WAITING FOR A CHECKER"]);
        for group in self.0.values() {
            output.row([
                json!(group.group),
                json!(group.open),
                json!(group.parked),
                json!(age(group.oldest_open_at, now)),
                json!(age(group.oldest_parked_at, now)),
                json!(group.waiting_for_checker),
            ]);
        }
        output.note(self.sum());
        output
    }
}

/// The error text for a producer group that no broker knows.
pub(super) fn unknown_group(group: &str) -> String {
    format!(
        "no broker knows a producer group {group:?}: none of its producers is connected, and it has prepared nothing, or \
         nothing that is remembered (transactionRecordHours); `escrowmq txn count` shows the groups that have something open"
    )
}

/// How long ago that was.
pub(super) fn age(at: Option<i64>, now: i64) -> Option<String> {
    at.map(|at| short(now - at))
}

pub(super) async fn run(brokers: &Brokers, arguments: &Arguments, json: bool) -> anyhow::Result<Whole> {
    let (counts, failures) = Counts::ask(brokers, arguments.group.as_deref()).await;
    report(&failures, brokers.masters.len())?;
    if let Some(group) = &arguments.group
        && counts.0.is_empty()
        && failures.is_empty()
    {
        bail!(unknown_group(group));
    }
    if json {
        emit(&format!("{:#}\n", Value::Array(counts.objects())))?;
    } else {
        emit(&counts.table(clock::wall_ms()).table())?;
    }
    Ok(Whole::if_none(&failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_at_all_brokers_together() {
        let at = |open, oldest_open_at, parked, oldest_parked_at| GroupTransactions {
            group: "G".to_owned(),
            open,
            oldest_open_at,
            parked,
            oldest_parked_at,
            waiting_for_checker: open,
        };
        let mut counts = Counts::default();
        counts.add(&at(2, Some(50), 0, None));
        counts.add(&at(1, Some(40), 3, Some(60)));
        assert_eq!(counts.0["G"], at(3, Some(40), 3, Some(60)));
        assert_eq!(counts.sum(), "3 open and 3 parked in 1 group");
        let table = counts.table(10_040).table();
        assert!(table.lines().nth(1).unwrap().contains("10s"), "{table}");
    }
}
