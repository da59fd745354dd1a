//! What clients ask for, and how it is answered.

use escrowmq_common::monitoring::Families;

use super::Monitor;
use crate::metrics::Results;

pub(super) fn collect(families: &mut Families<'_>, monitor: &Monitor) {
    let metrics = &monitor.metrics;
    results(families, "escrowmq_send_requests_total", "Sends by response code.", &metrics.sends);
    results(families, "escrowmq_pull_requests_total", "Pulls by response code.", &metrics.pulls);
    let help = "Messages sent back by response code.";
    results(families, "escrowmq_send_back_requests_total", help, &metrics.send_backs);
    results(families, "escrowmq_decision_requests_total", "Decisions by response code.", &metrics.decisions);
    for (name, help, count) in [
        ("escrowmq_messages_in_total", "Messages stored by sends, halves included.", &metrics.messages_in),
        ("escrowmq_message_bytes_in_total", "Bytes of these messages as they are stored.", &metrics.bytes_in),
        ("escrowmq_messages_out_total", "Messages handed to consumers.", &metrics.messages_out),
        ("escrowmq_message_bytes_out_total", "Bytes of these messages as they are stored.", &metrics.bytes_out),
        (
            "escrowmq_pulls_unreadable_total",
            "Pulls that met a message whose bytes are damaged or missing: its queue waits there.",
            &metrics.messages_unreadable,
        ),
        ("escrowmq_dead_letters_total", "Messages that became dead letters.", &metrics.dead_letters),
        ("escrowmq_registrations_total", "Registrations that a nameserver took.", &metrics.registrations),
        (
            "escrowmq_registrations_failed_total",
            "Registrations that a nameserver refused or did not answer.",
            &metrics.registrations_failed,
        ),
        ("escrowmq_holds_refused_total", "Pulls answered at once because too many were held.", &metrics.holds_refused),
        ("escrowmq_pulls_put_off_total", "Pulls answered without messages for want of bytes.", &metrics.pulls_put_off),
        ("escrowmq_searches_refused_total", "Searches and listings refused as busy.", &metrics.searches_refused),
        (
            "escrowmq_creations_refused_total",
            "Topics and groups not made, for their number.",
            &metrics.creations_refused,
        ),
        (
            "escrowmq_creations_too_fast_total",
            "Topics and groups not made, for their rate.",
            &metrics.creations_too_fast,
        ),
        ("escrowmq_groups_expired_total", "Groups that went by themselves.", &metrics.groups_expired),
    ] {
        families.counter(name, help, count.get());
    }
    let spans = monitor.spans.as_ref();
    let help = "Spans of requests that the collector took.";
    families.counter("escrowmq_trace_spans_total", help, spans.map_or(0, |spans| spans.exported.get()));
    let help = "Spans of requests that were dropped: too many waited, or the collector did not take them.";
    families.counter("escrowmq_trace_spans_dropped_total", help, spans.map_or(0, |spans| spans.dropped.get()));
    let help =
        "Time from the arrival of a request to its answer, by the name of its code; that of a pull includes its wait.";
    families.histograms("escrowmq_request_seconds", help, |samples| {
        for (request, times) in monitor.request_times.each().filter(|(_, times)| times.count() > 0) {
            samples.histogram(&[("request", request)], times);
        }
    });
    let help = "Time for which pulls were held until a message came or their time was over.";
    families.histograms("escrowmq_pull_wait_seconds", help, |samples| samples.histogram(&[], &metrics.pull_waits));
    for (name, help, value) in [
        ("escrowmq_held_pulls", "Pulls that wait for messages.", metrics.held_pulls.get()),
        ("escrowmq_searches_waiting", "Searches and listings that wait for a place.", monitor.gate.waiting() as u64),
        (
            "escrowmq_cold_pulls_waiting",
            "Pulls that wait for files to be read.",
            monitor.delivery.cold.waiting() as u64,
        ),
    ] {
        families.gauge(name, help, value);
    }
}

fn results(families: &mut Families<'_>, name: &str, help: &str, results: &Results) {
    families.counters(name, help, |samples| {
        for (code, count) in results.each() {
            samples.counter(&[("code", &code)], count);
        }
    });
}
