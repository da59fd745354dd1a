//! One connection, as everybody but its own task sees it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::budget::{Budget, BudgetLimits, Charge, Pressure, SMALL};
use super::{CallError, ConnectionLimits};
use crate::frame::{Frame, HeaderEncoding, Language, WIRE_VERSION};

/// The reason of a connection whose out buffer went above its hard bound.
pub(super) const NOT_READING: &str = "peer does not read: out buffer above its hard bound";
/// The reason of a connection that got another answer while it had not read the last, and all connections together held
/// more than they may.
pub(super) const NO_ROOM: &str =
    "peer does not read, and all connections together hold more unsent bytes than they may";

/// Bytes of unsent output above which a connection is read no further once the budget of all runs short.
const SOFT_UNDER_PRESSURE: usize = 64 * 1024;

/// How requests that leave on a connection are marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) encoding: HeaderEncoding,
    pub(super) language: Language,
    pub(super) version: i32,
}

impl Stamp {
    /// Servers stamp the requests that they send to clients with values that the oldest client understands.
    pub(super) const SERVER: Stamp =
        Stamp { encoding: HeaderEncoding::Json, language: Language::JAVA, version: WIRE_VERSION };
}

/// A connection: any thread may write to it and call through it; its own task reads and flushes.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    /// The address that opened the TCP connection.
    sender: SocketAddr,
    /// The client that a trusted sender named.
    client: OnceLock<SocketAddr>,
    local: SocketAddr,
    stamp: Stamp,
    pub(super) limits: ConnectionLimits,
    pub(super) budget: Arc<Budget>,
    pub(super) out: Mutex<Out>,
    /// Bytes in `out` and bytes that the task has taken from it but not yet written.
    pub(super) queued: AtomicUsize,
    /// Wakes the connection's task.
    pub(super) waker: AtomicWaker,
    pub(super) close_reason: OnceLock<&'static str>,
    open: AtomicBool,
    pending: Mutex<Pending>,
    next_opaque: AtomicI32,
    /// Responses written.
    answered: AtomicU64,
    /// Calls that wait for `drained`.
    waiting_for_room: AtomicUsize,
    /// Signalled when `queued` falls back below its soft bound.
    pub(super) drained: Notify,
}

/// Frames that wait to be written.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) buffer: BytesMut,
    /// The task is awake, or waits for the socket to take more: it looks here again without being woken.
    pub(super) attended: bool,
    /// Room of the buffer that the task has taken and writes from.
    pub(super) taken: usize,
    /// The task is gone: nobody writes what is put here.
    ended: bool,
    charge: Charge,
}

impl Out {
    /// Charges the budget for the buffers as they are now.
    pub(super) fn settle(&mut self) {
        let held = self.buffer.capacity() + self.taken;
        // Buffers mostly stay as they are.
        if held != self.charge.bytes() {
            self.charge.set(held);
        }
    }
}

/// Calls that wait for their response.
#[derive(Debug, Default)]
struct Pending {
    waiting: HashMap<i32, oneshot::Sender<Frame>>,
    /// Set when the connection ends, so that nobody registers after the last sweep.
    ended: bool,
}

impl Connection {
    pub(super) fn new(
        sender: SocketAddr,
        local: SocketAddr,
        stamp: Stamp,
        limits: ConnectionLimits,
        budget: &Arc<Budget>,
    ) -> Connection {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let charge = Charge::new(budget);
        Connection {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            sender,
            client: OnceLock::new(),
            local,
            stamp,
            limits,
            budget: Arc::clone(budget),
            out: Mutex::new(Out { buffer: BytesMut::new(), attended: false, taken: 0, ended: false, charge }),
            queued: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
            close_reason: OnceLock::new(),
            open: AtomicBool::new(true),
            pending: Mutex::default(),
            next_opaque: AtomicI32::new(0),
            answered: AtomicU64::new(0),
            waiting_for_room: AtomicUsize::new(0),
            drained: Notify::new(),
        }
    }

    /// A connection that no task serves: what is sent on it stays there until it is [taken](Self::take_sent). For simulations,
    /// which have no sockets.
    pub fn unserved(client: SocketAddr) -> Connection {
        let budget = Arc::new(Budget::new(BudgetLimits::default()));
        Connection::new(client, client, Stamp::SERVER, ConnectionLimits::default(), &budget)
    }

    /// Takes the bytes that were sent on a connection that no task serves.
    pub fn take_sent(&self) -> BytesMut {
        let mut out = self.out.lock();
        let sent = std::mem::take(&mut out.buffer);
        out.settle();
        drop(out);
        self.on_written(sent.len());
        sent
    }

    /// Unique among all connections of this process, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client at the other end: the one that a trusted load balancer named, else [`sender`](Self::sender).
    pub fn peer(&self) -> SocketAddr {
        self.client.get().copied().unwrap_or(self.sender)
    }

