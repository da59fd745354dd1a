//! Requests that only a tool on the broker's own machine may make.

use std::time::Duration;

use escrowmq_common::code::response;
use escrowmq_common::remoting::{Connection, LogGate};

use crate::reply::Reply;

static REFUSED: LogGate = LogGate::new(Duration::from_secs(1));

/// Whether the connection comes from this machine. The address that a load balancer names does not count.
pub(super) fn is_local(connection: &Connection) -> bool {
    connection.is_local()
}

/// Refuses a request from elsewhere. `what` says what is done only from here, as the beginning of a sentence.
pub(super) fn refuse(reply: Reply, what: &str) {
    let peer = reply.connection().peer();
    if let Some(others) = REFUSED.open() {
        tracing::warn!(%peer, others, "{what} on the broker's own machine alone: refused");
    }
    reply.error(response::NO_PERMISSION, &format!("{what} on the broker's own machine alone"));
}
