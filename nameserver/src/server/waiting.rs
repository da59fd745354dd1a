//! Requests that wait for the registrar: bounded, and fair.
//!
//! Promises: what waits is bounded by number and by bytes, header and body, for each connection and for all; a connection
//! over which no broker is listed gets at most half of all, so that strangers cannot keep brokers out; requests of one
//! connection keep their order; connections take turns, so that each waits for one request of every other at most. The
//! end of a connection is always taken: there are at most as many as connections that registered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Connection;
use parking_lot::{Condvar, Mutex};

use super::order::{Turn, held};
use crate::routes::ConnectionId;

/// Requests that may wait, of all connections together.
const ALL_REQUESTS_MAX: usize = 4096;
/// Bytes of them: as much as eight of the largest frames.
const ALL_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Requests of one connection that may wait.
const OWN_REQUESTS_MAX: usize = 256;
/// Bytes of them: as much as two of the largest frames.
const OWN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A body up to this size is copied out of the read buffer it came in, which it would keep as a whole.
const COPIED_BODY_MAX: usize = 64 * 1024;

/// The next thing to do.
#[derive(Debug)]
pub(super) enum Next {
    /// A request, and its connection's turn, to be held until it is answered.
    Request(Arc<Connection>, Box<Frame>, Turn),
    /// A connection that registered has ended; nothing of it waits any more.
    Closed(ConnectionId),
    /// Nothing came in time.
    Nothing,
    /// There will be nothing more.
    Stop,
}

/// The queue. Any thread adds, the registrar takes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: HashMap<ConnectionId, Line>,
    /// The connections that have something waiting, in the order of their turns.
    turns: VecDeque<ConnectionId>,
    total: Load,
    /// The part of it that connections without a listed broker have.
    strangers: Load,
    is_stopped: bool,
}

/// The requests of one connection that wait.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiter>,
    load: Load,
}

#[derive(Debug)]
struct Waiter {
    what: What,
    arrived: Duration,
    bytes: usize,
    is_stranger: bool,
}

#[derive(Debug)]
enum What {
    Request(Arc<Connection>, Box<Frame>, Turn),
    Closed,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    requests: usize,
    bytes: usize,
}

impl Load {
    /// Whether a request fits. One that is alone always does.
    fn takes(self, bytes: usize, requests_max: usize, bytes_max: usize) -> bool {
        self.requests == 0 || (self.requests < requests_max && self.bytes + bytes <= bytes_max)
    }

    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn sub(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }
}

impl Waiting {
    /// Takes a request, or gives it back if there are too many. `is_stranger` says that no broker is listed by that
    /// connection.
    pub(super) fn push(
        &self,
        connection: &Arc<Connection>,
        mut request: Frame,
        turn: Turn,
        is_stranger: bool,
        now: Duration,
    ) -> Result<(), (Box<Frame>, Turn)> {
        let bytes = held(&request);
        let id = ConnectionId(connection.id());
        let mut queue = self.queue.lock();
        let own = queue.lines.get(&id).map_or_else(Load::default, |line| line.load);
        let fits = own.takes(bytes, OWN_REQUESTS_MAX, OWN_BYTES_MAX)
            && queue.total.takes(bytes, ALL_REQUESTS_MAX, ALL_BYTES_MAX)
            && (!is_stranger || queue.strangers.takes(bytes, ALL_REQUESTS_MAX / 2, ALL_BYTES_MAX / 2));
        if !fits {
            return Err((Box::new(request), turn));
        }
        if request.body.len() <= COPIED_BODY_MAX {
            request.body = request.body.to_vec().into();
        }
        let what = What::Request(Arc::clone(connection), Box::new(request), turn);
        queue.add(id, Waiter { what, arrived: now, bytes, is_stranger });
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the end of a connection, after its requests.
    pub(super) fn push_closed(&self, id: ConnectionId, now: Duration) {
        self.queue.lock().add(id, Waiter { what: What::Closed, arrived: now, bytes: 0, is_stranger: false });
        self.arrived.notify_one();
    }

    /// Ends the queue after the requests that are in it.
    pub(super) fn stop(&self) {
        self.queue.lock().is_stopped = true;
        self.arrived.notify_one();
    }

    /// The next thing to do; waits for it for a while.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let mut queue = self.queue.lock();
        if queue.turns.is_empty() && !queue.is_stopped {
            self.arrived.wait_for(&mut queue, patience);
        }
        match queue.take() {
            Some((_, Waiter { what: What::Request(connection, request, turn), .. })) => {
                Next::Request(connection, request, turn)
            }
            Some((id, Waiter { what: What::Closed, .. })) => Next::Closed(id),
            None if queue.is_stopped => Next::Stop,
            None => Next::Nothing,
        }
    }

