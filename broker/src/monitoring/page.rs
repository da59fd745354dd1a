//! The page: every figure, in the text format of Prometheus.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use super::Monitor;
use super::group::{forwarding, group};
use crate::latch::Failure;
use crate::metrics::{Histogram, Results};
use crate::shard::HalfQuery;
use crate::terms::Stamp;

/// The whole page. Reads the index: call it where blocking is allowed.
pub(super) fn page(monitor: &Monitor) -> String {
    let mut page = Page::default();
    let metrics = &monitor.metrics;
    ready(&mut page, monitor.readiness().is_ok());
    transactions(&mut page, monitor);
    page.results("send_requests_total", "Sends by response code.", &metrics.sends);
    page.results("pull_requests_total", "Pulls by response code.", &metrics.pulls);
    page.results("send_back_requests_total", "Messages sent back by response code.", &metrics.send_backs);
    for (name, help, count) in [
        ("messages_in_total", "Messages stored by sends, halves included.", &metrics.messages_in),
        ("message_bytes_in_total", "Bytes of bodies stored by sends.", &metrics.bytes_in),
        ("messages_out_total", "Messages handed to consumers.", &metrics.messages_out),
        ("message_bytes_out_total", "Bytes of messages handed to consumers.", &metrics.bytes_out),
        (
            "pulls_unreadable_total",
            "Pulls that met a message whose bytes are damaged or missing: its queue waits there.",
            &metrics.messages_unreadable,
        ),
        ("dead_letters_total", "Messages that became dead letters.", &metrics.dead_letters),
        ("connections_opened_total", "Connections opened.", &metrics.connections_opened),
        ("registrations_total", "Registrations that a nameserver took.", &metrics.registrations),
        ("registrations_failed_total", "Registrations that failed.", &metrics.registrations_failed),
    ] {
        page.counter(name, help, count.get());
    }
    page.gauge("held_pulls", "Pulls that wait for messages.", metrics.held_pulls.get());
    page.gauge("connections", "Open connections.", metrics.connections.get());
    group(&mut page, monitor);
    forwarding(&mut page, monitor);
    budgets(&mut page, monitor);
    store(&mut page, monitor);
    page.text
}

fn budgets(page: &mut Page, monitor: &Monitor) {
    let (budget, metrics) = (&monitor.budget, &monitor.metrics);
    let limits = budget.limits();
    for (name, help, value) in [
        ("connections_limit", "Connections that may be open.", limits.connections),
        ("connections_of_an_address", "The most connections that one address has.", budget.most_of_an_address()),
        ("connections_of_an_address_limit", "Connections that one address may have.", limits.connections_per_address),
        ("connection_bytes", "Bytes of unfinished requests and unsent answers.", budget.bytes_used()),
        ("connection_bytes_limit", "Bytes that all connections may hold.", limits.bytes),
        ("searches_waiting", "Searches and listings that wait for a place.", monitor.gate.waiting()),
        ("cold_pulls_waiting", "Pulls that wait for files to be read.", monitor.delivery.cold.waiting()),
        ("groups", "Consumer groups.", monitor.shard.groups().len()),
    ] {
        page.gauge(name, help, value as u64);
    }
    page.gauge("queues", "Queues of all topics.", monitor.shard.topics().queue_count());
    let counts = budget.counts();
    for (name, help, count) in [
        ("connections_refused_total", "Connections refused because there were too many.", &counts.refused_connections),
        (
            "connections_refused_address_total",
            "Connections refused because their address had too many.",
            &counts.refused_addresses,
        ),
        (
            "connections_slowed_total",
            "Times that a connection was read no further for want of bytes or for its unanswered requests.",
            &counts.slowed,
        ),
        ("requests_refused_busy_total", "Requests refused unseen for want of room.", &counts.refused_requests),
        ("connections_evicted_total", "Connections closed that held bytes without progress.", &counts.evicted),
        ("connections_slow_readers_total", "Connections closed for reading too slowly.", &counts.slow_readers),
        ("connections_bad_input_total", "Connections closed for what they sent.", &counts.bad_input),
    ] {
        page.counter(name, help, count.load(Ordering::Relaxed));
    }
    for (name, help, count) in [
        ("holds_refused_total", "Pulls answered at once because too many were held.", &metrics.holds_refused),
        ("pulls_put_off_total", "Pulls answered without messages for want of bytes.", &metrics.pulls_put_off),
        ("searches_refused_total", "Searches and listings refused as busy.", &metrics.searches_refused),
        ("creations_refused_total", "Topics and groups not made, for their number.", &metrics.creations_refused),
        ("creations_too_fast_total", "Topics and groups not made, for their rate.", &metrics.creations_too_fast),
        ("groups_expired_total", "Groups that went by themselves.", &metrics.groups_expired),
    ] {
        page.counter(name, help, count.get());
    }
}

