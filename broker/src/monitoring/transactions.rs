//! Half messages, decisions and checks.

use std::sync::atomic::Ordering;

use escrowmq_common::monitoring::Families;
use escrowmq_common::some_lines;

use super::Monitor;
use crate::shard::HalfQuery;
use crate::terms::Stamp;

pub(super) fn collect(families: &mut Families<'_>, monitor: &Monitor) {
    let (transactions, counters) = (&monitor.transactions, monitor.shard.counters());
    let now = monitor.time.now();
    let age = |since: Option<Stamp>| since.map_or(0, |since| now.since(since) / 1_000);
    for (name, help, value) in [
        ("escrowmq_halves_open", "Half messages without a decision that are still checked.", counters.open_halves()),
        ("escrowmq_halves_parked", "Half messages that wait for an operator.", counters.parked_halves()),
        (
            "escrowmq_halves_open_oldest_seconds",
            "Age of the oldest open half message; 0 if there is none.",
            age(oldest(monitor, None, false)),
        ),
        (
            "escrowmq_halves_parked_oldest_seconds",
            "Age of the oldest parked half message; 0 if there is none.",
            age(oldest(monitor, None, true)),
        ),
        (
            "escrowmq_halves_without_checker",
            "Half messages whose check is due while nobody of their producer group is connected.",
            transactions.halves_without_checker(),
        ),
    ] {
        families.gauge(name, help, value);
    }
    for (name, help, count) in [
        ("escrowmq_transactions_committed_ever_total", "Commits since the data folder was made.", counters.committed()),
        (
            "escrowmq_transactions_rolled_back_ever_total",
            "Rollbacks since the data folder was made.",
            counters.rolled_back(),
        ),
        (
            "escrowmq_decisions_refused_opposite_total",
            "Decisions that were refused because the opposite came first.",
            counters.refused_opposites.load(Ordering::Relaxed),
        ),
        (
            "escrowmq_halves_repeated_total",
            "Repeated half messages that got the first one's identity.",
            counters.repeated_halves.load(Ordering::Relaxed),
        ),
        (
            "escrowmq_messages_repeated_total",
            "Repeated plain messages that got the first one's place, on topics with a duplicate window.",
            counters.repeated_messages.load(Ordering::Relaxed),
        ),
        ("escrowmq_checks_sent_total", "Checks written to a producer's connection.", transactions.checks_sent()),
    ] {
        families.counter(name, help, count);
    }
    let help = "Time from the arrival of a commit until it was stored.";
    families.histograms("escrowmq_commit_seconds", help, |samples| samples.histogram(&[], &monitor.metrics.commits));
    let help = "Time from a check until its producer's answer, of whatever kind.";
    families.histograms("escrowmq_check_answer_seconds", help, |samples| {
        samples.histogram(&[], transactions.check_answers());
    });
}

/// When the oldest open or parked half came, of all or of a producer group. Reads one row.
pub(super) fn oldest(monitor: &Monitor, group: Option<&str>, parked: bool) -> Option<Stamp> {
    let query = HalfQuery { group, parked: Some(parked), ..HalfQuery::default() };
    let oldest = monitor.shard.halves(&query, 1).inspect_err(|error| {
        some_lines!(warn, %error, "cannot read half messages for metrics");
    });
    oldest.ok()?.first().map(|row| row.prepared_at)
}
