//! The order of one connection's requests.
//!
//! Most requests are answered at once on their connection's task. Those that change something, and long lists, are handed
//! to others, and while one of them is unanswered, later requests of its connection wait here: so each sees what the ones
//! before it did. A request that goes the same way as those in front of it need not wait: that way keeps their order.
//!
//! Promises: what waits is bounded, for each connection and for all; a connection on which nothing is unanswered costs one
//! look.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Connection;
use parking_lot::Mutex;

/// Requests of one connection that may wait.
const OWN_REQUESTS_MAX: usize = 256;
/// Bytes of them, header and body; one alone always may.
const OWN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that may wait of all connections together.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that a request takes beside its texts.
const REQUEST_BYTES: usize = 1024;

/// The ways on which requests are handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To the registrar.
    Registrar,
    /// To the writer of the KV configuration.
    Kv,
    /// To a task of its own: settings and long lists. Two of them do not keep their order by themselves.
    Task,
}

/// How a request goes on.
#[derive(Debug)]
pub(super) enum Order {
    /// It is to be answered now, or to be handed on with this turn.
    Now(Frame, Turn),
    /// It waits until those before it are answered; then [`Dispatch`] gets it.
    Waits,
    /// Too many wait already.
    Full(Frame),
}

/// Takes requests whose turn has come.
pub(super) trait Dispatch: Send + Sync {
    /// Answers the request, or hands it on with its turn.
    fn dispatch(&self, connection: &Arc<Connection>, request: Frame, turn: Turn);
}

/// The connections that have unanswered requests.
#[derive(Debug, Default)]
pub(super) struct Orders {
    lines: DashMap<u64, Arc<Mutex<Line>>>,
    bytes: AtomicUsize,
}

/// The unanswered requests of one connection.
#[derive(Debug)]
struct Line {
    /// Where those went that are handed on.
    way: Option<Way>,
    handed_on: usize,
    waiting: VecDeque<(Frame, Option<Way>)>,
    bytes: usize,
}

/// Says, when it is dropped, that a request is answered. One of a request that nobody has to wait for says nothing.
#[derive(Default)]
pub(super) struct Turn(Option<Held>);

struct Held {
    connection: Arc<Connection>,
    orders: Arc<Orders>,
    dispatch: Weak<dyn Dispatch>,
}

impl Orders {
    /// Lets a request through, or keeps it until those before it are answered. `way` is where it goes if it is handed on.
    pub(super) fn order(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        request: Frame,
        way: Option<Way>,
        dispatch: &Weak<dyn Dispatch>,
    ) -> Order {
        // What most requests come by: a look that shares its lock with others.
        if way.is_none() && !self.lines.contains_key(&connection.id()) {
            return Order::Now(request, Turn::default());
        }
        match (self.lines.entry(connection.id()), way) {
            (Entry::Vacant(_), None) => return Order::Now(request, Turn::default()),
            (Entry::Vacant(free), Some(_)) => {
                let line = Line { way, handed_on: 1, waiting: VecDeque::new(), bytes: 0 };
                free.insert(Arc::new(Mutex::new(line)));
            }
            (Entry::Occupied(line), _) => {
                let mut line = line.get().lock();
                let goes_along = way.is_some() && way == line.way && way != Some(Way::Task) && line.waiting.is_empty();
                if !goes_along {
                    return self.keep(&mut line, request, way);
                }
                line.handed_on += 1;
            }
        }
        let (connection, orders) = (Arc::clone(connection), Arc::clone(self));
        Order::Now(request, Turn(Some(Held { connection, orders, dispatch: Weak::clone(dispatch) })))
    }

    fn keep(&self, line: &mut Line, request: Frame, way: Option<Way>) -> Order {
        let bytes = held(&request);
        let fits = line.waiting.is_empty() || line.bytes + bytes <= OWN_BYTES_MAX;
        if line.waiting.len() >= OWN_REQUESTS_MAX || !fits {
            return Order::Full(request);
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > ALL_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Order::Full(request);
        }
        line.bytes += bytes;
        line.waiting.push_back((request, way));
        Order::Waits
    }

    /// A request of this connection is answered: the next one that waits, if it is the turn of one. The connection stays
    /// marked until nothing of it waits, so that no request that comes meanwhile overtakes.
    fn next(&self, connection: u64) -> Option<(Frame, Option<Way>)> {
        let Entry::Occupied(entry) = self.lines.entry(connection) else {
            unreachable!("a connection with a turn has a line");
        };
        let line = Arc::clone(entry.get());
        let mut line = line.lock();
        line.handed_on -= 1;
        if line.handed_on > 0 {
            return None;
        }
        let Some((request, way)) = line.waiting.pop_front() else {
            entry.remove();
            return None;
        };
        let bytes = held(&request);
        line.bytes -= bytes;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        line.handed_on = 1;
        line.way = way;
        Some((request, way))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else {
            return;
        };
        while let Some((request, way)) = held.orders.next(held.connection.id()) {
            // Without a server nobody is answered any more.
            let Some(dispatch) = held.dispatch.upgrade() else {
                continue;
            };
            if way.is_none() {
                // Answered when this returns; the place in the line stays ours.
                dispatch.dispatch(&held.connection, request, Turn::default());
                continue;
            }
            let connection = Arc::clone(&held.connection);
            return dispatch.dispatch(&connection, request, Turn(Some(held)));
        }
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

/// The bytes that a waiting request keeps in memory.
pub(super) fn held(request: &Frame) -> usize {
    let fields: usize = request.fields.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    REQUEST_BYTES + fields + request.remark.as_ref().map_or(0, String::len) + request.body.len()
}
