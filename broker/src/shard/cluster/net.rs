//! The network between the nodes: connections that delay, lose, repeat, reorder and break.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use escrowmq_common::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::group::new_id;
use crate::log::sim_disk::Random;
use crate::raft::{Lane, Link, Links};

/// Where a node sits. Its Raft id may change, its seat does not.
pub(super) type Seat = usize;

/// The address of a seat, as a membership has it.
pub(super) fn address(seat: Seat) -> String {
    format!("n{seat}-127.0.0.1:{}", seat + 1)
}

/// The Raft id of a seat whose folder was lost so many times.
pub(super) fn id_of(seat: Seat, lost: u64) -> u64 {
    new_id(&format!("n{seat}"), 10 * lost + seat as u64 + 1)
}

/// The seat of an address.
pub(super) fn seat_at(address: &str) -> Option<Seat> {
    address.parse::<crate::config::Seat>().ok().map(|seat| usize::from(seat.number()))
}

/// How the network treats what it carries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Of a thousand messages so many are lost.
    pub(super) lost: u64,
    /// Of a thousand requests so many come twice.
    pub(super) repeated: u64,
    /// Messages take up to so many milliseconds longer.
    pub(super) delay: u64,
    /// Messages overtake each other.
    pub(super) reorders: bool,
}

/// A message that arrives.
pub(super) enum Arrival {
    Request {
        to: Seat,
        /// The Raft id that it is for.
        node: u64,
        call: u64,
        bytes: Bytes,
    },
    /// The answer was handed to its caller.
    Answered,
}

struct Packet {
    from: Seat,
    to: Seat,
    lane: Lane,
    call: u64,
    content: Content,
}

enum Content {
    /// For this Raft id: another member may have the seat by now.
    Request(u64, Bytes),
    Answer(io::Result<Bytes>),
}

/// A call without an answer.
struct Call {
    from: Seat,
    to: Seat,
    lane: Lane,
    caller: oneshot::Sender<io::Result<Bytes>>,
}

struct Inner {
    clock: Clock,
    random: Random,
    weather: Weather,
    /// Nothing goes from the first to the second.
    cut: Vec<(Seat, Seat)>,
    /// Nodes that do not run: connections are refused.
    down: Vec<Seat>,
    packets: BTreeMap<(Duration, u64), Packet>,
    calls: BTreeMap<u64, Call>,
    next: u64,
    /// When the last message of a connection arrives, so that the next one comes after it.
    last: BTreeMap<(Seat, Seat, Lane, bool), Duration>,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub(super) struct Net {
    inner: Arc<Mutex<Inner>>,
}

impl Net {
    pub(super) fn new(clock: Clock, seed: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                clock,
                random: Random::new(seed),
                weather: Weather::default(),
                cut: Vec::new(),
                down: Vec::new(),
                packets: BTreeMap::new(),
                calls: BTreeMap::new(),
                next: 0,
                last: BTreeMap::new(),
            })),
        }
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// Nothing goes from one seat to another any more.
    pub(super) fn cut(&self, from: Seat, to: Seat) {
        self.inner.lock().cut.push((from, to));
    }

    /// Whether anything goes from one seat to another.
    pub(super) fn reaches(&self, from: Seat, to: Seat) -> bool {
        !self.inner.lock().cut.contains(&(from, to))
    }

    /// All cuts are mended, and the weather is fine.
    pub(super) fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.cut.clear();
        inner.weather = Weather::default();
    }

    /// A node is gone: its connections break. Answers that it has sent arrive all the same.
    pub(super) fn node_down(&self, seat: Seat) {
        let mut inner = self.inner.lock();
        inner.down.push(seat);
        let is_answer = |packet: &Packet| packet.from == seat && matches!(packet.content, Content::Answer(_));
        inner.packets.retain(|_, packet| packet.to != seat && (packet.from != seat || is_answer(packet)));
        let answered: BTreeSet<u64> =
            inner.packets.values().filter(|packet| is_answer(packet)).map(|packet| packet.call).collect();
        let is_broken = |call: &u64, way: &mut Call| way.from == seat || way.to == seat && !answered.contains(call);
        let calls = inner.calls.extract_if(.., is_broken);
        let broken: Vec<Call> = calls.map(|(_, call)| call).collect();
        drop(inner);
        for call in broken {
            // The caller may be gone as well.
            let _ = call.caller.send(Err(io::ErrorKind::ConnectionReset.into()));
        }
    }

    pub(super) fn node_up(&self, seat: Seat) {
        self.inner.lock().down.retain(|down| *down != seat);
    }

    /// When the next message arrives.
    pub(super) fn next_arrival(&self) -> Option<Duration> {
        self.inner.lock().packets.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next message that has arrived by now. Answers are handed to their callers.
    pub(super) fn arrive(&self) -> Option<Arrival> {
        let mut inner = self.inner.lock();
        let due = *inner.packets.first_key_value()?.0;
        if due.0 > inner.clock.monotonic() {
            return None;
        }
        let packet = inner.packets.remove(&due)?;
        match packet.content {
            Content::Request(node, bytes) => Some(Arrival::Request { to: packet.to, node, call: packet.call, bytes }),
            Content::Answer(answer) => {
                let call = inner.calls.remove(&packet.call);
                drop(inner);
                if let Some(call) = call {
                    // The caller may have given up.
                    let _ = call.caller.send(answer);
                }
                Some(Arrival::Answered)
            }
        }
    }

    /// A node answers a call.
    pub(super) fn answer(&self, call: u64, answer: io::Result<Bytes>) {
        let mut inner = self.inner.lock();
        let Some((from, to, lane)) = inner.calls.get(&call).map(|call| (call.from, call.to, call.lane)) else { return };
        inner.post(Packet { from: to, to: from, lane, call, content: Content::Answer(answer) });
    }
}

