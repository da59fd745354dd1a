//! One connection, as everybody but its own task sees it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{CallError, ConnectionLimits};
use crate::frame::{Frame, HeaderEncoding, Language, WIRE_VERSION};

/// The reason of a connection whose out buffer went above its hard bound.
pub(super) const NOT_READING: &str = "peer does not read: out buffer above its hard bound";

/// How requests that leave on a connection are marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) encoding: HeaderEncoding,
    pub(super) language: Language,
    pub(super) version: i32,
}

impl Stamp {
    /// What servers say in the requests that they send to clients: what the oldest client understands.
    pub(super) const SERVER: Stamp =
        Stamp { encoding: HeaderEncoding::Json, language: Language::JAVA, version: WIRE_VERSION };
}

/// A connection: any thread may write to it and call through it; its own task reads and flushes.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    stamp: Stamp,
    pub(super) limits: ConnectionLimits,
    pub(super) out: Mutex<Out>,
    /// Bytes in `out` and bytes that the task has taken from it but not yet written.
    pub(super) queued: AtomicUsize,
    /// Wakes the connection's task.
    pub(super) waker: AtomicWaker,
    pub(super) close_reason: OnceLock<&'static str>,
    open: AtomicBool,
    pending: Mutex<Pending>,
    next_opaque: AtomicI32,
    /// Signalled when `queued` falls back below its soft bound.
    pub(super) drained: Notify,
}

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) buffer: BytesMut,
    /// The task is awake, or waits for the socket to take more: it looks here again without being woken.
    pub(super) attended: bool,
}

/// Calls that wait for their response.
#[derive(Debug, Default)]
struct Pending {
    waiting: HashMap<i32, oneshot::Sender<Frame>>,
    /// Set when the connection ends, so that nobody registers after the last sweep.
    ended: bool,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr, stamp: Stamp, limits: ConnectionLimits) -> Connection {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Connection {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            stamp,
            limits,
            out: Mutex::default(),
            queued: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            close_reason: OnceLock::new(),
            open: AtomicBool::new(true),
            pending: Mutex::default(),
            next_opaque: AtomicI32::new(0),
            drained: Notify::new(),
        }
    }

    /// Unique among all connections of this process, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether frames can still be sent.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the connection is open and its out buffer below its soft bound. Ask before work that answers with much.
    pub fn is_writable(&self) -> bool {
        self.is_open() && self.queued.load(Ordering::Acquire) <= self.limits.out_soft
    }

    /// Why the connection was closed from our side, if it was.
    pub fn close_reason(&self) -> Option<&'static str> {
        self.close_reason.get().copied()
    }

    /// Sends a response. Never blocks. A response to a oneway request goes nowhere, as does one on a closed connection.
    pub fn reply(&self, response: &Frame) {
        if !response.is_oneway() {
            self.write_with(|out| response.encode(out));
        }
    }

    /// Lets `write` append whole frames to the out buffer. Never blocks.
    ///
    /// `write` runs under the buffer's lock: it must only append, and not use this connection. It is not called when the
    /// connection is closed.
    pub fn write_with(&self, write: impl FnOnce(&mut BytesMut)) {
        if !self.is_open() {
            return;
        }
        let (wake, queued) = {
            let mut out = self.out.lock();
            let before = out.buffer.len();
            write(&mut out.buffer);
            let added = out.buffer.len().saturating_sub(before);
            let queued = self.queued.fetch_add(added, Ordering::AcqRel) + added;
            (!std::mem::replace(&mut out.attended, true), queued)
        };
        if queued > self.limits.out_hard {
            self.close(NOT_READING);
        } else if wake {
            self.waker.wake();
        }
    }

    /// Sends a request that gets no answer. Never blocks: above the out buffer's soft bound nothing is sent.
    pub fn send_oneway(&self, mut request: Frame) -> Result<(), CallError> {
        if !self.is_writable() {
            return Err(self.not_sent());
        }
        request.set_oneway();
        request.opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.send(request)
    }

    /// Sends a request and waits for its response, in either direction of the connection.
    ///
    /// While the out buffer is above its soft bound the request waits within its time.
    pub async fn call(&self, mut request: Frame, timeout: Duration) -> Result<Frame, CallError> {
        let deadline = Instant::now() + timeout;
        self.writable(deadline).await?;
        let (waiting, response) = self.register()?;
        request.opaque = waiting.opaque;
        self.send(request)?;
        let result = timeout_at(deadline, response).await;
        drop(waiting);
        match result {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(CallError::ConnectionLost { address: self.peer.to_string() }),
            Err(_) => Err(CallError::Timeout { address: self.peer.to_string(), after: timeout }),
        }
    }

    /// Closes the connection after one attempt to write what is in its out buffer. The first reason given counts.
    pub fn close(&self, why: &'static str) {
        let _ = self.close_reason.set(why);
        self.open.store(false, Ordering::Release);
        self.waker.wake();
    }

    /// How many calls wait for their response.
    pub fn calls_waiting(&self) -> usize {
        self.pending.lock().waiting.len()
    }

    /// Hands a response to the call that waits for it. One that nobody waits for is a late answer, and ignored.
    pub(super) fn complete(&self, response: Frame) {
        let waiting = self.pending.lock().waiting.remove(&response.opaque);
        if let Some(waiting) = waiting {
            let _ = waiting.send(response);
        }
    }

    /// The connection's task is gone: nothing can be sent any more, and nobody is answered.
    pub(super) fn end(&self) {
        self.open.store(false, Ordering::Release);
        let waiting = {
            let mut pending = self.pending.lock();
            pending.ended = true;
            std::mem::take(&mut pending.waiting)
        };
        drop(waiting);
        self.out.lock().buffer = BytesMut::new();
        self.drained.notify_waiters();
    }

    fn send(&self, mut request: Frame) -> Result<(), CallError> {
        request.encoding = self.stamp.encoding;
        request.language = self.stamp.language;
        request.version = self.stamp.version;
        let mut result = Err(None);
        self.write_with(|out| result = request.try_encode(out).map_err(Some));
        result.map_err(|error| error.map_or_else(|| self.not_sent(), CallError::Frame))
    }

    async fn writable(&self, deadline: Instant) -> Result<(), CallError> {
        while !self.is_writable() {
            let drained = self.drained.notified();
            // Between the look above and the registration the buffer may have drained.
            if self.is_writable() {
                break;
            }
            if !self.is_open() || timeout_at(deadline, drained).await.is_err() {
                return Err(self.not_sent());
            }
        }
        Ok(())
    }

    fn not_sent(&self) -> CallError {
        let reason = if self.is_open() { "out buffer is full" } else { "connection is closed" };
        CallError::NotSent { address: self.peer.to_string(), reason }
    }

    fn register(&self) -> Result<(Waiting<'_>, oneshot::Receiver<Frame>), CallError> {
        let (answer, response) = oneshot::channel();
        let mut pending = self.pending.lock();
        if pending.ended {
            return Err(self.not_sent());
        }
        loop {
            let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
            // After a wrap a number may still belong to a call that is waiting.
            if let Entry::Vacant(free) = pending.waiting.entry(opaque) {
                free.insert(answer);
                return Ok((Waiting { connection: self, opaque }, response));
            }
        }
    }
}

/// An entry in the table of waiting calls, taken back when the call ends in whatever way.
struct Waiting<'a> {
    connection: &'a Connection,
    opaque: i32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connection.pending.lock().waiting.remove(&self.opaque);
    }
}