    /// The address that opened the TCP connection, even if a header names another client.
    pub fn sender(&self) -> SocketAddr {
        self.sender
    }

    /// Whether the TCP connection was opened on this machine: by its loopback address, or by the address that it connected
    /// to. A sender that brings the requests of another client is no more local than that client.
    pub fn is_local(&self) -> bool {
        let is_here = |address: &SocketAddr| {
            let ip = address.ip().to_canonical();
            ip.is_loopback() || ip == self.local.ip().to_canonical()
        };
        is_here(&self.sender) && self.client.get().is_none_or(is_here)
    }

    /// Notes the client that a trusted sender named, before the first request.
    pub(super) fn set_client(&self, client: SocketAddr) {
        let _ = self.client.set(client);
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether frames can still be sent.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the connection is open and its out buffer below its soft bound, which sinks while all connections together
    /// hold much.
    pub fn is_writable(&self) -> bool {
        self.is_open() && self.queued.load(Ordering::Acquire) <= self.out_soft()
    }

    /// Whether there is room for a large answer: the connection is writable, and all connections together do not hold more
    /// than they may. Ask before work that answers with much.
    pub fn is_roomy(&self) -> bool {
        self.is_writable() && self.budget.pressure() < Pressure::Beyond
    }

    /// Bytes of unsent output above which the peer is read no further.
    pub(super) fn out_soft(&self) -> usize {
        match self.budget.pressure() {
            Pressure::None => self.limits.out_soft,
            Pressure::Slow | Pressure::Evict => self.limits.out_soft.min(SOFT_UNDER_PRESSURE),
            Pressure::Full | Pressure::Beyond => self.limits.out_soft.min(SMALL),
        }
    }

    /// Responses written since the connection was opened.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
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

    /// Lets `write` append one response to the out buffer. Never blocks.
    ///
    /// `write` runs under the buffer's lock: it must only append, and not use this connection. It is not called when the
    /// connection is closed.
    pub fn write_with(&self, write: impl FnOnce(&mut BytesMut)) {
        self.append(write, true);
    }

    fn append(&self, write: impl FnOnce(&mut BytesMut), is_response: bool) {
        if !self.is_open() {
            return;
        }
        let (wake, before, queued) = {
            let mut out = self.out.lock();
            if out.ended {
                return;
            }
            let length = out.buffer.len();
            write(&mut out.buffer);
            out.settle();
            let added = out.buffer.len().saturating_sub(length);
            let before = self.queued.fetch_add(added, Ordering::AcqRel);
            if is_response {
                // Written under the lock alone, so this is no race; a plain store costs less than an addition.
                self.answered.store(self.answered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            (!std::mem::replace(&mut out.attended, true), before, before + added)
        };
        if queued > self.limits.out_hard {
            self.close(NOT_READING);
        } else if before > SOFT_UNDER_PRESSURE && self.budget.pressure() == Pressure::Beyond {
            self.close(NO_ROOM);
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
            Ok(Err(_)) => Err(CallError::ConnectionLost { address: self.peer().to_string() }),
            Err(_) => Err(CallError::Timeout { address: self.peer().to_string(), after: timeout }),
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

    /// Hands a response to the call that waits for it. Gives back one that nobody here waits for.
    pub fn complete(&self, response: Frame) -> Option<Frame> {
        let waiting = self.pending.lock().waiting.remove(&response.opaque);
        match waiting {
            // The call may have given up just now.
            Some(waiting) => waiting.send(response).err(),
            None => Some(response),
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
        let mut out = self.out.lock();
        out.ended = true;
        out.buffer = BytesMut::new();
        out.taken = 0;
        out.settle();
        drop(out);
        self.drained.notify_waiters();
    }

    /// This many bytes were written to the socket.
    pub(super) fn on_written(&self, bytes: usize) {
        let left = self.queued.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        if self.waiting_for_room.load(Ordering::Acquire) > 0 && left <= self.out_soft() {
            self.drained.notify_waiters();
        }
    }

    fn send(&self, mut request: Frame) -> Result<(), CallError> {
        request.encoding = self.stamp.encoding;
        request.language = self.stamp.language;
        request.version = self.stamp.version;
        let mut result = Err(None);
        self.append(|out| result = request.try_encode(out).map_err(Some), false);
        result.map_err(|error| error.map_or_else(|| self.not_sent(), CallError::Frame))
    }

    async fn writable(&self, deadline: Instant) -> Result<(), CallError> {
        if self.is_writable() {
            return Ok(());
        }
        let _counted = Counted::new(&self.waiting_for_room);
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
        CallError::NotSent { address: self.peer().to_string(), reason }
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

/// Counts as one as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::AcqRel);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
