//! `escrowmq txn watch`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use escrowmq_client::GroupTransactions;
use escrowmq_common::clock;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::super::output::Output;
use super::super::time::readable;
use super::brokers::{Brokers, report};
use super::count::{Counts, age};
use super::print::emit;
use super::{Whole, age as durations};

/// Puts the cursor of a terminal to its top left corner and empties the screen below.
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Time between two looks
    #[arg(long, short, value_name = "DURATION", default_value = "2s", value_parser = durations::parse_interval)]
    interval: Duration,
    /// Only this producer group
    #[arg(long, short)]
    group: Option<String>,
}

/// Looks until Ctrl-C. A broker that does not answer is told and asked again, unless nobody answers the first look.
pub(super) async fn run(brokers: &Brokers, arguments: &Arguments, json: bool) -> anyhow::Result<Whole> {
    tokio::select! {
        ended = look(brokers, arguments, json) => ended,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            Ok(Whole::Yes)
        }
    }
}

async fn look(brokers: &Brokers, arguments: &Arguments, json: bool) -> anyhow::Result<Whole> {
    let mut ticks = tokio::time::interval(arguments.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Counts> = None;
    loop {
        ticks.tick().await;
        let (counts, failures) = Counts::ask(brokers, arguments.group.as_deref()).await;
        if before.is_none() && failures.len() == brokers.masters.len() {
            report(&failures, brokers.masters.len())?;
        }
        let now = clock::wall_ms();
        if json {
            let line = json!({ "at_ms": now, "groups": counts.objects(), "failures": failures });
            emit(&format!("{line}\n"))?;
        } else {
            let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
            let table = changes(&counts, before.as_ref(), now).table();
            let every = durations::short(i64::try_from(arguments.interval.as_millis()).unwrap_or(i64::MAX));
            let mut text = format!("{clear}{} UTC, every {every}, until Ctrl-C\n\n{table}", readable(now));
            for failure in &failures {
                text = format!("{text}{failure}; its transactions are missing here\n");
            }
            emit(&text)?;
        }
        before = Some(counts);
    }
}

/// A table of all groups of this look and the one before, with the change between them.
fn changes(counts: &Counts, before: Option<&Counts>, now: i64) -> Output {
    let mut output = Output::new(&[
        "GROUP",
        "OPEN",
        "CHANGE",
        "PARKED",
        "CHANGE",
        "OLDEST OPEN",
        "OLDEST PARKED",
        "WAITING FOR A CHECKER",
    ]);
    let none = GroupTransactions::default();
    let mut names: Vec<&String> = counts.0.keys().chain(before.iter().flat_map(|before| before.0.keys())).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let group = counts.0.get(name).unwrap_or(&none);
        let change = |number: fn(&GroupTransactions) -> u64| {
            let before = before?.0.get(name).unwrap_or(&none);
            Some(signed(number(group).cast_signed() - number(before).cast_signed()))
        };
        output.row([
            json!(name),
            json!(group.open),
            json!(change(|group| group.open)),
            json!(group.parked),
            json!(change(|group| group.parked)),
            json!(age(group.oldest_open_at, now)),
            json!(age(group.oldest_parked_at, now)),
            json!(group.waiting_for_checker),
        ] as [Value; 8]);
    }
    output.note(counts.sum());
    output
}

/// A change, with nothing where nothing changed, so that changes strike the eye.
fn signed(change: i64) -> String {
    if change == 0 { String::new() } else { format!("{change:+}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(groups: &[(&str, u64)]) -> Counts {
        let group = |(name, open): &(&str, u64)| {
            let group = GroupTransactions { group: (*name).to_owned(), open: *open, ..GroupTransactions::default() };
            ((*name).to_owned(), group)
        };
        Counts(groups.iter().map(group).collect())
    }

    #[test]
    fn groups_that_came_and_went_are_seen() {
        let table =
            changes(&counts(&[("came", 2), ("stays", 5)]), Some(&counts(&[("stays", 5), ("went", 3)])), 0).table();
        let cells = |line: usize| table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(cells(1)[..3], ["came", "2", "+2"]);
        assert_eq!(cells(2)[..3], ["stays", "5", "0"], "no change, then none parked");
        assert_eq!(cells(3)[..3], ["went", "0", "-3"]);
        let first = changes(&counts(&[("came", 2)]), None, 0).table();
        assert!(first.lines().nth(1).unwrap().contains("-  "), "nothing to compare with: {first}");
    }
}
