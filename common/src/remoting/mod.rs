//! Connections that carry frames both ways.
//!
//! ```text
//!  socket -> read buffer -> Frame -> Service::on_request        (in order, on the connection's task)
//!                                 `> the waiting call           (responses, by opaque)
//!  reply, call, oneway -> out buffer -> socket                  (from any thread; many frames per write)
//! ```
//!
//! One task per connection reads, hands on and writes. Promises:
//! * Everything that is written while the task is busy with a read batch goes out in one write after it.
//! * A peer that does not read is not read from either: above a soft bound of its out buffer the task stops reading,
//!   above a hard bound it closes the connection.
//! * Undecodable input, a frame that does not finish, a peer that reads too slowly and silence close their own connection
//!   and cost nobody else anything; one log line in a second says so, with the number of those before it.
//! * What all connections hold together stays within a [`Budget`]. First they are slowed, then refused as busy; a small
//!   request on a connection that has no answers unread passes whatever the others do.
//! * A call ends exactly once: answered, timed out or with its connection; its entry never outlives it.
//! * An idle connection holds no buffers.
//! * A connection may begin with a PROXY header; it is believed only from [`TrustedProxies`].
//!
//! Left to others: what a request means. A [`Service`] must not block; slow work is its own to spawn.

mod budget;
mod connection;
mod end;
mod error;
mod input;
mod log_gate;
mod pipe;
mod proxies;
mod proxy_header;
mod remote;
mod serve;
mod slow_reader;

use std::sync::Arc;
use std::time::Duration;

pub use budget::{Budget, BudgetCounts, BudgetLimits, LARGE_BODY_PLACES};
pub use connection::Connection;
pub use error::CallError;
pub use log_gate::LogGate;
pub use proxies::TrustedProxies;
pub use remote::{Remote, RemoteOptions};
pub use serve::{ServeLimits, join, serve, serve_streams};

use crate::code::response;
use crate::frame::{Frame, MAX_FRAME_LEN};

/// A process's treatment of the requests that arrive on its connections.
pub trait Service: Send + Sync + 'static {
    /// Takes one request. Called in order of arrival on the connection's task, so it must not block.
    ///
    /// Answer through [`Connection::reply`] or [`Connection::write_with`], now or later, from any thread.
    fn on_request(&self, connection: &Arc<Connection>, request: Frame);

    /// Takes a response. By default it goes to the call that waits for it.
    fn on_response(&self, connection: &Arc<Connection>, response: Frame) {
        // One that nobody waits for is a late answer.
        let _ = connection.complete(response);
    }

    /// Calls `requests`, once, which hands on all requests of one read through [`on_request`](Service::on_request).
    /// Answers whether [`after_reads`](Service::after_reads) is to be called.
    fn on_read(&self, requests: &mut dyn FnMut()) -> bool {
        requests();
        false
    }

    /// Called after an [`on_read`](Service::on_read) that asked for it, when what else there was to read at that moment
    /// has been read: the place for what is better done once for many requests. Called in any case, even if the
    /// connection ends.
    fn after_reads(&self) {}

    /// Whether carrying out this code parses the body, as of a list in JSON. A large one is then taken by
    /// [`on_request`](Service::on_request) on a thread for blocking work, and the connection is read on when that is done:
    /// its requests keep their order, and other connections do not wait.
    fn parses_body(&self, _code: i32) -> bool {
        false
    }

    /// Whether a request of this code is taken even from a connection that has too many others unanswered: decisions and
    /// acknowledgements, which free what others hold.
    fn is_vital(&self, _code: i32) -> bool {
        false
    }

    /// A connection was opened; no request of it has been seen yet.
    fn on_open(&self, _connection: &Arc<Connection>) {}

    /// A connection has ended; no request of it follows. Called exactly once for each `on_open`.
    fn on_close(&self, _connection: &Arc<Connection>) {}
}

/// The service of a process that only asks: every request is answered as not supported.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRequests;

impl Service for NoRequests {
    fn on_request(&self, connection: &Arc<Connection>, request: Frame) {
        let remark = format!(" request type {} not supported", request.code);
        connection.reply(&Frame::response(&request, response::REQUEST_CODE_NOT_SUPPORTED).with_remark(remark));
    }
}

/// The answer to a request that is not looked at for want of room. Clients send it again.
pub(crate) fn busy(request: &Frame, why: &str) -> Frame {
    let remark = format!("[OVERLOAD]system busy, start flow control for a while: {why}");
    Frame::response(request, response::SYSTEM_BUSY).with_remark(remark)
}

/// Bounds of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Most bytes of one incoming frame. Default 16 MiB, which is also the most.
    pub frame_len: usize,
    /// A connection on which nothing was read or written for so long is closed. Default 120 s.
    pub idle: Duration,
    /// A frame whose first byte has arrived must be complete within this time. Default 60 s.
    pub frame_time: Duration,
    /// Bytes waiting to be written above which the connection is not read from. Default 8 MiB.
    pub out_soft: usize,
    /// Bytes waiting to be written above which the connection is closed. Default 64 MiB.
    pub out_hard: usize,
    /// A peer with answers waiting must take some within this time. Default 60 s.
    pub drain_time: Duration,
    /// Of many answers it must take at least this many bytes in each second of that time. Default 4,096.
    pub drain_rate: usize,
    /// Requests without an answer above which the connection is read no further, and after a second refused as busy.
    /// Default 131,072: twice the sends that a client has in flight at most.
    pub in_flight: u64,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            frame_len: MAX_FRAME_LEN,
            idle: Duration::from_secs(120),
            frame_time: Duration::from_secs(60),
            out_soft: 8 * 1024 * 1024,
            out_hard: 64 * 1024 * 1024,
            drain_time: Duration::from_secs(60),
            drain_rate: 4096,
            in_flight: 131_072,
        }
    }
}

#[cfg(test)]
mod tests;
