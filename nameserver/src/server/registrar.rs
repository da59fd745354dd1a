//! The one thread that changes routes.
//!
//! It takes registrations and the like in the order in which they arrive, decides with its [`RouteTable`], publishes
//! and answers. A thread of its own, because a full registration with 100,000 topics takes a good part of a second to
//! read and to apply, which no connection's task may wait for; lookups do not notice it.
//!
//! The queue is bounded by count and by bytes: beyond that, requests are answered as busy. The end of a connection is
//! always taken: there are at most as many waiting as there are connections that registered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use escrowmq_common::clock::Clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::NotifyMinBrokerIdChangeHeader;
use escrowmq_common::remoting::Connection;
use escrowmq_common::task::Shutdown;

use super::busy;
use crate::config::Config;
use crate::kv::Kv;
use crate::routes::{Changes, ConnectionId, MinBrokerChange, RouteTable, RouteTableOptions, Routes};

/// Requests that may wait.
const WAITING_MAX: usize = 4096;

/// Bytes of their bodies that may wait: as much as eight of the largest frames.
const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Connections over which a broker tried to register, for as long as they are open.
type Registrants = DashMap<ConnectionId, Arc<Connection>>;

enum Event {
    Request(Arc<Connection>, Box<Frame>),
    Closed(ConnectionId),
    Stop,
}

/// The way to the registrar.
#[derive(Debug)]
pub(super) struct Registry {
    events: mpsc::Sender<Event>,
    waiting: Arc<Waiting>,
    registrants: Arc<Registrants>,
}

/// How much is in the queue.
#[derive(Debug, Default)]
struct Waiting {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// The thread's own state.
pub(crate) struct Registrar {
    pub(super) table: RouteTable,
    pub(super) parts: Parts,
    events: mpsc::Receiver<Event>,
    waiting: Arc<Waiting>,
    registrants: Arc<Registrants>,
}

/// What the registrar shares with the server.
pub(super) struct Parts {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) routes: Arc<Routes>,
    pub(super) kv: Kv,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
}

pub(super) fn new(parts: Parts) -> (Registry, Registrar) {
    let (sender, receiver) = mpsc::channel();
    let registry = Registry { events: sender, waiting: Arc::default(), registrants: Arc::default() };
    let registrar = Registrar {
        table: RouteTable::new(RouteTableOptions::default()),
        parts,
        events: receiver,
        waiting: Arc::clone(&registry.waiting),
        registrants: Arc::clone(&registry.registrants),
    };
    (registry, registrar)
}

impl Registry {
    /// Hands a request over, or answers that there are too many.
    pub(super) fn submit(&self, connection: &Arc<Connection>, request: Frame) {
        if !self.waiting.admit(request.body.len()) {
            tracing::warn!(peer = %connection.peer(), code = request.code, "too many registrations wait");
            return connection.reply(&busy(&request));
        }
        if request.code == request::REGISTER_BROKER {
            let id = ConnectionId(connection.id());
            self.registrants.insert(id, Arc::clone(connection));
        }
        // The registrar is gone only when the process stops: then nobody is answered.
        let _ = self.events.send(Event::Request(Arc::clone(connection), Box::new(request)));
    }

    /// Tells that a connection has ended, if it matters.
    pub(super) fn connection_closed(&self, connection: &Connection) {
        let id = ConnectionId(connection.id());
        if self.registrants.remove(&id).is_some() {
            let _ = self.events.send(Event::Closed(id));
        }
    }

    /// Lets the registrar end after what it was handed.
    pub(super) fn stop(&self) {
        let _ = self.events.send(Event::Stop);
    }
}

impl Waiting {
    fn admit(&self, bytes: usize) -> bool {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is alone is always admitted.
        let fits = requests == 0 || (requests < WAITING_MAX && waiting + bytes <= WAITING_BYTES_MAX);
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Stops the process's server if the thread ends in any other way than by being asked to: a nameserver that answers
/// from a table that nobody keeps would send clients to dead brokers.
struct Vital(Shutdown);

impl Drop for Vital {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Registrar {
    /// The thread. Ends with its last [`Event`] or when the server is gone.
    pub(crate) fn run(mut self) {
        let _vital = Vital(self.parts.shutdown.clone());
        let mut next_scan = self.parts.clock.monotonic();
        loop {
            let config = self.parts.config.load_full();
            self.table.set_options(RouteTableOptions {
                delete_missing_topics: config.delete_topic_with_broker_registration,
                notify_min_broker: config.notify_min_broker_id_changed,
            });
            let interval = config.scan_not_active_broker_interval;
            match self.events.recv_timeout(interval) {
                Ok(Event::Request(connection, request)) => self.take(&connection, &request),
                Ok(Event::Closed(id)) => {
                    self.change(|table, _, changes| table.connection_closed(id, changes));
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Under a steady load no receive times out: look at the clock after each event as well.
            let now = self.parts.clock.monotonic();
            if now >= next_scan {
                self.change(RouteTable::tick);
                next_scan = now + interval;
            }
        }
    }

    /// One event: decide, publish, carry out.
    pub(super) fn change<T>(&mut self, event: impl FnOnce(&mut RouteTable, Duration, &mut Changes) -> T) -> T {
        let mut changes = Changes::default();
        let now = self.parts.clock.monotonic();
        let outcome = event(&mut self.table, now, &mut changes);
        self.parts.routes.publish(&mut changes);
        for id in changes.close {
            if let Some(connection) = self.registrants.get(&id) {
                connection.close("broker fell silent");
            }
        }
        for change in &changes.notify {
            self.notify(change);
        }
        outcome
    }

    fn take(&mut self, connection: &Arc<Connection>, asked: &Frame) {
        self.waiting.release(asked.body.len());
        // A registration over a connection that has ended meanwhile would stay until it expires: the end of the
        // connection may have been handled already. After this look it has not, and will be behind us.
        if asked.code == request::REGISTER_BROKER && !connection.is_open() {
            return;
        }
        let answer = match asked.code {
            request::REGISTER_BROKER => self.register_broker(connection, asked),
            request::UNREGISTER_BROKER => self.unregister_broker(connection, asked),
            request::BROKER_HEARTBEAT => self.broker_heartbeat(asked),
            request::QUERY_DATA_VERSION => self.query_data_version(asked),
            request::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_permission(asked),
            request::ADD_WRITE_PERM_OF_BROKER => self.add_write_permission(asked),
            request::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(asked),
            request::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(asked),
            code => unreachable!("the dispatch sends no {code} here"),
        };
        connection.reply(&answer);
    }

    /// `NOTIFY_MIN_BROKER_ID_CHANGE`; a broker that misses it finds out with its next registration.
    fn notify(&self, change: &MinBrokerChange) {
        let header = NotifyMinBrokerIdChangeHeader {
            min_broker_id: Some(change.min_id.0),
            broker_name: Some(&change.group),
            min_broker_addr: Some(&change.min_address),
            offline_broker_addr: change.offline_address.as_deref(),
            ha_broker_addr: change.ha_address.as_deref(),
        };
        for id in &change.connections {
            let Some(connection) = self.registrants.get(id) else {
                continue;
            };
            let code = request::NOTIFY_MIN_BROKER_ID_CHANGE;
            let request = Frame::request(code).with_header(&header);
            if let Err(error) = connection.send_oneway(request) {
                tracing::debug!(group = %change.group, %error, "a broker was not told of the smallest id");
            }
        }
    }
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registrar")
    }
}
