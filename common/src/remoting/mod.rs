//! Connections that carry frames both ways.
//!
//! ```text
//!  socket -> read buffer -> Frame -> Service::on_request        (in order, on the connection's task)
//!                                 `> the waiting call           (responses, by opaque)
//!  reply, call, oneway -> out buffer -> socket                  (from any thread; many frames per write)
//! ```
//!
//! One task per connection reads, hands on and writes. Promises:
//! * Everything that is written while the task is busy with a read batch goes out in one write behind it.
//! * A peer that does not read is not read from either: above a soft bound of its out buffer the task stops reading,
//!   above a hard bound it closes the connection.
//! * Undecodable input, a frame that does not finish and silence close their own connection with one log line and cost
//!   nobody else anything.
//! * A call ends exactly once: answered, timed out or with its connection; its entry never outlives it.
//! * An idle connection holds no buffers.
//!
//! Left to others: what a request means. A [`Service`] must not block; slow work is its own to spawn.

mod connection;
mod error;
mod pipe;
mod remote;
mod serve;

use std::sync::Arc;
use std::time::Duration;

pub use connection::Connection;
pub use error::CallError;
pub use remote::{Remote, RemoteOptions};
pub use serve::{ServeLimits, serve};

use crate::code::response;
use crate::frame::{Frame, MAX_FRAME_LEN};

/// What a process does with the requests that arrive on its connections.
pub trait Service: Send + Sync + 'static {
    /// Takes one request. Called in order of arrival on the connection's task, so it must not block.
    ///
    /// Answer through [`Connection::reply`] or [`Connection::write_with`], now or later, from any thread.
    fn on_request(&self, connection: &Arc<Connection>, request: Frame);

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
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            frame_len: MAX_FRAME_LEN,
            idle: Duration::from_secs(120),
            frame_time: Duration::from_secs(60),
            out_soft: 8 * 1024 * 1024,
            out_hard: 64 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod tests;
