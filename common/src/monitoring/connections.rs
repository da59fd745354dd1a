//! The figures of a budget of connections.

use std::sync::atomic::Ordering;

use super::Families;
use crate::remoting::Budget;

/// Connections, their bytes, and what the budget refused, slowed and ended.
pub fn connections(families: &mut Families<'_>, budget: &Budget) {
    let (limits, counts) = (budget.limits(), budget.counts());
    for (name, help, value) in [
        ("escrowmq_connections", "Open connections.", budget.connections()),
        ("escrowmq_connections_limit", "Connections that may be open.", limits.connections),
        (
            "escrowmq_connections_of_an_address",
            "The most connections that one address has.",
            budget.most_of_an_address(),
        ),
        (
            "escrowmq_connections_of_an_address_limit",
            "Connections that one address may have.",
            limits.connections_per_address,
        ),
        ("escrowmq_connection_bytes", "Bytes of unfinished requests and unsent answers.", budget.bytes_used()),
        ("escrowmq_connection_bytes_limit", "Bytes that all connections may hold.", limits.bytes),
    ] {
        families.gauge(name, help, value as u64);
    }
    let get = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    families.counter("escrowmq_connections_opened_total", "Connections opened.", get(&counts.opened));
    families.counters(
        "escrowmq_connections_refused_total",
        "Connections refused because the process, or their address, had too many.",
        |samples| {
            samples.counter(&[("limit", "process")], get(&counts.refused_connections));
            samples.counter(&[("limit", "address")], get(&counts.refused_addresses));
        },
    );
    families.counter(
        "escrowmq_connections_slowed_total",
        "Times that a connection was read no further for want of bytes or for its unanswered requests.",
        get(&counts.slowed),
    );
    families.counter(
        "escrowmq_requests_refused_busy_total",
        "Requests refused unseen for want of room.",
        get(&counts.refused_requests),
    );
    families.counters(
        "escrowmq_connections_closed_total",
        "Connections closed that held bytes without progress, read too slowly, or sent what cannot be read.",
        |samples| {
            samples.counter(&[("reason", "evicted")], get(&counts.evicted));
            samples.counter(&[("reason", "slow_reader")], get(&counts.slow_readers));
            samples.counter(&[("reason", "bad_input")], get(&counts.bad_input));
        },
    );
}