fn transactions(page: &mut Page, monitor: &Monitor) {
    let (metrics, counters) = (&monitor.metrics, monitor.shard.counters());
    page.gauge("halves_open", "Half messages without a decision that are still checked.", counters.open_halves());
    page.gauge("halves_parked", "Half messages that wait for an operator.", counters.parked_halves());
    let ages = Ages::look(monitor);
    let now = monitor.time.now();
    for (name, help, since) in [
        ("halves_open_oldest_seconds", "Age of the oldest open half message.", ages.open),
        ("halves_parked_oldest_seconds", "Age of the oldest parked half message.", ages.parked),
    ] {
        page.gauge(name, help, since.map_or(0, |since| now.since(since) / 1_000));
    }
    page.gauge(
        "halves_without_checker",
        "Half messages whose check is due while nobody of their producer group is connected.",
        monitor.transactions.halves_without_checker(),
    );
    page.counter("transactions_committed_total", "Commits since the data folder was made.", counters.committed());
    page.counter("transactions_rolled_back_total", "Rollbacks since the data folder was made.", counters.rolled_back());
    page.counter(
        "decisions_refused_opposite_total",
        "Decisions that were refused because the opposite came first.",
        counters.refused_opposites.load(Ordering::Relaxed),
    );
    page.counter(
        "halves_repeated_total",
        "Repeated half messages that got the first one's identity.",
        counters.repeated_halves.load(Ordering::Relaxed),
    );
    page.counter(
        "messages_repeated_total",
        "Repeated plain messages that got the first one's place, on topics with a duplicate window.",
        counters.repeated_messages.load(Ordering::Relaxed),
    );
    page.counter("checks_sent_total", "Checks written to a producer's connection.", monitor.transactions.checks_sent());
    page.results("decision_requests_total", "Decisions by response code.", &metrics.decisions);
}

fn store(page: &mut Page, monitor: &Monitor) {
    let (log, intake) = (monitor.shard.log(), monitor.shard.intake());
    let counters = monitor.shard.counters();
    page.counter(
        "messages_lost_total",
        "Messages that operators have given up because their bytes are lost, since the data folder was made.",
        monitor.shard.lost().messages(),
    );
    page.counter(
        "commands_refused_total",
        "Commands of the log that could not be carried out, since start.",
        counters.refused_commands.load(Ordering::Relaxed),
    );
    page.counter(
        "batches_unencodable_total",
        "Batches that did not read back and were not stored: each is a fault of the broker.",
        intake.unencodable(),
    );
    page.gauge("entries_quarantined", "Entries of the log that are set aside.", monitor.shard.quarantined());
    page.gauge("timers", "Messages that wait for their time.", monitor.shard.counters().timers());
    page.gauge("topics", "Topics.", monitor.shard.topics().len() as u64);
    page.gauge("intake_bytes", "Bytes accepted and not yet applied.", intake.bytes());
    page.gauge("log_first_position", "Log position of the oldest kept byte.", log.first_position().get());
    page.gauge("log_end_position", "Log position behind the newest byte.", log.end().get());
    page.gauge("log_durable_position", "Log position up to which bytes are on the device.", log.durable_end().get());
    page.head("log_flush_seconds", "Time that flushes of the log took.", "histogram");
    page.histogram("log_flush_seconds", "", log.flushes());
    page.gauge(
        "applied_position",
        "Log position up to which the state is applied.",
        monitor.shard.counters().applied_end().get(),
    );
    page.gauge(
        "copies_kept",
        "Members that have a message when its sender hears that it is stored.",
        monitor.config.load().copies_kept(),
    );
    let (fetched, total) = monitor.group.fetched_bytes();
    page.gauge(
        "group_copy_bytes",
        "Bytes of a copy of the group's state that have come; 0 while none is fetched.",
        fetched,
    );
    page.gauge("group_copy_bytes_total", "Bytes of that whole copy; 0 while none is fetched.", total);
    page.gauge(
        "copies_wanted",
        "Copies that brokerRole asks for; more than are kept is warned of at start.",
        monitor.config.load().broker_role.copies_wanted(),
    );
    page.gauge(
        "clock_alarm",
        "1 while the wall clock is more than a minute away from the broker's time, or a leader's was ahead of its group's.",
        u64::from(monitor.time.is_alarmed()),
    );
    page.gauge("disk_full", "1 while new messages are refused for want of room.", u64::from(intake.is_disk_full()));
    page.counter("disk_full_refusals_total", "Messages refused for want of room.", intake.refused_full());
    page.gauge(
        "disk_used_ratio_percent",
        "Percent of the disk with the data folder that is in use.",
        monitor.retention.disk_used_percent.get(),
    );
    let retention = &monitor.retention;
    page.counter("log_trimmed_bytes_total", "Bytes of log files that went.", retention.trimmed_bytes.get());
    page.counter(
        "log_moved_bytes_total",
        "Bytes of half messages and waiting ones that were written anew.",
        retention.moved_bytes.get(),
    );
    page.gauge(
        "log_pinned_bytes",
        "Bytes of log that would go if half messages and waiting ones did not need some of them.",
        retention.pinned_bytes.get(),
    );
    page.failure(intake.latch().failure());
}