impl Inner {
    fn post(&mut self, packet: Packet) {
        if self.cut.contains(&(packet.from, packet.to)) {
            return;
        }
        let is_answer = matches!(packet.content, Content::Answer(_));
        if self.random.below(1000) < self.weather.lost {
            // A stream of bytes does not lose what is in its middle: it breaks, or what is small goes on another way.
            if packet.lane == Lane::Append && self.random.below(2) == 0 {
                self.break_connection(packet.from, packet.to);
            }
            return;
        }
        let repeated = !is_answer && self.random.below(1000) < self.weather.repeated;
        if let (true, Content::Request(node, bytes)) = (repeated, &packet.content) {
            let again = Packet { content: Content::Request(*node, bytes.clone()), ..packet };
            self.schedule(again, is_answer);
        }
        self.schedule(packet, is_answer);
    }

    fn schedule(&mut self, packet: Packet, is_answer: bool) {
        let (base, more) = (1 + self.random.below(2), self.random.below(self.weather.delay + 1));
        let mut at = self.clock.monotonic() + Duration::from_millis(base + more);
        if !self.weather.reorders {
            let last = self.last.entry((packet.from, packet.to, packet.lane, is_answer)).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.next += 1;
        self.packets.insert((at, self.next), packet);
    }

    fn break_connection(&mut self, one: Seat, other: Seat) {
        let is_on = |from: Seat, to: Seat, lane: Lane| {
            lane == Lane::Append && ((from, to) == (one, other) || (from, to) == (other, one))
        };
        self.packets.retain(|_, packet| !is_on(packet.from, packet.to, packet.lane));
        let broken: Vec<u64> =
            self.calls.iter().filter(|(_, call)| is_on(call.from, call.to, call.lane)).map(|(call, _)| *call).collect();
        let at = self.clock.monotonic() + Duration::from_millis(1);
        for call in broken {
            let content = Content::Answer(Err(io::ErrorKind::ConnectionReset.into()));
            self.next += 1;
            let packet = Packet { from: other, to: one, lane: Lane::Pulse, call, content };
            self.packets.insert((at, self.next), packet);
        }
    }
}

/// The links of one node.
pub(super) struct SimLinks {
    pub(super) net: Net,
    pub(super) seat: Seat,
}

impl Links for SimLinks {
    type Link = SimLink;

    fn link(&self, node: u64, address: &str, lane: Lane) -> SimLink {
        let to = seat_at(address).expect("addresses here are seats");
        SimLink { net: self.net.clone(), from: self.seat, to, node, lane }
    }
}

#[derive(Clone)]
pub(super) struct SimLink {
    net: Net,
    from: Seat,
    to: Seat,
    node: u64,
    lane: Lane,
}

impl Link for SimLink {
    fn call(&self, request: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send + 'static {
        let (caller, answer) = oneshot::channel();
        let mut inner = self.net.inner.lock();
        inner.next += 1;
        let call = inner.next;
        let (from, to, lane) = (self.from, self.to, self.lane);
        // Callers that gave up.
        inner.calls.retain(|_, call| !call.caller.is_closed());
        if inner.down.contains(&to) && !inner.cut.contains(&(from, to)) {
            let _ = caller.send(Err(io::ErrorKind::NotConnected.into()));
        } else {
            inner.calls.insert(call, Call { from, to, lane, caller });
            inner.post(Packet { from, to, lane, call, content: Content::Request(self.node, request) });
        }
        drop(inner);
        async move { answer.await.unwrap_or_else(|_| Err(io::ErrorKind::ConnectionReset.into())) }
    }
}