    /// When the request that has waited longest arrived. Until then everything that arrived has been looked at.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let queue = self.queue.lock();
        queue.lines.values().filter_map(|line| line.waiting.front()).map(|waiter| waiter.arrived).min()
    }
}

impl Queue {
    fn add(&mut self, id: ConnectionId, waiter: Waiter) {
        let line = self.lines.entry(id).or_default();
        if line.waiting.is_empty() {
            self.turns.push_back(id);
        }
        line.load.add(waiter.bytes);
        self.total.add(waiter.bytes);
        if waiter.is_stranger {
            self.strangers.add(waiter.bytes);
        }
        line.waiting.push_back(waiter);
    }

    fn take(&mut self) -> Option<(ConnectionId, Waiter)> {
        let id = self.turns.pop_front()?;
        let line = self.lines.get_mut(&id).expect("a connection with a turn has a line");
        let waiter = line.waiting.pop_front().expect("a line is never empty");
        line.load.sub(waiter.bytes);
        self.total.sub(waiter.bytes);
        if waiter.is_stranger {
            self.strangers.sub(waiter.bytes);
        }
        if line.waiting.is_empty() {
            self.lines.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        Some((id, waiter))
    }
}

#[cfg(test)]
mod tests {
    use super::super::net::Net;
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn request(code: i32, header: usize, body: usize) -> Frame {
        Frame::request(code).with_field("x", "h".repeat(header)).with_body(vec![0; body])
    }

    fn code(next: Next) -> i32 {
        match next {
            Next::Request(_, request, _) => request.code,
            other => panic!("{other:?} instead of a request"),
        }
    }

    #[tokio::test]
    async fn headers_count_like_bodies() {
        const MIB: usize = 1024 * 1024;
        let mut net = Net::start().await;
        for (header, body) in [(8 * MIB, 0), (0, 8 * MIB), (4 * MIB, 4 * MIB)] {
            let waiting = Waiting::default();
            let one = net.connection().await;
            let mut taken = 0;
            while waiting.push(&one, request(taken, header, body), Turn::default(), false, NOW).is_ok() {
                taken += 1;
            }
            assert_eq!(taken, 3, "four would be above 32 MiB: header {header}, body {body}");
            for other in 0.. {
                let other_one = net.connection().await;
                if waiting.push(&other_one, request(0, header, body), Turn::default(), false, NOW).is_err() {
                    assert_eq!(other, 12, "128 MiB hold 15 in all");
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn strangers_leave_half_to_brokers() {
        let mut net = Net::start().await;
        let waiting = Waiting::default();
        let mut taken = 0;
        for _ in 0..10 {
            let stranger = net.connection().await;
            while waiting.push(&stranger, request(1, 0, 0), Turn::default(), true, NOW).is_ok() {
                taken += 1;
            }
        }
        assert_eq!(taken, ALL_REQUESTS_MAX / 2);
        let broker = net.connection().await;
        assert!(waiting.push(&broker, request(2, 0, 0), Turn::default(), false, NOW).is_ok());
    }

    #[tokio::test]
    async fn connections_take_turns_and_keep_their_own_order() {
        let mut net = Net::start().await;
        let waiting = Waiting::default();
        let (greedy, modest) = (net.connection().await, net.connection().await);
        for code in 0..100 {
            waiting.push(&greedy, request(code, 0, 0), Turn::default(), true, NOW).unwrap();
        }
        waiting.push(&modest, request(1000, 0, 0), Turn::default(), false, NOW * 2).unwrap();
        waiting.push_closed(ConnectionId(modest.id()), NOW * 2);
        assert_eq!(waiting.oldest(), Some(NOW));
        assert_eq!(code(waiting.next(NOW)), 0);
        assert_eq!(code(waiting.next(NOW)), 1000);
        assert_eq!(code(waiting.next(NOW)), 1);
        assert!(matches!(waiting.next(NOW), Next::Closed(id) if id.0 == modest.id()));
        for expected in 2..100 {
            assert_eq!(code(waiting.next(NOW)), expected);
        }
        assert!(matches!(waiting.next(Duration::from_millis(1)), Next::Nothing));
        assert_eq!(waiting.oldest(), None);
        waiting.push(&greedy, request(7, 0, 0), Turn::default(), true, NOW).unwrap();
        waiting.stop();
        assert_eq!(code(waiting.next(NOW)), 7, "what is there is done first");
        assert!(matches!(waiting.next(NOW), Next::Stop));
    }
}