/// When the oldest open and the oldest parked half came.
#[derive(Default)]
struct Ages {
    open: Option<Stamp>,
    parked: Option<Stamp>,
}

impl Ages {
    fn look(monitor: &Monitor) -> Self {
        let oldest = |parked| {
            let query = HalfQuery { parked: Some(parked), ..HalfQuery::default() };
            let oldest = monitor.shard.halves(&query, 1).inspect_err(|error| {
                tracing::warn!(%error, "cannot read half messages for metrics");
            });
            oldest.ok().and_then(|rows| rows.first().map(|row| row.prepared_at))
        };
        Self { open: oldest(false), parked: oldest(true) }
    }
}

#[derive(Default)]
pub(super) struct Page {
    text: String,
}

/// The page of a broker that does not serve yet.
pub(super) fn page_of_start() -> String {
    let mut page = Page::default();
    ready(&mut page, false);
    page.text
}

fn ready(page: &mut Page, is_ready: bool) {
    page.gauge("ready", "1 while requests are served or passed on.", u64::from(is_ready));
}

impl Page {
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, "", value);
    }

    fn results(&mut self, name: &str, help: &str, results: &Results) {
        self.head(name, help, "counter");
        for (code, count) in results.each() {
            self.line(name, &format!("{{code=\"{code}\"}}"), count);
        }
    }

    /// The lines of a histogram, whose head comes before those of all labels.
    pub(super) fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bound, upto) in histogram.buckets() {
            self.line(&format!("{name}_bucket"), &format!("{{{labels}{comma}le=\"{bound}\"}}"), upto);
            count = upto;
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.line(&format!("{name}_sum"), &labels, histogram.seconds());
        self.line(&format!("{name}_count"), &labels, count);
    }

    /// Whether the store failed; if so also the first failure, and where it was seen.
    fn failure(&mut self, failure: Option<&Failure>) {
        self.gauge("store_failed", "1 after the store failed, until a restart.", u64::from(failure.is_some()));
        let Some(failure) = failure else { return };
        let (entry, position) = failure.place();
        let entry = entry.map(|entry| entry.to_string()).unwrap_or_default();
        let position = position.map(|position| position.to_string()).unwrap_or_default();
        self.head(
            "store_failure_info",
            "The first failure: the operation, or the promise that does not hold.",
            "gauge",
        );
        let what = failure.what();
        self.line("store_failure_info", &format!("{{what=\"{what}\",entry=\"{entry}\",position=\"{position}\"}}"), 1);
    }

    pub(super) fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP escrowmq_{name} {help}\n# TYPE escrowmq_{name} {kind}");
    }

    pub(super) fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "escrowmq_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latch::{FailureLatch, Promise};
    use crate::terms::{LogIndex, Position};

    #[test]
    fn a_broken_promise_is_named_with_its_place() {
        let latch = FailureLatch::default();
        latch.broken(Promise::StampsRise, Some(LogIndex(7)), Some(Position(90)), "4 after 5".to_owned());
        let mut page = Page::default();
        page.failure(latch.failure());
        let line = "escrowmq_store_failure_info{what=\"P5: stamps do not fall\",entry=\"7\",position=\"90\"} 1\n";
        assert!(page.text.contains("escrowmq_store_failed 1\n") && page.text.ends_with(line), "{}", page.text);
    }

    #[test]
    fn a_histogram_has_buckets_that_add_up_a_sum_and_a_count() {
        let (mut page, histogram) = (Page::default(), Histogram::default());
        histogram.record(std::time::Duration::from_millis(2));
        page.histogram("append_seconds", "seat=\"n1\"", &histogram);
        for line in [
            "escrowmq_append_seconds_bucket{seat=\"n1\",le=\"0.001\"} 0",
            "escrowmq_append_seconds_bucket{seat=\"n1\",le=\"0.0025\"} 1",
            "escrowmq_append_seconds_bucket{seat=\"n1\",le=\"+Inf\"} 1",
            "escrowmq_append_seconds_sum{seat=\"n1\"} 0.002",
            "escrowmq_append_seconds_count{seat=\"n1\"} 1",
        ] {
            assert!(page.text.lines().any(|each| each == line), "{line} in {}", page.text);
        }
    }

    #[test]
    fn figures_have_a_type_and_codes_are_labels() {
        let mut page = Page::default();
        let results = Results::default();
        results.record(0);
        results.record(17);
        page.results("sends_total", "Sends.", &results);
        page.gauge("open", "Open.", 3);
        assert_eq!(
            page.text,
            "# HELP escrowmq_sends_total Sends.\n# TYPE escrowmq_sends_total counter\n\
             escrowmq_sends_total{code=\"0\"} 1\nescrowmq_sends_total{code=\"17\"} 1\n\
             # HELP escrowmq_open Open.\n# TYPE escrowmq_open gauge\nescrowmq_open 3\n"
        );
    }
}
