//! The order of one connection's requests.
//!
//! Most requests are answered at once on their connection's task. Those that change something, and long lists, are handed
//! to others, and while one of them is unanswered, later requests of its connection wait here: so each sees what the ones
//! before it did. A request that goes the same way as those in front of it need not wait: that way keeps their order.
//!
//! Promises: what waits is bounded, for each connection and for all; a connection on which nothing is unanswered costs one
//! look; requests that waited are handed on one after the other, and never one from within another, so that the stack does
//! not grow with their number.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use escrowmq_common::audit::Act;
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

/// Says, when it is dropped, that a request is answered. One of a request that nobody has to wait for says nothing. It carries the act of
/// an administrator that the request is, if it is one.
#[derive(Default)]
pub(super) struct Turn {
    held: Option<Arc<Held>>,
    act: Option<Box<Act>>,
}

impl Turn {
    /// The turn of a request that is this act.
    pub(super) fn with(self, act: Option<Act>) -> Self {
        let mut turn = self;
        turn.act = act.map(Box::new);
        turn
    }

    /// Tells what the act did to one object.
    pub(super) fn tell(&self, object: &str, old: impl Display, new: impl Display) {
        if let Some(act) = &self.act {
            act.tell(object, old, new);
        }
    }

    /// Answers the request. The line of its act comes first.
    pub(super) fn answer(&self, connection: &Connection, answer: &Frame) {
        if let Some(act) = &self.act {
            act.answered(answer.code, answer.remark.as_deref());
        }
        connection.reply(answer);
    }
}

struct Held {
    connection: Arc<Connection>,
    orders: Arc<Orders>,
    dispatch: Weak<dyn Dispatch>,
    /// Set by the first of two ends: the turn is dropped, and whoever handed its request on is back. The second one goes on
    /// with what waits. A request that did not wait has the turn alone, which is the second then.
    has_first: AtomicBool,
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
        // Most requests come by here: a look that shares its lock with others.
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
        let has_first = AtomicBool::new(true);
        let held = Held { connection, orders, dispatch: Weak::clone(dispatch), has_first };
        Order::Now(request, Turn { held: Some(Arc::new(held)), act: None })
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

impl Held {
    /// Whether the other end came before this one.
    fn is_second(&self) -> bool {
        self.has_first.swap(true, Ordering::AcqRel)
    }

    /// Hands on what waits, until one of the requests is not answered yet: its turn goes on from there.
    fn go_on(self: &Arc<Held>) {
        while let Some((request, way)) = self.orders.next(self.connection.id()) {
            // Without a server nobody is answered any more.
            let Some(dispatch) = self.dispatch.upgrade() else {
                continue;
            };
            if way.is_none() {
                // Answered when this returns; the place in the line stays ours.
                dispatch.dispatch(&self.connection, request, Turn::default());
                continue;
            }
            // A short list is answered before this returns, and its turn dropped below us: then it is for this loop to go on.
            self.has_first.store(false, Ordering::Release);
            dispatch.dispatch(&self.connection, request, Turn { held: Some(Arc::clone(self)), act: None });
            if !self.is_second() {
                return;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Its line comes before those of the requests that go on now.
        drop(self.act.take());
        if let Some(held) = self.held.take().filter(|held| held.is_second()) {
            held.go_on();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use escrowmq_common::task::Tasks;

    use super::super::net::Net;
    use super::*;

    /// Answers each request when it is handed over, keeps its turn, or lets another thread drop it.
    #[derive(Default)]
    struct Server {
        how: How,
        orders: Arc<Orders>,
        tasks: Tasks,
        state: Mutex<State>,
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    enum How {
        #[default]
        AtOnce,
        Later,
        Elsewhere,
    }

    #[derive(Default)]
    struct State {
        seen: Vec<i32>,
        kept: Vec<Turn>,
        /// How many requests are being handed over at the moment, one from within another, and the most there were.
        depth: usize,
        deepest: usize,
    }

    impl Dispatch for Server {
        fn dispatch(&self, _: &Arc<Connection>, request: Frame, turn: Turn) {
            let mut state = self.state.lock();
            state.seen.push(request.code);
            state.depth += 1;
            state.deepest = state.deepest.max(state.depth);
            if self.how == How::Later {
                state.kept.push(turn);
            } else {
                drop(state);
                match self.how {
                    How::Elsewhere => drop(self.tasks.spawn_blocking("answer", move || drop(turn))),
                    _ => drop(turn),
                }
                state = self.state.lock();
            }
            state.depth -= 1;
        }
    }

    impl Server {
        fn new(how: How) -> Arc<Server> {
            Arc::new(Server { how, ..Server::default() })
        }

        /// A request that goes this way, and its code.
        fn ask(self: &Arc<Self>, connection: &Arc<Connection>, code: i32, way: Option<Way>) -> Order {
            let dispatch: Weak<dyn Dispatch> = Arc::downgrade(self) as _;
            self.orders.order(connection, Frame::request(code), way, &dispatch)
        }

        /// Lets as many lists wait as may; the turn is that of the one in front of them.
        fn fill(self: &Arc<Self>, connection: &Arc<Connection>) -> Turn {
            let Order::Now(_, turn) = self.ask(connection, -1, Some(Way::Task)) else {
                panic!("nothing was in front of it");
            };
            for code in 0..OWN_REQUESTS_MAX as i32 {
                assert!(matches!(self.ask(connection, code, Some(Way::Task)), Order::Waits), "{code}");
            }
            assert!(matches!(self.ask(connection, -2, Some(Way::Task)), Order::Full(_)));
            turn
        }

        fn seen(&self) -> Vec<i32> {
            self.state.lock().seen.clone()
        }

        fn is_idle(&self) -> bool {
            self.orders.lines.is_empty() && self.orders.bytes.load(Ordering::Relaxed) == 0
        }
    }

    fn all() -> Vec<i32> {
        (0..OWN_REQUESTS_MAX as i32).collect()
    }

    #[tokio::test]
    async fn lists_that_wait_are_answered_one_after_the_other_and_not_one_within_another() {
        let mut net = Net::start().await;
        let (server, connection) = (Server::new(How::AtOnce), net.connection().await);
        drop(server.fill(&connection));
        assert_eq!((server.seen(), server.state.lock().deepest), (all(), 1));
        assert!(server.is_idle());
    }

    #[tokio::test]
    async fn what_is_not_answered_yet_keeps_those_behind_it() {
        let mut net = Net::start().await;
        let (server, connection) = (Server::new(How::Later), net.connection().await);
        drop(server.fill(&connection));
        for n in 1..=OWN_REQUESTS_MAX {
            assert_eq!(server.seen(), all()[..n]);
            let turn = server.state.lock().kept.pop();
            drop(turn);
        }
        assert_eq!(server.seen(), all());
        assert!(server.is_idle());
    }

    #[tokio::test]
    async fn answers_from_elsewhere_go_on_with_each_request_once() {
        let mut net = Net::start().await;
        let connection = net.connection().await;
        for _ in 0..20 {
            let server = Server::new(How::Elsewhere);
            drop(server.fill(&connection));
            let idle = async {
                while !server.is_idle() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(120), idle).await.expect("all are answered");
            assert_eq!(server.seen(), all());
        }
    }
}
